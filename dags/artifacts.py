"""Artifacts: folders that are complete or do not exist, on this machine's file systems or on HDFS.

A step writes to a temporary folder beside the artifact's, adds `manifest.json` and `_SUCCESS`, then renames it. An
artifact is complete if both files exist and every file in the manifest is present and unchanged. If two steps write the
same artifact, the first rename wins and the other discards its own, which is equal by construction. Standard library
only, because the Airflow worker imports it before anything starts, and so does the step's own process.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import re
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from .storage import Entry, LocalPath, StoragePath, open_path
from .webhdfs import HdfsError

log = logging.getLogger("replay")

MANIFEST = "manifest.json"
SUCCESS = "_SUCCESS"
_OPEN = ".open"
_MAX_MANIFEST_BYTES = 64 << 20
_FILES = "files"
# On HDFS, each file needs a request.
_AT_ONCE = 8
_ABANDONED_S = 7 * 86400.0
# `.IDENTITY.OWNER.NUMBER`: `.tmp` is the folder of a writer, `.old` an artifact that is about to be replaced.
_UNFINISHED = re.compile(r"(\..+\.[0-9a-f]{12}\.[0-9a-f]{32})\.(?:tmp|old)")


class ArtifactError(Exception):
    """An artifact is missing or incomplete, or cannot be written; the message names it."""


class Artifact:
    """The artifact of one step, at one path.

    `address` is an absolute path, a `file://` or an `hdfs://` URL; `hdfs` has the connection to HDFS (`url`, the
    NameNode's web address, and `user`). Raises ArtifactError for other kinds of addresses. Every method that uses HDFS
    may raise HdfsError: if an artifact cannot be read, it is neither complete nor incomplete.
    """

    def __init__(self, address: str, hdfs: Mapping[str, str | None] | None = None) -> None:
        try:
            self.folder = open_path(address, hdfs)
        except ValueError as error:
            raise ArtifactError(f"artifact {error}") from error

    @classmethod
    def at(cls, folder: StoragePath) -> Artifact:
        """The artifact in a folder."""
        artifact = cls.__new__(cls)
        artifact.folder = folder
        return artifact

    def __str__(self) -> str:
        return str(self.folder)

    @property
    def path(self) -> Path:
        """The folder on this machine. Raises ArtifactError when it is not on a file system of this machine."""
        if not isinstance(self.folder, LocalPath):
            raise ArtifactError(f"artifact {self} is not on a file system of this machine")
        return self.folder.path

    def is_whole(self) -> bool:
        """Whether the artifact is complete, so that its step can be skipped."""
        return self.what_is_missing() is None

    def what_is_missing(self) -> str | None:
        """Why the artifact is incomplete, in a few words; None if it is complete."""
        return self._look()[0]

    def find_manifest(self) -> dict[str, object] | None:
        """The manifest; None if the artifact is incomplete."""
        missing, manifest = self._look()
        return None if missing else manifest

    def _look(self) -> tuple[str | None, dict[str, object]]:
        """What is missing, and the manifest without its files: one pass, as each question to HDFS takes time."""
        tree = {name: entry for name, entry in self.folder.tree().items() if not entry.is_folder}
        if SUCCESS not in tree:
            return f"no {SUCCESS}", {}
        try:
            manifest = self._read_manifest()
            files = manifest.pop(_FILES)
            listed = {str(name): (int(entry["bytes"]), dict(entry)) for name, entry in files.items()}
        except FileNotFoundError:
            return f"no {MANIFEST}", {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
            # In a shared folder, anyone may have written it.
            return f"{MANIFEST} cannot be read", {}
        for name, (size, evidence) in listed.items():
            if (trouble := self._trouble(name, tree.get(name), size, evidence)) is not None:
                return trouble, manifest
        added = (name for name in tree if name not in listed and name.endswith(".parquet") and name.count("/") == 1)
        return next((f"{name} was not written by the step" for name in added), None), manifest

    def _trouble(self, name: str, entry: Entry | None, size: int, evidence: Mapping[str, object]) -> str | None:
        if entry is None:
            return f"{name} is missing"
        if entry.size != size:
            return f"{name} has {entry.size} bytes, written were {size}"
        try:
            return f"{name} has changed" if (self.folder / name).has_changed(entry, evidence) else None
        except OSError:
            return f"{name} is missing"

    def manifest(self) -> dict[str, object]:
        """The manifest. Raises ArtifactError if the artifact is incomplete."""
        missing, manifest = self._look()
        if missing:
            raise ArtifactError(f"artifact {self} is incomplete: {missing}")
        return manifest

    def recorded(self) -> dict[str, object]:
        """The manifest, whether the artifact is complete or not. Raises OSError or ValueError if it cannot be read."""
        manifest = self._read_manifest()
        manifest.pop(_FILES, None)
        return manifest

    def _read_manifest(self) -> dict[str, Any]:
        try:
            return dict(json.loads(self.read(MANIFEST, _MAX_MANIFEST_BYTES)))
        except (TypeError, RecursionError) as error:
            raise ValueError(f"{MANIFEST} is not an object of JSON, or is nested too deeply") from error

    def read(self, name: str, limit: int) -> bytes:
        """The content of one file. Raises FileNotFoundError, or ValueError if it has more than `limit` bytes."""
        with (self.folder / name).open() as file:
            text = file.read(limit + 1)
        if len(text) > limit:
            raise ValueError(f"{name} is longer than {limit} bytes")
        return text

    def parts(self, name: str) -> list[StoragePath]:
        """The Parquet files of one table, in order. Raises ArtifactError if there is no such table."""
        folder = self.folder / name
        files = [folder / file for file in folder.entries() if file.endswith(".parquet")]
        if not files:
            raise ArtifactError(f"artifact {self} has no table {name}")
        return files

    def begin(self, owner: str) -> Artifact:
        """A new temporary folder beside the artifact's to write to; `commit` publishes it.

        Removes the folder of an earlier, dead try of the same `owner` (a task of a run). If that try is still alive, it
        loses its folder, and its `commit` fails.
        """
        beside = self.folder.parent
        key = hashlib.sha256(owner.encode()).hexdigest()[:12]
        for name in beside.entries():
            if name.startswith(f".{self.folder.name}.{key}."):
                (beside / name).delete()
        temporary = beside / f".{self.folder.name}.{key}.{uuid.uuid4().hex}.tmp"
        temporary.make_folder()
        (temporary / _OPEN).write(io.BytesIO())
        return Artifact.at(temporary)

    def add(self, name: str, content: bytes | IO[bytes]) -> None:
        """Writes one file to the temporary folder, or to a folder in it that `make_table` has created."""
        (self.folder / name).write(io.BytesIO(content) if isinstance(content, bytes) else content)

    def make_table(self, name: str) -> StoragePath:
        """Creates the folder of a new table and returns it."""
        folder = self.folder / name
        folder.make_folder()
        return folder

    def commit(self, temporary: Artifact, manifest: Mapping[str, object], *, replace: bool = False) -> bool:
        """Publishes the folder `temporary` as this artifact, atomically.

        Returns False if another writer was first; the temporary folder is then removed. With `replace`, or if an
        incomplete artifact is in the way, the old one is moved aside first and removed afterwards; it is moved back if
        the new one cannot take its place. Raises ArtifactError if the temporary folder was removed meanwhile (by a
        newer try of the same task), or if the old artifact cannot be moved back.
        """
        try:
            _close(temporary)
            files = _listed(temporary.folder)
            text = json.dumps({**manifest, _FILES: files}, indent=2, sort_keys=True) + "\n"
            temporary.add(MANIFEST, text.encode())
            temporary.add(SUCCESS, b"")
        except FileNotFoundError as error:
            raise ArtifactError(
                f"{temporary} was removed by a newer try of the same task, so it is not published"
            ) from error
        # In this order, so that an artifact that another writer publishes in between is not taken for an incomplete
        # one.
        in_the_way = self.folder.exists() and (replace or not self.is_whole())
        aside = self._moved_aside(temporary) if in_the_way else None
        try:
            temporary.folder.rename(self.folder)
            is_first = True
        except FileExistsError as error:
            if (missing := self.what_is_missing()) is not None:
                raise ArtifactError(f"artifact {self} exists and is incomplete: {missing}") from error
            is_first = False
            temporary.discard()
        except BaseException as error:
            if aside is not None:
                self._put_back(aside, error)
            raise
        if aside is not None:
            aside.delete()
        return is_first

    def _moved_aside(self, temporary: Artifact) -> StoragePath | None:
        # Named like the temporary folder, so that the next try finds it if this process is killed before it is removed.
        aside = temporary.folder.parent / f"{temporary.folder.name.removesuffix('.tmp')}.old"
        try:
            self.folder.rename(aside)
        except FileNotFoundError:
            return None
        return aside

    def _put_back(self, aside: StoragePath, error: BaseException) -> None:
        try:
            aside.rename(self.folder)
        except FileExistsError:
            log.warning("%s was published by another writer meanwhile: %s is removed later", self, aside)
        except (HdfsError, OSError) as second:
            raise ArtifactError(
                f"artifact {self} was not replaced ({_words(error)}), and the old one could not be moved back "
                f"({_words(second)}): it stays in {aside} until the next try of this task; the new one is discarded"
            ) from error

    def discard(self) -> None:
        """Removes a temporary folder whose writer failed; what cannot be removed now is left to the next try."""
        try:
            self.folder.delete()
        except HdfsError as error:
            log.warning("%s stays: %s", self, error)


def _close(temporary: Artifact) -> None:
    """Removes the mark of an unfinished folder. Raises FileNotFoundError if the folder was removed meanwhile."""
    mark = temporary.folder / _OPEN
    if not mark.exists():
        raise FileNotFoundError(str(mark))
    mark.delete()


def remove_abandoned(namespace: StoragePath) -> None:
    """Removes unfinished artifacts of a namespace (`DATASET/WORKLOAD` below it) that were not written to for a week.

    If a writer is still alive, it loses its folder, and its `commit` fails.
    """
    for dataset in _folders(namespace):
        for workload in _folders(dataset):
            entries = workload.entries()
            for name in entries:
                if _is_abandoned(workload, name, entries):
                    log.info("removing %s, which a killed try has left", workload / name)
                    # Without the mark, the folder cannot be published any more, so a partly removed folder never
                    # becomes an artifact.
                    (workload / name / _OPEN).delete()
                    (workload / name).delete()


def _folders(folder: StoragePath) -> list[StoragePath]:
    return [folder / name for name, entry in folder.entries().items() if entry.is_folder and not name.startswith(".")]


def _is_abandoned(folder: StoragePath, name: str, entries: Mapping[str, Entry]) -> bool:
    matched = _UNFINISHED.fullmatch(name)
    if matched is None or not entries[name].is_folder:
        return False
    # An old artifact that is about to be replaced is as recent as its replacement.
    names = {name, f"{matched[1]}.tmp"} & entries.keys()
    moments = (
        entry.modified_s for sibling in names for entry in (entries[sibling], *(folder / sibling).tree().values())
    )
    return max(moments) < time.time() - _ABANDONED_S


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _listed(folder: StoragePath) -> dict[str, dict[str, object]]:
    """Every file below `folder`, with its size and the evidence that it has not changed."""
    files = {name: entry for name, entry in folder.tree().items() if not entry.is_folder}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        evidence = pool.map(lambda name: (folder / name).evidence(files[name]), files)
        return {name: {"bytes": files[name].size, **row} for name, row in zip(files, evidence, strict=True)}
