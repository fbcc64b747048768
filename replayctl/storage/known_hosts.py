"""Files of known host keys, as OpenSSH reads them: which keys a host may present, and which are revoked.

paramiko's reader ignores markers and patterns and keeps a single key of a type, so the lines are parsed here.
"""

from __future__ import annotations

import base64
import binascii
import enum
import hashlib
import hmac
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from replayctl.errors import SettingsError

_HASH_PREFIX = "|1|"
_REVOKED = "@revoked"
_BINARY_LIST = b"SSHKRL\n"


class Verdict(enum.Enum):
    """What the known keys of a host say about the key that it presents."""

    KNOWN = "known"
    UNKNOWN = "unknown"
    CHANGED = "changed"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class HostKey:
    """One public key of a host; `path` and `line` say where it is recorded."""

    kind: str
    blob: bytes
    is_revoked: bool
    path: Path
    line: int


def host_keys(host: str, paths: Sequence[Path]) -> tuple[HostKey, ...]:
    """The keys recorded for a host (`name` or `[name]:port`) in these files, of which some may not exist."""
    return tuple(key for path in paths for names, key in _entries(path) if _is_listed(host, names))


def verdict_on(blob: bytes, known: Iterable[HostKey]) -> Verdict:
    """The verdict on the key that a host presents, by the keys recorded for it.

    A key is also CHANGED when only keys of other types are recorded: a host that was connected to before presents one
    of those.
    """
    matching = [key for key in known if hmac.compare_digest(key.blob, blob)]
    if any(key.is_revoked for key in matching):
        return Verdict.REVOKED
    if matching:
        return Verdict.KNOWN
    return Verdict.CHANGED if any(not key.is_revoked for key in known) else Verdict.UNKNOWN


def is_listed_as_revoked(blob: bytes, path: Path) -> bool:
    """Whether a file of revoked public keys (ssh's RevokedHostKeys) lists this one.

    Raises SettingsError when it cannot be read, or is a binary list.
    """
    content = _read(path, required=True)
    if content.startswith(_BINARY_LIST):
        raise SettingsError(
            f"the list of revoked host keys {path} is binary, which fabric cannot read",
            hint="replayctl can use the ssh program instead: REPLAYCTL_SSH_CLIENT=openssh",
        )
    return any(decoded(word) == blob for word in content.decode("utf-8", "replace").split())


def _entries(path: Path) -> Iterator[tuple[list[str], HostKey]]:
    for number, line in enumerate(_read(path).decode("utf-8", "replace").splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        marker = words.pop(0) if words[0].startswith("@") else ""
        # Certificate authorities are no keys of hosts, and hosts' certificates are not supported.
        if marker not in ("", _REVOKED) or len(words) < 3:
            continue
        names, kind, text = words[:3]
        blob = decoded(text)
        if blob is not None:
            yield names.split(","), HostKey(kind, blob, marker == _REVOKED, path, number)


def _read(path: Path, *, required: bool = False) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        if not required:
            return b""
        raise SettingsError(f"the list of revoked host keys {path} does not exist") from None
    except OSError as error:
        raise SettingsError(f"cannot read the host keys in {path}: {error.strerror}") from error


def decoded(text: str) -> bytes | None:
    """The bytes of a base64 text; None when it is malformed."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def _is_listed(host: str, names: Sequence[str]) -> bool:
    """Whether a line is about this host; a negated pattern that matches excludes the whole line."""
    if any(name.startswith("!") and _matches(host, name[1:]) for name in names):
        return False
    return any(
        _is_hash_of(host, name) or _is_hash_of(host.lower(), name)
        if name.startswith(_HASH_PREFIX)
        else _matches(host, name)
        for name in names
    )


def _is_hash_of(host: str, name: str) -> bool:
    salt, _, digest = name.removeprefix(_HASH_PREFIX).partition("|")
    key, expected = decoded(salt), decoded(digest)
    if not key or not expected:
        return False
    return hmac.compare_digest(hmac.digest(key, host.encode(), hashlib.sha1), expected)


def _matches(host: str, pattern: str) -> bool:
    """Whether a pattern of OpenSSH's matches: brackets are literal, `*` and `?` are wildcards."""
    parts = (
        ".*" if part == "*" else "." if part == "?" else re.escape(part)
        for part in re.split(r"([*?])", pattern.lower())
    )
    return re.fullmatch("".join(parts), host.lower(), re.DOTALL) is not None
