"""The inputs of a step that are incomplete, and what to do about each.

Standard library only, because the Airflow worker imports it before anything is computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .artifacts import Artifact
from .reuse import parameter_changes, read_manifest

if TYPE_CHECKING:
    from .run_notes import RunNotes


def missing_inputs(document: Mapping[str, Any], task_id: str, identities: Mapping[str, str], notes: RunNotes) -> str:
    """The incomplete inputs of a step, and what to clear or to run for each; empty if there are none.

    `identities` are those that the release of this task gives to all steps of the DAG, `notes` those of the run.
    """
    hdfs = document["hdfs"]
    missing = [entry for entry in document["inputs"] if not Artifact(entry["path"], hdfs).is_whole()]
    if not missing:
        return ""
    moved = [
        name
        for name, identity in identities.items()
        if name != task_id and (note := notes.of(name)) and note["identity"] != identity
    ]
    lines = [_missing(entry, hdfs, identities, notes) for entry in missing]
    if moved:
        lines.append(
            f"clear {', '.join(moved)} too: {document['package']} has been used since, and has to compute them again"
        )
    return "; ".join(lines)


def _missing(
    entry: Mapping[str, Any], hdfs: Mapping[str, str | None] | None, identities: Mapping[str, str], notes: RunNotes
) -> str:
    step, note = entry["step"], notes.of(entry["step"])
    if step not in identities:
        return f"input {step} ({entry['path']}) is incomplete: run the DAG that computes it"
    if note is None or note["identity"] == entry["identity"]:
        return f"input {step} ({entry['path']}) is incomplete: clear task {step}"
    changes = parameter_changes(read_manifest(note["artifact"], hdfs).get("parameters", {}), entry["parameters"])
    return (
        f"input {step} has changed from {note['identity']}, computed by {note['release']}, to {entry['identity']} "
        f"({', '.join(changes) or 'its code or its own inputs have changed'})"
    )
