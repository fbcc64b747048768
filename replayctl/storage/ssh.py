"""The system's ssh program with the user's own configuration, and one connection for a whole command.

It never prompts: it has no terminal, authenticates with keys and agents only, and accepts only known host keys.
"""

from __future__ import annotations

import contextlib
import shlex
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from replayctl import process
from replayctl.errors import NotFound, ReplayctlError, SettingsError, TimedOut
from replayctl.storage.shell import (
    GREETING,
    REMOTE_COMMAND,
    SILENCE_S,
    answer_of,
    quiet_environment,
    script_text,
    stream_of,
)
from replayctl.storage.ssh_config import SshAddress, config_files
from replayctl.storage.ssh_troubles import Attempt, last_lines, trouble_of

_CONNECTION_LOST = 255
_MOST_PRINTED = 4096
# The first value of an option wins, so these hold for the host and for every jump host.
_OPTIONS = """\
Match all
BatchMode yes
StrictHostKeyChecking yes
ConnectTimeout {connect_timeout_s}
ServerAliveInterval 10
ServerAliveCountMax 3
ForwardAgent no
ForwardX11 no
ClearAllForwardings yes
LogLevel INFO
RequestTTY no
RemoteCommand none
SessionType default
StdinNull no
"""
# After the user's files, so that theirs come first. They cost half the processor time of OpenSSH's own first choice.
_CIPHERS = "Ciphers ^aes128-gcm@openssh.com,aes256-gcm@openssh.com\n"


class SshShell:
    """A shell on another machine. Raises Unreachable, AuthFailed and TimedOut besides the errors of every `Shell`."""

    def __init__(self, address: SshAddress, *, connect_timeout_s: float = 15.0, timeout_s: float = 600.0) -> None:
        self._address = address
        self._connect_timeout_s = connect_timeout_s
        self._timeout_s = timeout_s
        self._folder: Path | None = None

    @property
    def name(self) -> str:
        """The machine, for messages."""
        return str(self._address)

    def run(
        self,
        script: str,
        variables: Mapping[str, str],
        words: Sequence[str] = (),
        data: bytes = b"",
        *,
        timeout_s: float | None = None,
    ) -> bytes:
        """Runs a script, see `Shell`."""
        timeout_s = timeout_s or self._timeout_s
        sent = script_text(script, variables, words, timeout_s) + data
        try:
            done = process.exchange(self._argv, sent, env=quiet_environment(), timeout_s=timeout_s)
        except TimedOut as error:
            raise TimedOut(f"{self.name} did not answer within {timeout_s:g} s") from error
        return self._answer(done)

    def stream(
        self,
        script: str,
        variables: Mapping[str, str],
        words: Sequence[str],
        chunks: Iterable[bytes],
        *,
        silence_s: float = SILENCE_S,
    ) -> bytes:
        """Runs a script on a stream of data, see `Shell`."""
        sent = stream_of(script, variables, words, chunks)
        try:
            done = process.feed(self._argv, sent, env=quiet_environment(), silence_s=silence_s)
        except TimedOut as error:
            raise TimedOut(f"{self.name} did not read or write anything for {silence_s:g} s") from error
        return self._answer(done)

    def close(self) -> None:
        """Closes the shared connection."""
        if self._folder is None:
            return
        # Only if it was determined before: what failed once would fail again.
        sharing = self.__dict__.get("_sharing")
        if sharing:
            with contextlib.suppress(ReplayctlError):
                process.exchange([*self._ssh, *sharing, "-O", "exit", self._address.host], b"", timeout_s=5.0)
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder = None
        for name in ("_ssh", "_sharing", "_resolved"):
            self.__dict__.pop(name, None)

    @property
    def _argv(self) -> list[str]:
        return [*self._ssh, *self._sharing, *self._address.words, REMOTE_COMMAND]

    def _answer(self, done: process.Exchanged) -> bytes:
        if GREETING not in done.stdout or done.returncode == _CONNECTION_LOST:
            raise self._no_connection(done)
        return answer_of(done, self.name)

    @cached_property
    def _ssh(self) -> list[str]:
        """The program with a configuration that starts with our options and includes the user's."""
        program = shutil.which("ssh")
        if program is None:
            raise NotFound(
                "the program ssh is not installed",
                hint="install OpenSSH's client, or let replayctl do without: REPLAYCTL_SSH_CLIENT=fabric",
            )
        included = "".join(f'Include "{path}"\n' for path in config_files(self._address.config))
        # Short, because the path of a socket is limited to some 100 characters.
        self._folder = Path(tempfile.mkdtemp(prefix="rctl-"))
        path = self._folder / "config"
        path.write_text(_OPTIONS.format(connect_timeout_s=max(1, int(self._connect_timeout_s))) + included + _CIPHERS)
        return [program, "-F", str(path)]

    @cached_property
    def _sharing(self) -> list[str]:
        """Options that share the first script's connection with later ones; the user's ControlPath takes precedence."""
        if self._resolved.get("controlpath", "none") != "none":
            return []
        assert self._folder is not None
        # If we are killed, it outlives us by some seconds at most.
        persist = ("-o", "ControlMaster=auto", "-o", "ControlPersist=20")
        return ["-o", f"ControlPath={self._folder / 's'}", *persist]

    @cached_property
    def _resolved(self) -> Mapping[str, str]:
        """The configuration of this host, as `ssh -G` prints it."""
        done = process.exchange([*self._ssh, "-G", *self._address.words], b"", timeout_s=10.0)
        if done.returncode != 0:
            raise SettingsError(f"ssh cannot read its configuration for {self.name}", details=done.stderr.strip())
        lines = (line.partition(" ") for line in done.stdout.decode("utf-8", "replace").splitlines())
        return {key: value for key, _, value in lines}

    def _no_connection(self, done: process.Exchanged) -> ReplayctlError:
        messages = done.stderr.strip()
        is_begun = GREETING in done.stdout
        if self._is_behind_another and not is_begun:
            # ssh hides the messages of jump hosts while it shares its connection: try again without sharing.
            again = process.exchange([*self._ssh, *self._address.words, "exit"], b"", timeout_s=self._timeout_s)
            messages = again.stderr.strip() or messages
        own = ["-F", str(self._address.config)] if self._address.config else []
        return trouble_of(
            Attempt(
                machine=self.name,
                by_hand=shlex.join(["ssh", *own, *self._address.words]),
                resolved=self._resolved,
                returncode=done.returncode,
                messages=messages,
                printed="" if is_begun else last_lines(done.stdout[-_MOST_PRINTED:].decode("utf-8", "replace")),
                is_begun=is_begun,
            )
        )

    @property
    def _is_behind_another(self) -> bool:
        return any(self._resolved.get(key, "none") != "none" for key in ("proxyjump", "proxycommand"))
