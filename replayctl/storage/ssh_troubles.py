"""What it means when ssh ends without having run our script: which of its many causes, and what to do about it.

ssh has one exit status for all of them, so its words decide; they are not translated, and stable over its versions.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from replayctl.errors import AuthFailed, ReplayctlError, SettingsError, Unreachable

_CONNECTION_LOST = 255
# With this status sshd ends a session because of /etc/nologin, whose text it prints.
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
# From what tells most to what only says that it is over.
_REASONS = (
    r"Could not resolve|Name or service not known|Connection refused|timed out|No route to host|Network is unreachable"
    r"|Unable to negotiate|Bad port|No such file or directory|not found|Cannot assign requested address|jumphost loop",
    r"Connection reset|Connection closed|banner exchange|Broken pipe|kex_exchange_identification",
)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call of ssh that has not run our script: to whom, how to repeat it by hand, and what came of it."""

    machine: str
    by_hand: str
    # What `ssh -G` says of the host.
    resolved: Mapping[str, str]
    returncode: int
    said: str
    # What the other side printed where our script's greeting should have been.
    printed: str
    began: bool


def trouble_of(attempt: Attempt) -> ReplayctlError:
    """The error that an attempt stands for."""
    said = attempt.said
    if "HOST IDENTIFICATION HAS CHANGED" in said:
        return _changed_host_key(attempt)
    if "REVOKED HOST KEY" in said:
        return AuthFailed(
            f"the host key of {attempt.machine} has been revoked", details=said, hint="ask its administrator"
        )
    if "Host key verification failed" in said:
        return AuthFailed(
            f"the host key of {attempt.machine} (or of a host on the way) is not known yet",
            details=said,
            hint=f"compare and accept it once by hand: {attempt.by_hand}",
        )
    if "Permission denied" in said or "Too many authentication failures" in said:
        return AuthFailed(
            f"{attempt.machine} does not let {attempt.resolved.get('user', 'you')} in",
            details=said,
            hint=f"load your key with ssh-add, then try: {attempt.by_hand}",
        )
    if attempt.began:
        return Unreachable(
            f"the connection to {attempt.machine} broke off half-way",
            details=said or None,
            hint="nothing is left by half; give the command again",
        )
    return _of_this_machine(attempt) or _of_the_account(attempt) or _unreachable(attempt)


def _changed_host_key(attempt: Attempt) -> AuthFailed:
    said = attempt.said
    named = re.search(r"Host key for (\S+) has changed", said)
    host = named.group(1) if named else host_in_known_hosts(attempt.resolved, attempt.machine)
    files = re.findall(r"Offending \S+ key in (.+):\d+\s*$", said, re.MULTILINE)
    files = files or attempt.resolved.get("userknownhostsfile", "~/.ssh/known_hosts").split()[:1]
    forget = " && ".join(f"ssh-keygen -f {shlex.quote(file)} -R {shlex.quote(host)}" for file in dict.fromkeys(files))
    return AuthFailed(
        f"the host key of {host} is not the one that is known: somebody may be in between",
        details=said,
        hint=f"ask its administrator; if the key was changed on purpose: {forget}",
    )


def host_in_known_hosts(resolved: Mapping[str, str], machine: str) -> str:
    """The name under which ssh looks a host's key up: an alias stands alone, a name has its port unless it is 22."""
    alias = resolved.get("hostkeyalias", "none")
    if alias != "none":
        return alias
    host, port = resolved.get("hostname", machine), resolved.get("port", "22")
    return host if port == "22" else f"[{host}]:{port}"


def _of_this_machine(attempt: Attempt) -> ReplayctlError | None:
    """What the user's own configuration of ssh has made fail."""
    said = attempt.said
    if _BAD_CONTROL_PATH.search(said):
        path = attempt.resolved.get("controlpath", "")
        return SettingsError(
            f"ssh cannot share its connection to {attempt.machine} at its ControlPath {path}",
            details=said,
            hint="make the folder of that path, or set `ControlPath none` for this host in ssh's configuration",
        )
    if _BAD_FORWARD.search(said):
        return SettingsError(
            f"ssh cannot open a forward that its configuration wants for {attempt.machine}",
            details=said,
            hint="free that port, or take the forward out of ssh's configuration for this host",
        )
    if _BAD_CONFIGURATION.search(said):
        return SettingsError(
            f"ssh cannot read its configuration for {attempt.machine}", details=said, hint=f"try: {attempt.by_hand}"
        )
    return None


def _of_the_account(attempt: Attempt) -> ReplayctlError | None:
    """What the other side has done with a connection that it has accepted."""
    said, printed = attempt.said, attempt.printed
    both = "\n".join(filter(None, (printed, said)))
    user = attempt.resolved.get("user", "you")
    hint = f"ask its administrator for an account with a shell, or try: {attempt.by_hand} true"
    if _NO_SESSION.search(said):
        return AuthFailed(
            f"{attempt.machine} lets {user} in, but opens no session for commands (MaxSessions, or another limit)",
            details=both,
            hint=hint,
        )
    if attempt.returncode == _CONNECTION_LOST and not printed:
        return None
    if attempt.returncode == _NO_LOGINS_NOW:
        what = "but takes no logins for now (/etc/nologin there)"
    elif "not available" in both or "nologin" in both:
        what = "but the account has no shell (nologin)"
    elif re.search(r"restricted|rbash", both):
        what = "but the account's shell is restricted, and runs no programs by their path"
    elif "sftp" in both:
        what = "but only for sftp, and a deploy needs a shell"
    else:
        ended = f"it ended with status {attempt.returncode}"
        what = f"but runs a command of its own instead of ours (ForceCommand, or the account's shell): {ended}"
    return AuthFailed(f"{attempt.machine} lets {user} in, {what}", details=both or None, hint=hint)


def _unreachable(attempt: Attempt) -> Unreachable:
    lines = attempt.said.splitlines()
    telling = (line for pattern in _REASONS for line in lines if re.search(pattern, line))
    reason = next(telling, lines[-1] if lines else "")
    why = f": {reason.strip()}" if reason else ", and ssh does not say why"
    return Unreachable(
        f"{attempt.machine} cannot be reached by ssh{why}",
        details=attempt.said if len(lines) > 1 else None,
        hint=f"try: {attempt.by_hand}",
    )


def last_lines(text: str) -> str:
    """The end of what the other side printed: enough to recognise it."""
    return "\n".join(text.strip().splitlines()[-_MOST_LINES:])
