"""The wheels and jars of one namespace beside Spark's files: listing, uploading and pruning them.

A package is stored in a folder named after the start of its sha256 and is never changed there. An interrupted upload is
resumed only if the stored bytes are a prefix of the local file.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from replayctl.errors import OperationFailed
from replayctl.settings.folders import find_folders
from replayctl.settings.workspace import Workspace
from replayctl.storage.answers import Record, records_of
from replayctl.storage.shell import Shell
from replayctl.storage.target import Modes, shell_of

FOLDER = "packages"
_DIGITS = 16
_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class StoredPackage:
    """One stored package: `sha256` is computed from the file itself, None where it was not requested.

    `facts` is what its upload recorded: at, by, host.
    """

    folder: str
    name: str
    size: int
    sha256: str | None = None
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Part:
    """The part of a package that has been uploaded: its size in bytes, and its sha256."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Stored:
    """The content of a store: packages by their folders, and parts by the sha256 of the whole package.

    `partial` has the sha256 of packages with a part, where none was requested.
    """

    packages: Mapping[str, StoredPackage]
    parts: Mapping[str, Part]
    partial: frozenset[str] = frozenset()

    def may_have(self, sha256: str) -> bool:
        """Whether a package or a part of it is stored, verified or not."""
        return folder_of(sha256) in self.packages or sha256 in self.partial or sha256 in self.parts

    def has(self, sha256: str, name: str, size: int) -> bool:
        """Whether the package is stored and undamaged."""
        package = self.packages.get(folder_of(sha256))
        return package is not None and (package.sha256, package.name, package.size) == (sha256, name, size)


def folder_of(sha256: str) -> str:
    """The folder of a package."""
    return f"p_{sha256[:_DIGITS]}"


def facts_of(text: str) -> Mapping[str, str]:
    """The notes of an upload, from their JSON; others may have written them."""
    try:
        notes = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(notes, dict):
        return {}
    return {key: str(notes[key])[:_CHARACTERS] for key in ("at", "by", "host") if key in notes}


class PackageStore:
    """The packages of one namespace, reached through the shell of the profile's folders.

    `submit` and `root` are the folder for Spark as this machine and as the workers see it; `path` and `root` of a store
    are those of its packages.
    """

    def __init__(self, shell: Shell, submit: str, owner: str, modes: Modes, *, root: str) -> None:
        self.shell = shell
        self.path = f"{submit}/{owner}/{FOLDER}"
        self.root = f"{root}/{owner}/{FOLDER}"
        self._submit = submit
        self._owner = owner
        self._is_common = owner.startswith("_")
        self._modes = modes if self._is_common else modes.for_one_user

    @property
    def name(self) -> str:
        """The folder and its machine, for messages."""
        return f"{self.path} on {self.shell.name}"

    def look(self, sha256: Sequence[str] = ()) -> Stored:
        """What is stored; files with one of the given `sha256`, and parts of them, are read to verify it.

        Without `sha256` nothing is read, and the result names the packages that have a part.
        """
        answer = self.shell.stream("packages+packages_look", self._variables({}), sha256, ())
        return _stored(records_of(answer, self.shell.name))

    def send(
        self,
        *,
        sha256: str,
        name: str,
        size: int,
        offset: int,
        chunks: Iterable[bytes],
        facts: Mapping[str, str],
        audit: str,
    ) -> None:
        """Stores a complete package, or leaves the old state; `chunks` are its bytes from `offset` on.

        Raises Conflict when the uploaded part has changed since `look`, or a file of another user is in the way; after
        any other error the uploaded part is kept, and the next upload resumes there.
        """
        variables = {
            "token": secrets.token_hex(8),
            "sha": sha256,
            "name": name,
            "size_sent": str(size),
            "offset": str(offset),
            "facts_text": json.dumps(dict(facts), ensure_ascii=True),
            "audit": audit,
        }
        answer = self.shell.stream("packages+packages_send", self._variables(variables), (), chunks)
        records = records_of(answer, self.shell.name)
        if not any(record.kind == "stored" and record.name == folder_of(sha256) for record in records):
            raise OperationFailed(f"{self.shell.name} did not confirm that {name} was stored")

    def prune(self, folders: Sequence[str], audit: str) -> int:
        """Removes stored packages, and what our interrupted uploads have left for a week; returns how many of these."""
        variables = self._variables({"token": secrets.token_hex(8), "audit": audit})
        records = records_of(self.shell.stream("packages+packages_prune", variables, folders, ()), self.shell.name)
        return sum(record.kind == "leftover" for record in records)

    def _variables(self, more: Mapping[str, str]) -> dict[str, str]:
        # Never changed once it is stored.
        package_mode = f"{int(self._modes.files, 8) & ~0o222:o}"
        return {
            "submit": self._submit,
            "owner": self._owner,
            "team": "1" if self._is_common else "0",
            "dir_mode": self._modes.directories,
            "file_mode": self._modes.files,
            "package_mode": package_mode,
            **more,
        }


@contextlib.contextmanager
def open_packages(workspace: Workspace) -> Iterator[PackageStore]:
    """The namespace's packages in the profile's folder for Spark."""
    settings = workspace.settings
    folders = find_folders(settings)
    modes = Modes(settings.deploy.directory_mode, settings.deploy.file_mode)
    shell = shell_of(settings, workspace.reporter)
    try:
        root = str(folders.spark_submit_files_in_pods)
        yield PackageStore(shell, str(folders.spark_submit_files), workspace.namespace.directory, modes, root=root)
    finally:
        shell.close()


def _stored(records: Sequence[Record]) -> Stored:
    packages: dict[str, StoredPackage] = {}
    sums: dict[str, str] = {}
    parts: dict[str, Part] = {}
    notes: dict[str, Mapping[str, str]] = {}
    partial: set[str] = set()
    for record in records:
        words = record.name.split()
        if record.kind == "file" and len(words) == 3:
            packages[words[0]] = StoredPackage(words[0], words[2], _count(words[1]))
        elif record.kind == "package":
            notes[record.name] = facts_of(record.text)
        elif record.kind == "sum" and len(words) == 2:
            sums[words[0]] = words[1]
        elif record.kind == "part" and len(words) == 3:
            parts[words[0]] = Part(_count(words[1]), words[2])
        elif record.kind == "partial" and len(words) == 1:
            partial.add(words[0])
    described = {
        name: StoredPackage(name, package.name, package.size, sums.get(name), notes.get(name, {}))
        for name, package in packages.items()
    }
    return Stored(described, parts, frozenset(partial))


def _count(text: str) -> int:
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else 0
