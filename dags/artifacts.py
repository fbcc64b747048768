"""Artifacts: folders that are either whole or not there.

A step writes into a temporary sibling, adds `manifest.json` and `_SUCCESS`, then renames. Whole means that both
files are present. Of two writers the first rename wins and the other discards its own, which is equal by
construction. Standard library only: asked by the Airflow worker before any JVM starts, and by the Spark driver.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path

MANIFEST = "manifest.json"
SUCCESS = "_SUCCESS"
_OPEN = ".open"


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
        return (self.path / SUCCESS).is_file() and (self.path / MANIFEST).is_file()

    def manifest(self) -> dict[str, object]:
        """What the writer recorded. Raises ArtifactError when the artifact is not whole."""
        if not self.is_whole():
            raise ArtifactError(f"artifact {self} is missing or not whole")
        return dict(json.loads((self.path / MANIFEST).read_text(encoding="utf-8")))

    def table(self, name: str) -> str:
        """Path of one Parquet table inside, for Spark: local paths need the scheme where HDFS is the default."""
        return f"file://{self.path}/{name}"

    def begin(self, owner: str) -> Artifact:
        """A fresh temporary sibling to write into; `commit` publishes it.

        What an earlier, dead try of the same `owner` (a task of a run) left behind is removed. Should that try be
        alive after all, it loses its folder and its `commit` is refused.
        """
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


def _write_synced(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
