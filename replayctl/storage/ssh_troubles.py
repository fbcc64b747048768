"""Finds out why ssh ended without running our script, and what to do about it.

ssh has one exit status for all causes, so its messages decide; they are not translated, and stable across versions.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from replayctl.errors import AuthFailed, ReplayctlError, SettingsError, Unreachable

_CONNECTION_LOST = 255
# sshd's status for a session that it refuses because of /etc/nologin, whose text it prints.
_NO_LOGINS_NOW = 254
_MOST_LINES = 20
_BAD_CONFIGURATION = re.compile(
    r"bad configuration option|terminating, \d+ bad|Bad owner or permissions|Can't open (?:user config|include) file"
    r"|keyword \S+ extra arguments|missing argument|unsupported option"
    r"|line \d+: (?:Bad|Unsupported|garbage|no argument)",
    re.IGNORECASE,
)
_BAD_CONTROL_PATH = re.compile(
    r"unix_listener: (?:cannot bind to path|path)|ControlPath .*(?:too long|ambiguous)|too long for Unix domain socket",
    re.IGNORECASE,
)
_BAD_FORWARD = re.compile(
    r"cannot listen to port|Could not request (?:local|remote) forwarding|forwarding failed for listen"
)
_NO_SESSION = re.compile(
    r"open failed|Session open refused|session request failed|(?:exec|shell|subsystem) request (?:failed|denied)"
)
# From the most specific reason to the least.
_REASONS = (
    r"Could not resolve|Name or service not known|Connection refused|timed out|No route to host|Network is unreachable"
    r"|Unable to negotiate|Bad port|No such file or directory|not found|Cannot assign requested address|jumphost loop",
    r"Connection reset|Connection closed|banner exchange|Broken pipe|kex_exchange_identification",
)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call of ssh that did not complete our script: the machine, how to repeat it by hand, and its output."""

    machine: str
    by_hand: str
    # The host's options, as `ssh -G` prints them.
    resolved: Mapping[str, str]
    returncode: int
    messages: str
    # The output of the other side where our script's greeting should have been.
    printed: str
    is_begun: bool


def trouble_of(attempt: Attempt) -> ReplayctlError:
    """The error that an attempt stands for."""
    messages = attempt.messages
    if "HOST IDENTIFICATION HAS CHANGED" in messages:
        return _changed_host_key(attempt)
    if "REVOKED HOST KEY" in messages:
        return AuthFailed(
            f"the host key of {attempt.machine} is revoked",
            details=messages,
            hint="ask its administrator for the new key",
        )
    if "Host key verification failed" in messages:
        return AuthFailed(
            f"the host key of {attempt.machine} (or of a jump host) is unknown",
            details=messages,
            hint=f"compare and accept it once by hand: {attempt.by_hand}",
        )
    if "Permission denied" in messages or "Too many authentication failures" in messages:
        return AuthFailed(
            f"{attempt.machine} denied access to {attempt.resolved.get('user', 'you')}",
            details=messages,
            hint=f"load your key with ssh-add, and try: {attempt.by_hand}; for passwords: REPLAYCTL_SSH_CLIENT=fabric",
        )
    if attempt.is_begun:
        return connection_lost(attempt.machine, messages)
    return _of_this_machine(attempt) or _of_the_account(attempt) or _unreachable(attempt)


def connection_lost(machine: str, messages: str) -> Unreachable:
    """The error of a connection that ended while a script was running."""
    return Unreachable(
        f"the connection to {machine} was lost",
        details=messages or None,
        hint="run the same command again; nothing is left half-done",
    )


def no_session(machine: str, user: str, messages: str, hint: str) -> AuthFailed:
    """The error of an account that may sign in, and may run nothing."""
    return AuthFailed(
        f"{machine} accepts {user}, but opens no session for commands (MaxSessions or another limit)",
        details=messages or None,
        hint=hint,
    )


