"""Shells in which a target's scripts run: on this machine, or at the other end of ssh (`ssh.py`,
`fabric_shell.py`).

A script is sent on stdin, in front of its data, so that neither its length nor the login shell of the other side
matters, and none of it appears in a list of processes.
"""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from typing import Protocol

from replayctl import process
from replayctl.errors import Conflict, NotFound, OperationFailed, ReplayctlError, UsageProblem

GREETING = b"replayctl-shell 1\n"
# Reads the script line by line, which POSIX shells do without reading ahead, and runs it only when it is complete.
BOOTSTRAP = (
    'n=$(printf "\\n."); n=${n%.}; s=; '
    'while IFS= read -r l; do if test "$l" = "$0"; then eval "$s"; exit; fi; s="$s$l$n"; done; exit 97'
)
END_OF_SCRIPT = "replayctl-end-of-script"
# The login shell there may be any; it reads one line of plain words and single quotes.
REMOTE_COMMAND = f"exec /bin/sh -c '{BOOTSTRAP}' {END_OF_SCRIPT}"
# How long the other side may neither read nor write while data is sent.
SILENCE_S = 120.0
_NO_FOLDER = 66
_IN_THE_WAY = 73
_LOCK_LOST = 75
_HINT = "replayctl-hint: "
# A script that reads a stream ends with it; this bounds one that hangs on a dead mount after its client is gone.
_STREAM_LIMIT_S = 24 * 3600.0


class Shell(Protocol):
    """Runs our scripts where the target's folders are."""

    @property
    def name(self) -> str:
        """The machine, for messages."""

    def run(
        self,
        script: str,
        variables: Mapping[str, str],
        words: Sequence[str] = (),
        data: bytes = b"",
        *,
        timeout_s: float | None = None,
    ) -> bytes:
        """Runs the script of that name (`a+b`: a, then b) and returns its answer, which ends with `whole`.

        Raises NotFound without the DAG folder, Conflict when the lock was lost or a file of another user is in the way,
        OperationFailed when the script fails, TimedOut after `timeout_s`; the script then ends by itself as well.
        """

    def stream(
        self,
        script: str,
        variables: Mapping[str, str],
        words: Sequence[str],
        chunks: Iterable[bytes],
        *,
        silence_s: float = SILENCE_S,
    ) -> bytes:
        """Runs a script like `run`, with data that is streamed and need not fit into memory.

        Raises TimedOut when the other side neither reads nor writes for `silence_s`; the transfer may take hours.
        """

    def close(self) -> None:
        """Closes what is kept open between scripts."""


class LocalShell:
    """The shell of this machine, for folders that it mounts."""

    name = "this machine"

    def __init__(self, timeout_s: float = 600.0) -> None:
        self._timeout_s = timeout_s

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
        done = process.exchange(["/bin/sh", "-c", BOOTSTRAP, END_OF_SCRIPT], sent, timeout_s=timeout_s)
        return answer_of(done, self.name)

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
        done = process.feed(["/bin/sh", "-c", BOOTSTRAP, END_OF_SCRIPT], sent, silence_s=silence_s)
        return answer_of(done, self.name)

    def close(self) -> None:
        """Nothing is kept open."""


def stream_of(
    script: str, variables: Mapping[str, str], words: Sequence[str], chunks: Iterable[bytes]
) -> Iterator[bytes]:
    """The stdin of a script that reads a stream."""
    yield script_text(script, variables, words, _STREAM_LIMIT_S)
    yield from chunks


def script_text(script: str, variables: Mapping[str, str], words: Sequence[str], limit_s: float = 600.0) -> bytes:
    """The stdin of a script: its text with variables and words, and the line that ends it."""
    variables = {**variables, "limit": f"{math.ceil(limit_s)}"}
    if any("\n" in value or "\0" in value for value in (*variables.values(), *words)):
        raise UsageProblem("a name for the shared folder contains a line end; nothing was changed there")
    head = [f"{name}={shlex.quote(value)}" for name, value in variables.items()]
    head.append(f"set -- {shlex.join(words)}")
    body = "".join(_file(f"{part}.sh") for part in ("common", *script.split("+")))
    return f"{body.replace('set -eu', '; '.join(['set -eu', *head]), 1)}\n{END_OF_SCRIPT}\n".encode(
        "utf-8", "surrogateescape"
    )


def answer_of(done: process.Exchanged, machine: str) -> bytes:
    """The answer of a script; raises the error that its exit status stands for."""
    _, greeting, answer = done.stdout.partition(GREETING)
    if done.returncode == 0 and greeting:
        return answer
    raise _failure(done, machine)


def _failure(done: process.Exchanged, machine: str) -> ReplayctlError:
    lines = done.stderr.strip().splitlines()
    hints = [line.removeprefix(_HINT) for line in lines if line.startswith(_HINT)]
    lines = [line for line in lines if not line.startswith(_HINT)]
    message = f"{machine}: {lines[-1] if lines else f'the script ended with status {done.returncode}'}"
    details = "\n".join(lines[-20:]) if len(lines) > 1 else None
    if done.returncode == _NO_FOLDER:
        hint = "run `replayctl settings show` to check folders.dags"
        return NotFound(message, hint=hints[-1] if hints else hint)
    if done.returncode == _IN_THE_WAY:
        return Conflict(message, hint=hints[-1] if hints else "check who writes there, then try again", details=details)
    if done.returncode == _LOCK_LOST:
        hint = hints[-1] if hints else "run `replayctl releases` to see who deployed, then deploy again"
        return Conflict(message, hint=hint, details=details)
    return OperationFailed(message, details=details)


def _file(name: str) -> str:
    return (resources.files("replayctl.storage") / "scripts" / name).read_text(encoding="utf-8")


def quiet_environment() -> dict[str, str]:
    """The caller's environment, without the variables by which ssh would open a prompt on a screen."""
    kept = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "SSH_ASKPASS")}
    return kept | {"SSH_ASKPASS_REQUIRE": "never"}
