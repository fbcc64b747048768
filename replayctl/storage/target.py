"""The two shared folders of a profile: their present state, and the few changes of a deploy, each atomic by itself.

The changes are scripts (`scripts/*.sh`) that run where the folders are, so that a local folder and one over ssh behave
alike. Only `publish` makes a release visible, by renaming one pointer file.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from replayctl.bundle.release import MANIFEST, METADATA, SUBMIT_SCRIPT, Release, manifest_text, posix_cksum
from replayctl.console.events import Reporter
from replayctl.errors import NotReady
from replayctl.settings.declared import Settings
from replayctl.settings.folders import find_folders
from replayctl.settings.load import LOCAL_PROFILE
from replayctl.settings.workspace import Workspace
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
from replayctl.storage.ssh import SshShell
from replayctl.storage.ssh_config import SshAddress

# Reading may take as long as a slow file system needs; releasing the lock must not delay the end of a command.
_LOOK_TIMEOUT_S = 120.0
_UNLOCK_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Modes:
    """Permissions of what a deploy writes, in octal; never writable for others."""

    directories: str = "2775"
    files: str = "664"

    @property
    def for_one_user(self) -> Modes:
        """The same without write permission for the group."""
        directories, files = (int(text, 8) & ~0o022 for text in (self.directories, self.files))
        return Modes(f"{directories:o}", f"{files:o}")


@dataclass(frozen=True, slots=True)
class Publication:
    """One publish: the release to point to (None withdraws), stubs to write before it and to remove after it.

    With `upload` the release's files are sent too, and `metadata` is stored with them; `audit` is one line of the log.
    """

    release: str | None
    audit: str
    upload: Release | None = None
    metadata: str = ""
    stubs: Mapping[str, str] = field(default_factory=dict)
    removed_stubs: Sequence[str] = ()


class Target:
    """One namespace's part of a DAG folder and of a folder for Spark's files, both reached through one shell."""

    def __init__(self, shell: Shell, dags: str, submit: str, owner: str, modes: Modes) -> None:
        self.shell = shell
        self.dags = dags
        self.submit = submit
        self.owner = owner
        # Everyone who may deploy to the common namespace writes to its folders; a personal one is its owner's alone.
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
        """The present state, with files that have one of the stubs' `names`, and edits of `releases`.

        A stored `release` is compared with its own files, all others with the checksums that are stored beside them.
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
        """Acquires the lock and returns the state, on request with the history; or returns the present holder.

        `stolen` is the mark of the only lock that may be broken. Raises Conflict when it cannot be.
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
        """Releases the lock, unless another process holds it by now. Times out after some seconds."""
        self._run("unlock", {"token": token}, timeout_s=_UNLOCK_TIMEOUT_S)

    def publish(self, token: str, publication: Publication) -> None:
        """Publishes in one step, and reads back the result as a reader sees it. Needs the lock.

        Raises Conflict when the lock was lost, or a file of another user is in the way. After any other error either
        the old or the new release is published completely; `inspect` shows which.
        """
        data, manifest = _archive(publication, self._modes)
        variables = {
            "token": token,
            "release": publication.release or "",
            "upload": "1" if publication.upload else "0",
            "sum": f"{posix_cksum(manifest)} {len(manifest)}",
            "dir_mode": self._modes.directories,
            "file_mode": self._modes.files,
        }
        self._run("publish", variables, list(publication.removed_stubs), data)

    def remove(self, token: str, releases: Sequence[str], audit: str) -> tuple[str, ...]:
        """Removes stored releases from both folders; returns hidden folders that remain because of others' files.

        Needs the lock; OperationFailed for the published release.
        """
        records = self._run("remove", {"token": token, "audit": audit, "file_mode": self._modes.files}, releases)
        return tuple(record.name for record in records if record.kind == "left")

    def history(self) -> History:
        """The history, from the stored releases and the audit log."""
        return history_of(self._run("history", timeout_s=_LOOK_TIMEOUT_S))

    def deployments(self, *, everyone: bool) -> list[Record]:
        """The `deployment` of every stored release, named `namespace/release`, and which are `published`.

        With `everyone` of all namespaces; those that cannot be read are `unread`.
        """
        variables = {"everyone": "1" if everyone else "0"}
        return self._run("packages_used", variables, timeout_s=_LOOK_TIMEOUT_S)

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
def open_target(workspace: Workspace) -> Iterator[Target]:
    """The namespace's part of the profile's folders: over ssh where `ssh.host` is set, else on this machine."""
    settings = workspace.settings
    folders = find_folders(settings)
    shell = shell_of(settings, workspace.reporter)
    modes = Modes(settings.deploy.directory_mode, settings.deploy.file_mode)
    directory = workspace.namespace.directory
    try:
        yield Target(shell, str(folders.dags), str(folders.spark_submit_files), directory, modes)
    finally:
        shell.close()


def shell_of(settings: Settings, reporter: Reporter) -> Shell:
    """A shell on the machine of the profile's folders; the caller closes it.

    `reporter` asks for passwords and passphrases, which only fabric can use. Raises NotReady in the local profile
    before the first `local up`, which creates the folders.
    """
    ssh = settings.ssh
    if ssh.host is None:
        if settings.profile == LOCAL_PROFILE and settings.folders.dags is None and not settings.local.home.is_dir():
            raise NotReady("the local stack is not running", hint="run `replayctl local up`")
        return LocalShell()
    address = SshAddress(ssh.host, ssh.user, ssh.port, ssh.config)
    client = ssh.client
    if client == "auto":
        client = "openssh" if shutil.which("ssh") else "fabric"
    if client == "openssh":
        return SshShell(address)
    # Imported here because few profiles use it.
    from replayctl.storage.fabric_shell import FabricShell

    return FabricShell(address, ask=reporter.ask)


def _archive(publication: Publication, modes: Modes) -> tuple[bytes, bytes]:
    """The tar of a publication, and the manifest of all its files, which is the first member."""
    files = {f"stubs/{name}": text.encode() for name, text in publication.stubs.items()}
    files["audit"] = f"{publication.audit}\n".encode()
    if publication.release:
        files["current"] = f"{publication.release}\n".encode()
    if publication.upload:
        stored = {file.path: file.content for file in publication.upload.files} | {
            METADATA: publication.metadata.encode()
        }
        sent = {
            SUBMIT_SCRIPT: publication.upload.content(SUBMIT_SCRIPT),
            f"{publication.upload.name}.zip": publication.upload.zip_bytes(),
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
