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
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from replayctl.bundle.release import MANIFEST, METADATA, SUBMIT_SCRIPT, Release, manifest_text, posix_cksum
from replayctl.settings.declared import Settings
from replayctl.settings.folders import find_folders
from replayctl.settings.namespace import Namespace
from replayctl.storage.answers import (
    History,
    LockHolder,
    Record,
    TargetState,
    history_of,
    holder_of,
    records_of,
    state_of,
)
from replayctl.storage.shell import LocalShell, Shell
from replayctl.storage.ssh import SshAddress, SshShell

# Reading takes as long as a slow file system needs; giving the lock back must not hold up a command that is to end.
_LOOK_TIMEOUT_S = 120.0
_UNLOCK_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Modes:
    """Rights of what a deploy writes, as octal text; never writable for others."""

    directories: str = "2775"
    files: str = "664"

    @property
    def for_one_user(self) -> Modes:
        """The same without the group's right to write."""
        directories, files = (int(text, 8) & ~0o022 for text in (self.directories, self.files))
        return Modes(f"{directories:o}", f"{files:o}")


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


class Target:
    """One namespace's part of a DAG folder and of a folder for Spark's files, both in the same shell."""

    def __init__(self, shell: Shell, dags: str, submit: str, owner: str, modes: Modes) -> None:
        self.shell = shell
        self.dags = dags
        self.submit = submit
        self.owner = owner
        # Whoever may deploy to the common namespace writes into its folders; into a personal one only its owner does.
        self._is_common = owner.startswith("_")
        self._shared_modes = modes
        self._modes = modes if self._is_common else modes.for_one_user

    @property
    def name(self) -> str:
        """The DAG folder and its machine, for messages."""
        return f"{self.dags} on {self.shell.name}"

    def inspect(
        self, names: Sequence[str] = (), releases: Sequence[str] = (), *, release: Release | None = None
    ) -> TargetState:
        """What lies there now; files called like one of the stubs `names`, and edits of `releases`, among it.

        A stored `release` is compared with what it is, all others with the checksums that lie beside them.
        """
        words = [*names, "--", *releases, *([release.name] if release else [])]
        return state_of(self._run("inspect", words=words, timeout_s=_LOOK_TIMEOUT_S), release)

    def lock(
        self,
        token: str,
        holder: Mapping[str, object],
        *,
        stolen: str = "",
        names: Sequence[str] = (),
        release: Release | None = None,
        with_history: bool = False,
    ) -> LockHolder | TargetState:
        """Takes the lock and returns what `inspect` does, if asked with the history; or returns who has it.

        `stolen` is the mark of the lock that may be taken away; any other stays. Raises Conflict when it cannot be.
        """
        variables = {
            "token": token,
            "holder": json.dumps({"token": token, **holder}, ensure_ascii=True),
            "stolen": stolen,
            "store_mode": self._shared_modes.directories,
            "dir_mode": self._modes.directories,
            "shared_file_mode": self._shared_modes.files,
        }
        script = "lock+inspect+history" if with_history else "lock+inspect"
        words = [*names, "--", *([release.name] if release else [])]
        records = self._run(script, variables, words, timeout_s=_LOOK_TIMEOUT_S)
        other = holder_of(records, "taken")
        if other is not None:
            return other
        state = state_of(records, release)
        return replace(state, history=history_of(records)) if with_history else state

    def unlock(self, token: str) -> None:
        """Gives the lock back; one that is another's by now stays. Gives up after some seconds."""
        self._run("unlock", {"token": token}, timeout_s=_UNLOCK_TIMEOUT_S)

    def publish(self, token: str, made: Publication) -> None:
        """Does all of a publish in one go, and reads back what a reader then finds. Needs the lock.

        Raises Conflict when the lock was lost, or when something of another's is in the way. After any other error
        either the old or the new release is published, whole; `inspect` tells which.
        """
        data, manifest = _archive(made, self._modes)
        variables = {
            "token": token,
            "release": made.release or "",
            "upload": "1" if made.upload else "0",
            "sum": f"{posix_cksum(manifest)} {len(manifest)}",
            "dir_mode": self._modes.directories,
            "file_mode": self._modes.files,
        }
        self._run("publish", variables, list(made.removed_stubs), data)

    def remove(self, token: str, releases: Sequence[str], audit: str) -> tuple[str, ...]:
        """Removes stored releases from both folders; returns folders that hold files of others and so stay, hidden.

        Needs the lock; OperationFailed for the published release.
        """
        records = self._run("remove", {"token": token, "audit": audit, "file_mode": self._modes.files}, releases)
        return tuple(record.name for record in records if record.kind == "left")

    def history(self) -> History:
        """What was released, from what is stored and from the audit log."""
        return history_of(self._run("history", timeout_s=_LOOK_TIMEOUT_S))

    def _run(
        self,
        script: str,
        variables: Mapping[str, str] | None = None,
        words: Sequence[str] = (),
        data: bytes = b"",
        *,
        timeout_s: float | None = None,
    ) -> list[Record]:
        places = {
            "dags": self.dags,
            "submit": self.submit,
            "owner": self.owner,
            "team": "1" if self._is_common else "0",
            "suffix": "" if self._is_common else f"_{self.owner}",
        }
        answer = self.shell.run(script, places | dict(variables or {}), words, data, timeout_s=timeout_s)
        return records_of(answer, self.shell.name)


@contextlib.contextmanager
def open_target(settings: Settings, namespace: Namespace) -> Iterator[Target]:
    """The namespace's part of the profile's folders: behind ssh where `ssh.host` is set, else on this machine."""
    folders = find_folders(settings)
    shell = shell_of(settings)
    modes = Modes(settings.deploy.directory_mode, settings.deploy.file_mode)
    try:
        yield Target(shell, str(folders.dags), str(folders.spark_submit_files), namespace.directory, modes)
    finally:
        shell.close()


def shell_of(settings: Settings) -> Shell:
    """A shell where the profile's folders are; whoever asks for it closes it."""
    given = settings.ssh
    if given.host is None:
        return LocalShell()
    return SshShell(SshAddress(given.host, given.user, given.port, given.config))


def _archive(made: Publication, modes: Modes) -> tuple[bytes, bytes]:
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
            info.type, info.mode = tarfile.DIRTYPE, int(modes.directories, 8)
            archive.addfile(info)
        for name, content in {"manifest": manifest, **files}.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), int(modes.files, 8)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue(), manifest
