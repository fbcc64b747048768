"""The errors that end a command, each with a stable word for scripts, an exit code and, if there is one, a way out."""

from __future__ import annotations

import os
import re


class ReplayctlError(Exception):
    """What happened, on which thing. `hint` is the next thing to type, `details` the other side's own words.

    `data` is what a program needs all the same, such as the id of a run that goes on.
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
    """We reached the other side, and it said no."""


class ServerTrouble(OperationFailed):
    """The server failed by itself, and may answer again in a while (HTTP 429 and 5xx)."""


class UsageProblem(ReplayctlError):
    """Options contradict each other, or name something that cannot be."""

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
    """A service does not know us, or does not allow this."""

    code = "auth"
    exit_code = 4


class RemoteCommandFailed(ReplayctlError):
    """A program ended badly; `details` holds its last lines."""

    code = "remote-command"
    exit_code = 5


class NotFound(ReplayctlError):
    """A DAG, file, pod or program is not there."""

    code = "not-found"
    exit_code = 6


class NotReady(ReplayctlError):
    """It is there, but does not serve yet."""

    code = "not-ready"
    exit_code = 6


class Conflict(ReplayctlError):
    """Somebody or something else holds it; the message says who or what."""

    code = "conflict"
    exit_code = 7


class PortTaken(Conflict):
    """Another process listens on the port."""


class TimedOut(ReplayctlError):
    """Waited for it, and how long."""

    code = "timeout"
    exit_code = 8


class Interrupted(ReplayctlError):
    """The user did not want to wait any longer, and something goes on."""

    code = "interrupted"
    exit_code = 130


EXIT_PARTIAL = 9
EXIT_BUG = 70
EXIT_HANGUP = 129
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


def error_of(code: object, message: str, *, hint: str | None = None, details: str | None = None) -> ReplayctlError:
    """The error that another process of ours told as JSON; OperationFailed for a code that no error has."""
    kinds = {kind.code: kind for kind in ReplayctlError.__subclasses__()}
    return kinds.get(str(code), OperationFailed)(message, hint=hint, details=details)


def in_words(error: BaseException) -> str:
    """An error of a connection as a person would say it: the reason inside its wrappers, without Python's notation."""
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
    said = str(getattr(error, "strerror", None) or error)
    number = error.errno if isinstance(error, OSError) and type(error).__module__ == "builtins" else None
    if number is None and (numbers := re.findall(r"\[Errno (\d+)\]", said)):
        # asyncio makes one text of those of several addresses.
        number = int(numbers[0])
    if number:
        # asyncio puts an address as a tuple in the place of the reason.
        return os.strerror(number)
    if isinstance(error, TimeoutError) and not said:
        return "no answer in time"
    # OpenSSL's place in Python's source, and its code in capitals.
    return re.sub(r"^\[[^\]]*\] | \(_ssl\.c:\d+\)$", "", said) or type(error).__name__
