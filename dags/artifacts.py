"""Artifacts: folders that are either whole or not there.

A step writes into a temporary sibling, adds `manifest.json` and `_SUCCESS`, then renames. Whole means that both
files are present and that every file which the manifest lists is there in its size, and small ones with their
content. Of two writers the first rename wins and the other discards its own, which is equal by construction. Standard
library only: asked by the Airflow worker before anything starts, and by the step's own process.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
SUCCESS = "_SUCCESS"
_OPEN = ".open"
# Files up to this size are compared by content: reading them costs less than starting what would read them.
_CHECKED_BYTES = 8 << 20
_MAX_MANIFEST_BYTES = 64 << 20
_FILES = "files"
_LEFT_FOR_DEAD_S = 7 * 86400.0


class ArtifactError(Exception):
    """An artifact is missing, half-written or cannot be written; the message names it."""


class Artifact:
    """The artifact of one step, at one path of a file system that this process sees.

    `path` is an absolute path or a `file://` URL. Other schemes raise ArtifactError: nothing here can ask them.
    """

    def __init__(self, path: str) -> None:
        scheme, separator, rest = path.partition("://")
        if separator and scheme != "file":
            raise ArtifactError(f"artifact {path}: {scheme}:// is not supported, only local and mounted folders are")
        self.path = Path(rest if separator else path)
        if not self.path.is_absolute():
            raise ArtifactError(f"artifact {path}: not an absolute path")

    def __str__(self) -> str:
        return str(self.path)

    def is_whole(self) -> bool:
        """Whether the step that makes it may be skipped."""
        return self.what_is_missing() is None

    def what_is_missing(self) -> str | None:
        """Why the artifact is not whole, in a few words; None when it is."""
        if not (self.path / SUCCESS).is_file():
            return f"no {SUCCESS}"
        try:
            files = self._read_manifest()[_FILES]
            listed = {str(name): (int(entry["bytes"]), entry.get("blake2b")) for name, entry in files.items()}
        except FileNotFoundError:
            return f"no {MANIFEST}"
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return f"{MANIFEST} cannot be read"
        for name, (size, digest) in listed.items():
            path = self.path / name
            try:
                if path.stat().st_size != size:
                    return f"{name} has {path.stat().st_size} bytes, written were {size}"
                if digest is not None and _digest(path) != digest:
                    return f"{name} has changed"
            except OSError:
                return f"{name} is missing"
        for path in sorted(self.path.glob("*/*.parquet")):
            if path.relative_to(self.path).as_posix() not in listed:
                return f"{path.relative_to(self.path)} was not written by the step"
        return None

    def manifest(self) -> dict[str, object]:
        """What the writer recorded. Raises ArtifactError when the artifact is not whole."""
        missing = self.what_is_missing()
        if missing:
            raise ArtifactError(f"artifact {self} is incomplete: {missing}")
        manifest = self._read_manifest()
        del manifest[_FILES]
        return manifest

    def _read_manifest(self) -> dict[str, Any]:
        with (self.path / MANIFEST).open("rb") as file:
            text = file.read(_MAX_MANIFEST_BYTES + 1)
        if len(text) > _MAX_MANIFEST_BYTES:
            raise ValueError(f"{MANIFEST} is longer than {_MAX_MANIFEST_BYTES} bytes")
        return dict(json.loads(text))

    def parts(self, name: str) -> list[Path]:
        """The Parquet files of one table, in order; ArtifactError when there is no such table."""
        files = sorted((self.path / name).glob("*.parquet"))
        if not files:
            raise ArtifactError(f"artifact {self} has no table {name}")
        return files

    def begin(self, owner: str) -> Artifact:
        """A fresh temporary sibling to write into; `commit` publishes it.

        What an earlier, dead try of the same `owner` (a task of a run) left behind is removed. Should that try be
        alive after all, it loses its folder and its `commit` is refused. Of others' tries those are removed that have
        written nothing for a week.
        """
        _sweep(self.path.parent)
        key = hashlib.sha256(owner.encode()).hexdigest()[:12]
        for leftover in self.path.parent.glob(f".{self.path.name}.{key}.*"):
            shutil.rmtree(leftover, ignore_errors=True)
        temporary = self.path.with_name(f".{self.path.name}.{key}.{uuid.uuid4().hex}.tmp")
        temporary.mkdir(parents=True)
        (temporary / _OPEN).touch()
        return Artifact(str(temporary))

    def commit(self, temporary: Artifact, manifest: Mapping[str, object], *, replace: bool = False) -> bool:
        """Makes what lies in `temporary` this artifact, at one stroke.

        Returns False when another writer was first; the temporary folder is then removed. With `replace`, and
        where a half-written folder stands in the way, the old one is moved aside first and removed afterwards.
        Raises ArtifactError when the temporary folder was taken away meanwhile (a newer try of the same task).
        """
        try:
            (temporary.path / _OPEN).unlink()
        except FileNotFoundError:
            raise ArtifactError(f"{temporary} was removed by a newer try of the same task: not published") from None
        manifest = {**manifest, _FILES: _listed(temporary.path)}
        _write_synced(temporary.path / MANIFEST, json.dumps(manifest, indent=2, sort_keys=True) + "\n")
        _write_synced(temporary.path / SUCCESS, "")
        aside = None
        if self.path.exists() and (replace or not self.is_whole()):
            # Named like the temporary folder, so that the next try finds it if we are killed before it is removed.
            aside = temporary.path.with_suffix(".old")
            os.rename(self.path, aside)
        try:
            os.rename(temporary.path, self.path)
            return True
        except OSError:
            if not self.is_whole():
                raise
            shutil.rmtree(temporary.path, ignore_errors=True)
            return False
        finally:
            if aside is not None:
                shutil.rmtree(aside, ignore_errors=True)

    def discard(self) -> None:
        """Removes a temporary folder whose writer failed."""
        shutil.rmtree(self.path, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Removes what killed writers have left: temporary folders, and old artifacts moved aside."""
    for leftover in (*folder.glob(".*.tmp"), *folder.glob(".*.old")):
        try:
            entries = [leftover, *leftover.rglob("*")]
            newest = max(entry.lstat().st_mtime for entry in entries)
        except OSError:
            # Renamed or removed meanwhile.
            continue
        if newest < time.time() - _LEFT_FOR_DEAD_S and not leftover.is_symlink():
            shutil.rmtree(leftover, ignore_errors=True)


def _listed(folder: Path) -> dict[str, dict[str, object]]:
    """Every file below `folder` with its size, and with a checksum where that is cheap."""
    listed: dict[str, dict[str, object]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            size = path.stat().st_size
            digest = {"blake2b": _digest(path)} if size <= _CHECKED_BYTES else {}
            listed[path.relative_to(folder).as_posix()] = {"bytes": size, **digest}
    return listed


def _digest(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()


def _write_synced(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
