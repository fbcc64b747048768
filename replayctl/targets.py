"""Where releases are published: what lies there now, and the few writes of a publish, each atomic by itself."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from replayctl.errors import OperationFailed
from replayctl.release import POINTER, STORE, SUBMIT_SCRIPT, Release

IGNORE_FILE = ".airflowignore"


@dataclass(frozen=True, slots=True)
class TargetState:
    """One namespace's part of a target, as it is.

    `pointer` is the published release, `releases` those stored whole, `submitted` those whose zip is in place,
    `stubs` the texts of all DAG files at the top of the DAG folder by name, anybody's.
    """

    pointer: str | None
    releases: frozenset[str]
    submitted: frozenset[str]
    stubs: Mapping[str, str]
    hidden_from_airflow: bool


class Target(Protocol):
    """A DAG folder and a folder for Spark's files, wherever they lie."""

    def inspect(self, owner: str) -> TargetState:
        """What lies there now."""

    def upload(self, release: Release, owner: str) -> None:
        """Stores a release and its zip, each whole or not at all; what is stored already stays untouched."""

    def hide_store(self) -> None:
        """Makes Airflow's search pass over the stored releases."""

    def write_stub(self, name: str, text: str) -> None:
        """Creates or replaces one stub."""

    def remove_stub(self, name: str) -> None:
        """Removes one stub; a missing one is no error."""

    def point_to(self, release: str, owner: str) -> None:
        """Publishes a stored release."""


class FolderTarget:
    """A target on a file system of this machine."""

    def __init__(self, dags: Path, spark_submit_files: Path) -> None:
        self.dags = dags
        self.spark_submit_files = spark_submit_files

    def inspect(self, owner: str) -> TargetState:
        """What lies there now. Raises OperationFailed when the DAG folder does not exist."""
        if not self.dags.is_dir():
            raise OperationFailed(
                f"the DAG folder {self.dags} does not exist",
                hint="for the local profile: replayctl local up; else check folders.dags with: replayctl settings show",
            )
        store = self.dags / STORE / owner
        pointer = store / POINTER
        return TargetState(
            pointer=pointer.read_text(encoding="ascii").strip() if pointer.exists() else None,
            releases=_folders(store),
            submitted=_folders(self.spark_submit_files / owner),
            stubs={
                path.name: path.read_text(encoding="utf-8", errors="replace") for path in self.dags.glob("dag_*.py")
            },
            hidden_from_airflow=STORE in self._ignore_lines(),
        )

    def upload(self, release: Release, owner: str) -> None:
        """Stores a release and its zip; the zip first, since the DAGs name it."""
        submit = {
            SUBMIT_SCRIPT: release.content(SUBMIT_SCRIPT),
            f"{release.name}.zip": release.zip_bytes(),
        }
        _store(self.spark_submit_files / owner / release.name, submit)
        _store(self.dags / STORE / owner / release.name, {file.path: file.content for file in release.files})

    def hide_store(self) -> None:
        """Appends one line to `.airflowignore`, once; all else in that file stays as it is."""
        lines = self._ignore_lines()
        if STORE not in lines:
            _replace(self.dags / IGNORE_FILE, "\n".join([*lines, STORE]) + "\n")

    def write_stub(self, name: str, text: str) -> None:
        """Creates or replaces one stub at one stroke."""
        _replace(self.dags / name, text)

    def remove_stub(self, name: str) -> None:
        """Removes one stub."""
        (self.dags / name).unlink(missing_ok=True)

    def point_to(self, release: str, owner: str) -> None:
        """Renames a new pointer over the old one: the publish of all DAG modules at once."""
        _replace(self.dags / STORE / owner / POINTER, f"{release}\n")

    def _ignore_lines(self) -> list[str]:
        path = self.dags / IGNORE_FILE
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def _folders(parent: Path) -> frozenset[str]:
    if not parent.is_dir():
        return frozenset()
    return frozenset(path.name for path in parent.iterdir() if path.is_dir() and not path.name.startswith("."))


def _store(folder: Path, files: Mapping[str, bytes]) -> None:
    if folder.exists():
        return
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.tmp")
    try:
        for name, content in files.items():
            path = temporary / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        try:
            temporary.rename(folder)
        except OSError:
            # Equal by construction: the name is a hash of the content.
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
