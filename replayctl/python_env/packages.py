"""The packages of an environment: wheels for the cluster's Python and C library, whatever this machine has."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from replayctl.bundle.package_files import Runtime
from replayctl.console.events import Reporter
from replayctl.errors import OperationFailed, RemoteCommandFailed
from replayctl.local import installer

# The versions of glibc that uv knows as platforms.
_GLIBC = (17, 28, *range(31, 41))
_PROGRESS = ("Resolved", "Downloading", "Building", "Prepared", "Installed")
_TAIL_LINES = 12


def install(python: Path, requirements: Sequence[str], runtime: Runtime, folder: Path, reporter: Reporter) -> None:
    """Installs pinned wheels without their dependencies.

    `python` is one whose pip knows the indexes. Raises OperationFailed when a package has no wheel for the cluster.
    """
    options = ["--only-binary", ":all:", "--python-version", runtime.python, "--python-platform", _platform(runtime)]
    try:
        _install(python, [*options, "--target", str(folder), *requirements], reporter)
    except RemoteCommandFailed as error:
        raise OperationFailed(
            f"cannot install the packages for Python {runtime.python} with glibc {runtime.glibc}",
            hint="change the version in the list, or correct packages.python, packages.glibc or packages.machine",
            details=_last_lines(error.details),
        ) from error


def install_spark_python(
    python: Path, requirements: Sequence[str], folder: Path, reporter: Reporter
) -> tuple[Path, ...]:
    """The zips of Spark's Python, as Spark itself puts them on the path of a driver on YARN."""
    try:
        _install(python, ["--target", str(folder), *requirements], reporter)
    except RemoteCommandFailed as error:
        raise OperationFailed("cannot install Spark's Python", details=_last_lines(error.details)) from error
    return tuple(sorted((folder / "pyspark" / "python" / "lib").glob("*.zip")))


def _platform(runtime: Runtime) -> str:
    number = int(runtime.glibc.partition(".")[2])
    return f"{runtime.machine}-manylinux_2_{max([known for known in _GLIBC if known <= number], default=_GLIBC[0])}"


def _install(python: Path, words: list[str], reporter: Reporter) -> None:
    def show(line: str) -> None:
        if line.startswith(_PROGRESS):
            reporter.status(f"uv: {line.strip()[:100]}")

    installer.install(python, words, os.environ, configured_by=python, on_line=show)


def _last_lines(text: str | None) -> str:
    return "\n".join((text or "").splitlines()[-_TAIL_LINES:])
