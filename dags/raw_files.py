"""The files of raw data, and whether they are still those that a split was computed from.

Standard library only, because the Airflow worker imports it before anything is computed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .artifacts import Artifact

# In the artifact of a step that reads raw data.
RAW_FILES = "raw_files.json"
_MAX_RECORD_BYTES = 64 << 20
_CHUNK_BYTES = 1 << 20


def raw_files(path: Path) -> list[Path]:
    """The files of raw data at `path`, a file or a folder, in order; without hidden ones. Empty if there are none."""
    if not path.is_dir():
        return [path] if path.exists() else []
    return sorted(file for file in path.rglob("*") if file.is_file() and not _is_hidden(file.relative_to(path)))


def _is_hidden(path: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.parts)


def raw_state(path: Path) -> dict[str, dict[str, int]]:
    """Size and time of change (`bytes`, `modified_ns`) of each raw file, by its path below `path`."""
    state = {}
    for file in raw_files(path):
        status = file.stat()
        state[_name(file, path)] = {"bytes": status.st_size, "modified_ns": status.st_mtime_ns}
    return state


def raw_record(path: Path, state: Mapping[str, Mapping[str, int]]) -> bytes:
    """The record of raw files for `changed_data`: their `raw_state`, and the sha256 of each."""
    files = {_name(file, path): file for file in raw_files(path)}
    record = {name: {**entry, "sha256": _sha256(files[name])} for name, entry in state.items() if name in files}
    return json.dumps(record, indent=1, sort_keys=True).encode()


def changed_data(artifact: Artifact, document: Mapping[str, Any]) -> str:
    """How the raw files differ from those that a complete artifact was computed from; empty if they do not.

    Their rows may be the same: then the step has the same result. Also empty if the step reads no raw data, or none are
    where this process looks for them, since results outlive their data. A file is read only if its time of change is
    another one, and its size is not.
    """
    log_path = document["parameters"].get("log_path")
    if not log_path or RAW_FILES not in artifact.folder.entries():
        return ""
    path = Path(document["data_root"]) / log_path
    try:
        state = raw_state(path)
    except OSError:
        # A folder into which only those who compute the step may look.
        state = {}
    if not state:
        return ""
    try:
        recorded = dict(json.loads(artifact.read(RAW_FILES, _MAX_RECORD_BYTES)))
        changes = [_change(path / name, recorded.get(name), state.get(name)) for name in sorted({*recorded, *state})]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        # Computed again, the step finds out whether the rows are the same.
        return f"{RAW_FILES} of {artifact} cannot be read and compared ({error})"
    changes = [change for change in changes if change]
    if not changes:
        return ""
    return f"{changes[0]}{f', and {len(changes) - 1} more' if len(changes) > 1 else ''}"


def _change(file: Path, before: Mapping[str, Any] | None, now: Mapping[str, int] | None) -> str:
    if before is None or now is None:
        return f"{file} is {'new' if before is None else 'gone'}"
    if before["bytes"] != now["bytes"]:
        return f"{file} had {before['bytes']} bytes and has {now['bytes']}"
    if before["modified_ns"] == now["modified_ns"] or before["sha256"] == _sha256(file):
        return ""
    return f"{file} has other content"


def _name(file: Path, path: Path) -> str:
    return file.relative_to(path).as_posix()


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