def account_trouble(machine: str, user: str, returncode: int, messages: str, printed: str, hint: str) -> AuthFailed:
    """The error of an account that ran something else than the script: by what that printed, and its exit status."""
    both = "\n".join(filter(None, (printed, messages)))
    if returncode == _NO_LOGINS_NOW:
        what = "but does not allow logins at the moment (/etc/nologin)"
    elif "not available" in both or "nologin" in both:
        what = "but the account has no shell (nologin)"
    elif re.search(r"restricted|rbash", both):
        what = "but the account's shell is restricted and runs no programs by path"
    elif "sftp" in both:
        what = "but only for sftp; replayctl needs a shell"
    else:
        ended = f"it ended with status {returncode}"
        what = f"but runs another command instead (ForceCommand or the account's shell): {ended}"
    return AuthFailed(f"{machine} accepts {user}, {what}", details=both or None, hint=hint)


def _changed_host_key(attempt: Attempt) -> AuthFailed:
    messages = attempt.messages
    match = re.search(r"Host key for (\S+) has changed", messages)
    host = match.group(1) if match else host_in_known_hosts(attempt.resolved, attempt.machine)
    files = re.findall(r"Offending \S+ key in (.+):\d+\s*$", messages, re.MULTILINE)
    files = files or attempt.resolved.get("userknownhostsfile", "~/.ssh/known_hosts").split()[:1]
    forget = " && ".join(f"ssh-keygen -f {shlex.quote(file)} -R {shlex.quote(host)}" for file in dict.fromkeys(files))
    return AuthFailed(
        f"the host key of {host} has changed: someone may be intercepting the connection",
        details=messages,
        hint=f"ask its administrator; if the key was changed on purpose: {forget}",
    )


def host_in_known_hosts(resolved: Mapping[str, str], machine: str) -> str:
    """The name under which ssh looks up a host's key: the alias alone, or the host with its port unless that is 22."""
    alias = resolved.get("hostkeyalias", "none")
    if alias != "none":
        return alias
    host, port = resolved.get("hostname", machine), resolved.get("port", "22")
    return host if port == "22" else f"[{host}]:{port}"


def _of_this_machine(attempt: Attempt) -> ReplayctlError | None:
    """The failures that the user's own ssh configuration causes."""
    messages = attempt.messages
    if _BAD_CONTROL_PATH.search(messages):
        path = attempt.resolved.get("controlpath", "")
        return SettingsError(
            f"ssh cannot share its connection to {attempt.machine} at its ControlPath {path}",
            details=messages,
            hint="create the folder of that path, or set `ControlPath none` for this host in the ssh configuration",
        )
    if _BAD_FORWARD.search(messages):
        return SettingsError(
            f"ssh cannot open a forward that its configuration sets for {attempt.machine}",
            details=messages,
            hint="free that port, or remove the forward from the ssh configuration of this host",
        )
    if _BAD_CONFIGURATION.search(messages):
        return SettingsError(
            f"ssh cannot read its configuration for {attempt.machine}", details=messages, hint=f"try: {attempt.by_hand}"
        )
    return None


def _of_the_account(attempt: Attempt) -> ReplayctlError | None:
    """What the other side did with a connection that it accepted."""
    user = attempt.resolved.get("user", "you")
    hint = f"ask its administrator for an account with a shell, or try: {attempt.by_hand} true"
    if _NO_SESSION.search(attempt.messages):
        messages = "\n".join(filter(None, (attempt.printed, attempt.messages)))
        return no_session(attempt.machine, user, messages, hint)
    if attempt.returncode == _CONNECTION_LOST and not attempt.printed:
        return None
    return account_trouble(attempt.machine, user, attempt.returncode, attempt.messages, attempt.printed, hint)


def _unreachable(attempt: Attempt) -> Unreachable:
    lines = attempt.messages.splitlines()
    reasons = (line for pattern in _REASONS for line in lines if re.search(pattern, line))
    reason = next(reasons, lines[-1] if lines else "")
    why = f": {reason.strip()}" if reason else ", and ssh gave no reason"
    return Unreachable(
        f"{attempt.machine} cannot be reached by ssh{why}",
        details=attempt.messages if len(lines) > 1 else None,
        hint=f"try: {attempt.by_hand}",
    )


def last_lines(text: str) -> str:
    """The last lines of a text."""
    return "\n".join(text.strip().splitlines()[-_MOST_LINES:])
