"""The two shared folders of a profile: what lies there now, and the few changes of a deploy, each atomic by itself.

The changes are scripts (`scripts/*.sh`) that run where the folders are, so that a folder here and one behind ssh behave
the same. Only `publish` makes a release visible, by renaming one pointer file.
"""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from replayctl.bundle.release import MANIFEST, METADATA, SUBMIT_SCRIPT, Release, manifest_text, posix_cksum
from replayctl.errors import OperationFailed
from replayctl.settings.declared import Settings
from replayctl.settings.folders import find_folders
from replayctl.settings.namespace import Namespace
from replayctl.storage.shell import LocalShell, Shell
from replayctl.storage.ssh import SshAddress, SshShell


@dataclass(frozen=True, slots=True)
class Modes:
    """Rights of what a deploy writes, as octal text; never writable for others."""

    directories: str = "2775"
    files: str = "664"


@dataclass(frozen=True, slots=True)
class LockHolder:
    """Who holds a namespace's lock. `words` is the text of the lock, `age_s` by the target's own clock."""

    words: str
    age_s: float | None
    who: Mapping[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        if not self.who:
            return "somebody who left no name"
        age = f", for {self.age_s:.0f} s" if self.age_s is not None else ""
        return f"{self.who.get('user')} on {self.who.get('host')} (process {self.who.get('pid')}{age})"


@dataclass(frozen=True, slots=True)
class TargetState:
    """One namespace's part of a target, as it is.

    `pointer` is the published release; `releases` and `submitted` are those stored in the two folders; `stubs` are the
    texts of my stubs and of all files at the names that were asked for; `foreign` are other DAG files; `edited` says of
    a stored release which of its files were changed, added or removed there.
    """

    pointer: str | None = None
    releases: frozenset[str] = frozenset()
    submitted: frozenset[str] = frozenset()
    stubs: Mapping[str, str] = field(default_factory=dict)
    foreign: tuple[str, ...] = ()
    edited: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    lock: LockHolder | None = None


@dataclass(frozen=True, slots=True)
class Publication:
    """One publish: the release to point to (None: none any more), stubs to write before it and to remove after it.

    `upload` brings the release's own files along, `metadata` is then stored with it; `audit` is one line for the log.
    """

    release: str | None
    audit: str
    upload: Release | None = None
    metadata: str = ""
    stubs: Mapping[str, str] = field(default_factory=dict)
    removed_stubs: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class History:
    """What was released into a namespace: each stored release with its metadata, and the audit lines, oldest first."""

    pointer: str | None
    releases: Mapping[str, Mapping[str, object]]
    audit: tuple[Mapping[str, object], ...]
    clock_s: int


class Target:
    """One namespace's part of a DAG folder and of a folder for Spark's files, both in the same shell."""

    def __init__(self, shell: Shell, dags: str, submit: str, owner: str, modes: Modes) -> None:
        self.shell = shell
        self.dags = dags
        self.submit = submit
        self.owner = owner
        self._modes = modes

    @property
    def name(self) -> str:
        """The DAG folder and its machine, for messages."""
        return f"{self.dags} on {self.shell.name}"

    def inspect(self, names: Sequence[str] = (), releases: Sequence[str] = ()) -> TargetState:
        """What lies there now; files called like one of the stubs `names`, and edits of `releases`, among it."""
        answer = self.shell.run("inspect", self._places, [*names, "--", *releases])
        return _state(_records(answer, self.shell.name))

    def lock(
        self,
        token: str,
        holder: Mapping[str, object],
        *,
        stolen: str = "",
        names: Sequence[str] = (),
        releases: Sequence[str] = (),
    ) -> LockHolder | TargetState:
        """Takes the lock and returns what `inspect` does; or returns who has it.

        `stolen` are the words of the holder whose lock may be taken away; a lock with other words stays.
        """
        words = json.dumps({"token": token, **holder}, ensure_ascii=True)
        variables = self._places | {"token": token, "holder": words, "stolen": stolen, "dir_mode": self._directory_mode}
        records = _records(self.shell.run("lock+inspect", variables, [*names, "--", *releases]), self.shell.name)
        clock = next((int(record.name) for record in records if record.kind == "clock"), 0)
        taken = next((record for record in records if record.kind == "taken"), None)
        return _state(records) if taken is None else _holder(taken.text, clock)

    def unlock(self, token: str) -> None:
        """Gives the lock back; one that is another's by now stays."""
        self.shell.run("unlock", self._places | {"token": token})

    def publish(self, token: str, made: Publication) -> None:
        """Does all of a publish in one go. Needs the lock.

        Raises Conflict when the lock was lost. After any other error either the old or the new release is published,
        whole; `inspect` tells which.
        """
        data, manifest = _archive(made)
        variables = self._places | {
            "token": token,
            "release": made.release or "",
            "upload": "1" if made.upload else "0",
            "sum": f"{posix_cksum(manifest)} {len(manifest)}",
            "dir_mode": self._directory_mode,
            "file_mode": self._modes.files,
        }
        _records(self.shell.run("publish", variables, list(made.removed_stubs), data), self.shell.name)

    def remove(self, token: str, releases: Sequence[str], audit: str) -> tuple[str, ...]:
        """Removes stored releases from both folders; returns folders that hold files of others and so stay, hidden.

        Needs the lock; OperationFailed for the published release.
        """
        variables = self._places | {"token": token, "audit": audit, "file_mode": self._modes.files}
        records = _records(self.shell.run("remove", variables, releases), self.shell.name)
        return tuple(record.name for record in records if record.kind == "left")

    def history(self) -> History:
        """What was released, from what is stored and from the audit log."""
        records = _records(self.shell.run("history", self._places), self.shell.name)
        audit = [line for record in records if record.kind == "audit" for line in record.text.splitlines()]
        return History(
            pointer=next((record.text.strip() for record in records if record.kind == "pointer"), None),
            releases={record.name: _json(record.text) for record in records if record.kind == "release"},
            audit=tuple(_json(line) for line in audit if line),
            clock_s=next((int(record.name) for record in records if record.kind == "clock"), 0),
        )

    @property
    def _places(self) -> dict[str, str]:
        return {"dags": self.dags, "submit": self.submit, "owner": self.owner}

    @property
    def _directory_mode(self) -> str:
        return self._modes.directories


@contextlib.contextmanager
def open_target(settings: Settings, namespace: Namespace) -> Iterator[Target]:
    """The namespace's part of the profile's folders: behind ssh where `ssh.host` is set, else on this machine."""
    folders = find_folders(settings)
    shell: Shell
    given = settings.ssh
    if given.host is None:
        shell = LocalShell()
    else:
        shell = SshShell(SshAddress(given.host, given.user, given.port, given.config))
    modes = Modes(settings.deploy.directory_mode, settings.deploy.file_mode)
    try:
        yield Target(shell, str(folders.dags), str(folders.spark_submit_files), namespace.directory, modes)
    finally:
        shell.close()


@dataclass(frozen=True, slots=True)
class _Record:
    kind: str
    name: str = ""
    text: str = ""


_WITH_TEXT = frozenset(
    {"pointer", "lock", "taken", "stub", "release_manifest", "release_sums", "submit_manifest", "submit_sums", "audit"}
)


def _records(answer: bytes, machine: str) -> list[_Record]:
    """A script's answer in parts: `KIND NAME`, or `KIND NAME SIZE` and as many bytes.

    Raises OperationFailed for an answer that is cut off: everything that was not said would look like not there.
    """
    found: list[_Record] = []
    stream = io.BytesIO(answer)
    for line in stream:
        words = line.decode("utf-8", "replace").split()
        if not words:
            continue
        if len(words) == 3 and (words[0] in _WITH_TEXT or words[0] == "release"):
            size = int(words[2])
            text = stream.read(size)
            if len(text) < size:
                break
            stream.readline()
            # All but the lock's own words end with a full stop that kept their line ends.
            whole = text if words[0] == "taken" else text[:-1]
            found.append(_Record(words[0], words[1], whole.decode("utf-8", "replace")))
        else:
            found.append(_Record(words[0], line.decode("utf-8", "replace").rstrip("\n").partition(" ")[2]))
    if not found or found[-1].kind not in ("whole", "taken"):
        raise OperationFailed(f"{machine}: the answer was cut off")
    return found


def _state(records: Sequence[_Record]) -> TargetState:
    clock = next((int(record.name) for record in records if record.kind == "clock"), 0)
    sums: dict[tuple[str, str], str] = {}
    edited: dict[str, tuple[str, ...]] = {}
    for record in records:
        if record.kind.endswith("_manifest"):
            sums[record.kind.removesuffix("_manifest"), record.name] = record.text
        elif record.kind.endswith("_sums"):
            kind = record.kind.removesuffix("_sums")
            changed = _changed(sums[kind, record.name], record.text)
            if changed:
                edited[record.name] = (*edited.get(record.name, ()), *changed)
    return TargetState(
        pointer=next((record.text.strip() or None for record in records if record.kind == "pointer"), None),
        releases=frozenset(record.name for record in records if record.kind == "release"),
        submitted=frozenset(record.name for record in records if record.kind == "submitted"),
        stubs={record.name: record.text for record in records if record.kind == "stub"},
        foreign=tuple(sorted(record.name for record in records if record.kind == "foreign")),
        edited=edited,
        lock=next((_holder(record.text, clock) for record in records if record.kind == "lock"), None),
    )


def _changed(expected: str, found: str) -> tuple[str, ...]:
    """Files whose checksum lines differ between two outputs of cksum, by name."""
    want = {line.split(" ", 2)[2]: line for line in expected.splitlines()}
    have = {line.split(" ", 2)[2]: line for line in found.splitlines() if line.count(" ") >= 2}
    names = sorted(name for name in want.keys() | have.keys() if want.get(name) != have.get(name))
    return tuple(name.removeprefix("./") for name in names)


def _holder(text: str, clock: int) -> LockHolder:
    words = text.rstrip("\n")
    document, _, since = words.rpartition(" ")
    age = float(max(0, clock - int(since))) if since.isdigit() else None
    return LockHolder(words, age, _json(document))


def _json(text: str) -> Mapping[str, object]:
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        # Written by hand, or by a later version of ours.
        return {}
    return found if isinstance(found, dict) else {}


def _archive(made: Publication) -> tuple[bytes, bytes]:
    """The tar of a publication, and the manifest of all its files, which is its first member."""
    files = {f"stubs/{name}": text.encode() for name, text in made.stubs.items()}
    files["audit"] = f"{made.audit}\n".encode()
    if made.release:
        files["current"] = f"{made.release}\n".encode()
    if made.upload:
        stored = {file.path: file.content for file in made.upload.files} | {METADATA: made.metadata.encode()}
        sent = {
            SUBMIT_SCRIPT: made.upload.content(SUBMIT_SCRIPT),
            f"{made.upload.name}.zip": made.upload.zip_bytes(),
        }
        for folder, contents in (("release", stored), ("submit", sent)):
            contents[MANIFEST] = manifest_text(contents)
            files |= {f"{folder}/{name}": content for name, content in contents.items()}
    manifest = manifest_text(files)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for folder in sorted({str(parent) for name in files for parent in PurePosixPath(name).parents} - {"."}):
            info = tarfile.TarInfo(folder)
            info.type, info.mode = tarfile.DIRTYPE, 0o775
            archive.addfile(info)
        for name, content in {"manifest": manifest, **files}.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o664
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue(), manifest
