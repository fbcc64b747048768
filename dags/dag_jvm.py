"""How the JVM of a Spark step on the worker itself is started. Standard library only."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# Up to this number of interactions, a step's JVM lives for seconds, and its second compiler would take most of them.
LIGHT_ROWS = 1_000_000
# Factors are computed by inner loops, about rank² for each interaction, which soon pay for the second compiler.
LIGHT_PRODUCTS = 500_000_000
_BYTES_PER_ROW = 20
# Names the archive of Spark's classes, if the worker has one.
ARCHIVE_VARIABLE = "REPLAYCTL_SPARK_CLASSES"
# With only the first compiler, ALS's frames exceed the default stack that its recursion was written for.
_LIGHT = ("-XX:TieredStopAtLevel=1", "-Xss16m")
_ALWAYS = ("-XX:+UseSerialGC",)


def rows_of(document: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> int | None:
    """The number of interactions that a step computes with; None if it is unknown.

    `results` are from the manifests of its inputs. For a step without inputs, the size of the raw data is used.
    """
    counts = [int(result["raw_rows"]) for result in results if "raw_rows" in result]
    if counts:
        return counts[0]
    name = document["parameters"].get("log_path")
    if not name:
        return None
    path = Path(document["data_root"]) / str(name)
    files = [path, *path.rglob("*")]
    return sum(file.stat().st_size for file in files if file.is_file()) // _BYTES_PER_ROW


def is_light(document: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the second compiler of a step's JVM would cost more than it saves; `results` as for `rows_of`."""
    rows = rows_of(document, results)
    if rows is None:
        return False
    rank = document["parameters"].get("kwargs", {}).get("rank")
    return rows <= LIGHT_ROWS and (not isinstance(rank, int) or rows * rank**2 <= LIGHT_PRODUCTS)


def jvm_conf(environ: Mapping[str, str], *, light: bool) -> dict[str, str]:
    """Spark's configuration for a driver that computes on this worker."""
    conf, options = {}, list(_ALWAYS)
    if light:
        options += _LIGHT
    archive = environ.get(ARCHIVE_VARIABLE)
    if archive and os.path.exists(archive):
        options.append(f'"-XX:SharedArchiveFile={archive}"')
        # A JVM uses the archive only with the class path that it was created with; a class path that is stored beside
        # it has to come first.
        with contextlib.suppress(FileNotFoundError):
            conf["spark.driver.extraClassPath"] = Path(archive).with_suffix(".classpath").read_text()
    local = environ.get("SPARK_LOCAL_DIRS", "").partition(",")[0]
    if os.path.isdir(local):
        # A killed JVM leaves its temporary files behind; in this folder, they can be identified and removed.
        options.append(f'"-Djava.io.tmpdir={local}"')
    return {**conf, "spark.driver.extraJavaOptions": " ".join(options)}
