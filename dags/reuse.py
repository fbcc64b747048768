"""Why an artifact is reused or not: the origin of a reused one, and how the nearest one differs.

Standard library only, because the Airflow worker imports it before anything is computed, and so does the CLI if it can
read the artifacts.
"""

from __future__ import annotations

import datetime
import heapq
import json
from collections.abc import Iterator, Mapping
from typing import Any

from .artifacts import Artifact, ArtifactError
from .raw_files import changed_data
from .webhdfs import HdfsError

_LOOKED_AT = 50
_SHOWN = 6
_WARNING_LENGTH = 500


def parameters_text(parameters: Mapping[str, Any]) -> str:
    """The most telling parameters on one line: `rank=32, seed=42`. For a step with a model, the model's own."""
    own = parameters.get("kwargs")
    values = own if isinstance(own, Mapping) else parameters
    words = [f"{name}={_text(value)}" for name, value in values.items() if not isinstance(value, (Mapping, list))]
    return ", ".join(words[:_SHOWN]) + (", …" if len(words) > _SHOWN else "")


def origin_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The origin of an artifact: DAG, run, release, time of completion (ISO 8601, UTC) and duration in seconds."""
    run = manifest.get("run")
    run = run if isinstance(run, Mapping) else {}
    try:
        seconds = float(manifest.get("seconds") or 0.0)
        at = datetime.datetime.fromtimestamp(float(manifest.get("started_unix_s") or 0.0) + seconds, tz=datetime.UTC)
    except (ValueError, TypeError, OverflowError, OSError):
        # In a shared folder, anyone may have written it.
        seconds, at = 0.0, datetime.datetime.fromtimestamp(0, tz=datetime.UTC)
    return {
        "dag_id": str(run.get("dag_id") or ""),
        "run_id": str(run.get("run_id") or ""),
        "release": str(manifest.get("release") or ""),
        "at": at.isoformat(timespec="seconds"),
        "seconds": seconds,
    }


def warnings_of(manifest: Mapping[str, Any]) -> list[str]:
    """The warnings of the workload that computed an artifact."""
    warnings = manifest.get("warnings")
    return [str(warning)[:_WARNING_LENGTH] for warning in warnings[:_SHOWN]] if isinstance(warnings, list) else []


def reused_text(parameters: Mapping[str, Any], origin: Mapping[str, Any]) -> str:
    """`reused (rank=32, made 2026-11-25 19:30 UTC by two_stage_ml100k)`."""
    at = datetime.datetime.fromisoformat(str(origin["at"]))
    words = [parameters_text(parameters), f"made {_minute(at)} by {origin['dag_id'] or 'an unknown DAG'}"]
    return f"reused ({', '.join(word for word in words if word)})"


def prospect(document: Mapping[str, Any]) -> dict[str, Any]:
    """What a run would do about a step (`Deployment.step_document`): `reuse` with its origin, or `compute` and why.

    It does not predict what a run computes on the way, so its inputs have to be checked, too.
    """
    artifact = Artifact(str(document["output"]), document.get("hdfs"))
    try:
        manifest = artifact.manifest()
        if changes := changed_data(artifact, document):
            return {"outcome": "compute", "why": f"{changes}: fails if the rows have changed, too"}
        return {"outcome": "reuse", "origin": origin_of(manifest)}
    except (ArtifactError, OSError, ValueError):
        return {"outcome": "compute", "why": why_computed(artifact, document)}


def why_computed(artifact: Artifact, document: Mapping[str, Any]) -> str:
    """How the nearest of the artifacts beside this one differs; empty if there is none to compare with."""
    differences = [
        (difference, manifest)
        for manifest in _siblings(artifact)
        if (difference := list(_differences(manifest, document))) and _comparable(manifest, document)
    ]
    if not differences:
        return ""
    nearest, manifest = min(differences, key=lambda pair: (len(pair[0]), -float(pair[1].get("started_unix_s") or 0)))
    origin = origin_of(manifest)
    return f"{'; '.join(nearest)} (since {_minute(datetime.datetime.fromisoformat(origin['at']))}, {origin['dag_id']})"


def parameter_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """`rank 32 → 64` for each parameter that differs."""
    old, new = dict(flat_parameters(before)), dict(flat_parameters(after))
    return [
        f"{name} {_text(old.get(name, 'unset'))} → {_text(new.get(name, 'unset'))}"
        for name in sorted(old.keys() | new.keys())
        if name not in old or name not in new or old[name] != new[name]
    ]


def _siblings(artifact: Artifact) -> Iterator[dict[str, Any]]:
    """The manifests of the newest artifacts of the same workload and data set."""
    beside = artifact.folder.parent
    try:
        folders = {name: entry for name, entry in beside.entries().items() if not name.startswith(".")}
    except (HdfsError, OSError):
        return
    for name in heapq.nlargest(_LOOKED_AT, folders, key=lambda name: folders[name].modified_s):
        try:
            yield Artifact.at(beside / name).recorded()
        except (HdfsError, OSError, ValueError):
            # Incomplete, or removed meanwhile.
            continue


def _comparable(manifest: Mapping[str, Any], document: Mapping[str, Any]) -> bool:
    kinds = [entry.get("parameters", {}).get("class_path") for entry in (manifest, document)]
    return bool(kinds[0] == kinds[1])


def _differences(manifest: Mapping[str, Any], document: Mapping[str, Any]) -> Iterator[str]:
    yield from parameter_changes(manifest.get("parameters", {}), document["parameters"])
    old, new = manifest.get("code"), document["code"]
    if isinstance(old, Mapping) and old != new:
        for name in sorted(old.keys() | new.keys()):
            if old.get(name) != new.get(name):
                advice = ""
                if name in old and name in new:
                    advice = f' (same results? then add to it: SAME_RESULTS = {{"{new[name]}": "{old[name]}"}})'
                yield f"code of {name} changed{advice}"
    if manifest.get("inputs") != [entry["identity"] for entry in document["inputs"]]:
        yield "other inputs"


def flat_parameters(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each parameter by name: `split.seed` for a nested one; a model's own (`kwargs`) have no prefix."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flat_parameters(value, "" if name == "kwargs" else f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _minute(at: datetime.datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)


def read_manifest(address: str, hdfs: Mapping[str, str | None] | None) -> dict[str, Any]:
    """The manifest of the artifact at `address`; empty if it is incomplete or cannot be read."""
    try:
        return Artifact(address, hdfs).manifest()
    except (ArtifactError, HdfsError, OSError, ValueError):
        return {}
