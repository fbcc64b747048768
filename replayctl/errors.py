"""The errors that end a command, each with a stable code for scripts, an exit code and, where there is one, a hint."""

from __future__ import annotations

import os
import re


class ReplayctlError(Exception):
    """What happened, on which thing. `hint` is the next thing to type, `details` the original output of the other side.

    `data` is what a script needs in spite of the error, such as the id of a run that continues.
    """

    code = "failed"
    exit_code = 1

    def __init__(
        self, message: str, *, hint: str | None = None, details: str | None = None, data: object = None
    ) -> None:
        super().__init__(message)
        self.hint = hint
        self.details = details
        self.data = data


class OperationFailed(ReplayctlError):
    """The other side was reached and refused or failed."""


class ServerTrouble(OperationFailed):
    """The server failed, and a retry may succeed (HTTP 429 and 5xx)."""


class UsageProblem(ReplayctlError):
    """Options contradict each other or have invalid values."""

    code = "usage"
    exit_code = 2


class SettingsError(ReplayctlError):
    """A setting is missing, unknown or malformed; the message names the key and its source."""

    code = "settings"
    exit_code = 3


class Unreachable(ReplayctlError):
    """A service does not answer."""

    code = "unreachable"
    exit_code = 4


class AuthFailed(ReplayctlError):
    """A service rejects the credentials or does not permit the operation."""

    code = "auth"
    exit_code = 4


class RemoteCommandFailed(ReplayctlError):
    """A program failed; `details` holds its last lines."""

    code = "remote-command"
    exit_code = 5


class NotFound(ReplayctlError):
    """A DAG, file, pod or program does not exist."""

    code = "not-found"
    exit_code = 6


class NotReady(ReplayctlError):
    """It exists but is not ready yet."""

    code = "not-ready"
    exit_code = 6


class Conflict(ReplayctlError):
    """Another user or process holds it; the message names which."""

    code = "conflict"
    exit_code = 7


class PortTaken(Conflict):
    """Another process listens on the port."""


class TimedOut(ReplayctlError):
    """It did not finish in time; the message says how long the wait was."""

    code = "timeout"
    exit_code = 8


class Interrupted(ReplayctlError):
    """The user stopped waiting while something continues in the background."""

    code = "interrupted"
    exit_code = 130


EXIT_PARTIAL = 9
EXIT_BUG = 70
EXIT_HANGUP = 129
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


def error_of(code: object, message: str, *, hint: str | None = None, details: str | None = None) -> ReplayctlError:
    """The error that another replayctl process reported as JSON; OperationFailed for an unknown code."""
    kinds = {kind.code: kind for kind in ReplayctlError.__subclasses__()}
    return kinds.get(str(code), OperationFailed)(message, hint=hint, details=details)


def in_words(error: BaseException) -> str:
    """A connection error in plain words: the innermost reason, without Python's notation."""
    while True:
        inner = getattr(error, "reason", None)
        if not isinstance(inner, BaseException):
            inner = next((part for part in error.args[1:] if isinstance(part, BaseException)), None)
        if inner is None and len(error.args) == 1 and isinstance(error.args[0], BaseException):
            inner = error.args[0]
        inner = inner or error.__cause__
        if inner is None:
            break
        error = inner
    if verified := getattr(error, "verify_message", None):
        return f"the server's certificate is not trusted: {verified}"
    text = str(getattr(error, "strerror", None) or error)
    number = error.errno if isinstance(error, OSError) and type(error).__module__ == "builtins" else None
    if number is None and (numbers := re.findall(r"\[Errno (\d+)\]", text)):
        # asyncio joins the errors of several addresses into one text.
        number = int(numbers[0])
    if number:
        # asyncio reports the address as a tuple instead of the reason.
        return os.strerror(number)
    if isinstance(error, TimeoutError) and not text:
        return "the request timed out"
    # Drops the position in Python's source and OpenSSL's code in capitals.
    return re.sub(r"^\[[^\]]*\] | \(_ssl\.c:\d+\)$", "", text) or type(error).__name__
