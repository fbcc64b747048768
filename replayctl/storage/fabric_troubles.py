"""The errors behind paramiko's exceptions: which of replayctl's they are, and what to do about them."""

from __future__ import annotations

import shlex
import shutil
import socket
from collections.abc import Sequence
from typing import Any

from replayctl.errors import AuthFailed, ReplayctlError, Unreachable, in_words
from replayctl.storage.known_hosts import HostKey, Verdict, host_keys, is_listed_as_revoked, verdict_on
from replayctl.storage.ssh_config import HostOptions


class KnownHostsPolicy:
    """Accepts the host keys that are recorded, and no others; paramiko asks it about every key."""

    def __init__(self, options: HostOptions) -> None:
        self._options = options
        self.known = host_keys(options.name_of_key, options.known_hosts)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The types of the recorded keys, by the names that are negotiated."""
        kinds = [key.kind for key in self.known if not key.is_revoked]
        names = [("rsa-sha2-512", "rsa-sha2-256") if kind == "ssh-rsa" else (kind,) for kind in kinds]
        return tuple(dict.fromkeys(name for group in names for name in group))

    def missing_host_key(self, _client: Any, _hostname: str, key: Any) -> None:
        """Raises AuthFailed unless the key is recorded for the host, and not revoked."""
        blob = key.asbytes()
        verdict = verdict_on(blob, self.known)
        if self._options.revoked_keys and is_listed_as_revoked(blob, self._options.revoked_keys):
            verdict = Verdict.REVOKED
        if verdict is Verdict.REVOKED:
            raise AuthFailed(
                f"the host key of {self._options.alias} is revoked: {key.fingerprint}",
                hint="ask its administrator for the new key",
            )
        if verdict is Verdict.CHANGED:
            raise self._changed(key)
        if verdict is Verdict.UNKNOWN:
            raise self._unknown(key)

    def _changed(self, key: Any) -> AuthFailed:
        name = self._options.name_of_key
        old = [known for known in self.known if not known.is_revoked]
        return AuthFailed(
            f"the host key of {name} has changed: someone may be intercepting the connection",
            details="\n".join(
                [f"it presents {key.get_name()} {key.fingerprint}", *(f"recorded in {k.path}:{k.line}" for k in old)]
            ),
            hint=f"ask its administrator; if the key was changed on purpose: {_command_to_forget(name, old)}",
        )

    def _unknown(self, key: Any) -> AuthFailed:
        path = self._options.own_known_hosts
        message = f"the host key of {self._options.alias} is unknown: {key.get_name()} {key.fingerprint}"
        if path is None:
            return AuthFailed(message, hint="set UserKnownHostsFile in the ssh configuration of this host")
        line = shlex.quote(f"{self._options.name_of_key} {key.get_name()} {key.get_base64()}")
        folder = "" if path.parent.is_dir() else f"mkdir -p -m 700 {shlex.quote(str(path.parent))} && "
        command = f"{folder}echo {line} >> {shlex.quote(str(path))}"
        return AuthFailed(message, hint=f"compare the fingerprint with its administrator's, then run: {command}")


def _command_to_forget(name: str, old: Sequence[HostKey]) -> str:
    paths = dict.fromkeys(key.path for key in old)
    if shutil.which("ssh-keygen"):
        return " && ".join(f"ssh-keygen -f {shlex.quote(str(path))} -R {shlex.quote(name)}" for path in paths)
    lines = {path: "".join(f"{key.line}d;" for key in old if key.path == path) for path in paths}
    return " && ".join(f"sed -i.old '{numbers}' {shlex.quote(str(path))}" for path, numbers in lines.items())


def trouble_of(error: Exception, machine: str) -> ReplayctlError:
    """The error that an exception stands for which ended the way to a machine."""
    import paramiko

    if isinstance(error, ReplayctlError):
        return error
    if isinstance(error, paramiko.ChannelException):
        return Unreachable(
            f"{machine} cannot be reached by ssh: its jump host opens no connection to it: {error.text}",
            hint="check HostName and Port of the host in the ssh configuration, as its jump host sees them",
        )
    hint = "check ssh.host, ssh.port and the network; then try again"
    if isinstance(error, paramiko.ssh_exception.NoValidConnectionsError):
        reasons = dict.fromkeys(in_words(reason) for reason in error.errors.values())
        return Unreachable(f"{machine} cannot be reached by ssh: {'; '.join(reasons)}", hint=hint)
    if isinstance(error, socket.gaierror):
        return Unreachable(f"{machine} cannot be reached by ssh: {error.strerror}", hint=hint)
    if isinstance(error, TimeoutError):
        return Unreachable(f"{machine} cannot be reached by ssh: the connection timed out", hint=hint)
    # Before a key or a password was offered, an end of the connection is no denial.
    is_end = isinstance(error, (EOFError, paramiko.AuthenticationException))
    reason = "the connection was closed" if is_end else in_words(error)
    return Unreachable(f"{machine} cannot be reached by ssh: {reason}", hint=hint)
