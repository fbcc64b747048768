"""The record of a stack in its state folder: its identity and the leaders that were started.

The record is never the only proof: it may be lost or cut, and processes outlive it. What belongs to a stack is found by
its mark (`processes`), the record only names the leaders.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replayctl.local.disk import write_private
from replayctl.local.processes import Leader

_KIND = "stack"


@dataclass(frozen=True, slots=True)
class Part:
    """One part that was started: its leader, and its port where it has pages."""

    name: str
    leader: Leader
    port: int | None


def read_record(home: Path) -> tuple[Part, ...]:
    """The parts that were started last; empty when the record is missing, damaged or not ours."""
    try:
        entries = json.loads((home / "stack.json").read_text(encoding="utf-8"))
        return tuple(_part(entry) for entry in entries["parts"])
    except (OSError, ValueError, KeyError, TypeError):
        return ()


def write_record(home: Path, parts: tuple[Part, ...]) -> None:
    """Replaces the record; raises OSError when it cannot be written."""
    entries = [
        {"name": part.name, "pid": part.leader.pid, "started_s": part.leader.started_s, "port": part.port}
        for part in parts
    ]
    write_private(home / "stack.json", json.dumps({"parts": entries}, indent=2) + "\n")


def remove_record(home: Path) -> None:
    """Removes the record of the parts."""
    (home / "stack.json").unlink(missing_ok=True)


def ensure_identity(home: Path) -> str:
    """The stack's identity, created with its folder; a copied folder gets its own at its first start."""
    known = _identity(home)
    if known is not None and known[1] == str(home.resolve()):
        return known[0]
    identity = known[0] if known is not None and not _is_copy(home, *known) else secrets.token_hex(8)
    write_private(home / "identity", f"{identity} {home.resolve()}\n")
    return identity


def mark(home: Path, identity: str, part: str) -> str:
    """The mark in the environment of a part's processes."""
    return f"{_KIND} {identity} {part} {home.resolve()}"


def part_in_mark(mark: str) -> str:
    """The part in a mark; empty for an invalid mark."""
    words = mark.split(" ", 3)
    return words[2] if len(words) == 4 else ""


def folder_in_mark(mark: str) -> str:
    """The state folder in a mark; empty for an invalid mark."""
    words = mark.split(" ", 3)
    return words[3] if len(words) == 4 else ""


def is_marked_by(home: Path, mark: str) -> bool:
    """Whether a mark belongs to the stack of this folder.

    Decided by the folder's path or, when the folder was moved, by the stack's identity.
    """
    kind, _, rest = mark.partition(" ")
    words = rest.split(" ", 2)
    if kind != _KIND or len(words) != 3:
        return False
    if words[2] == str(home.resolve()):
        return True
    known = _identity(home)
    return known is not None and words[0] == known[0] and not _is_copy(home, words[0], words[2])


def _identity(home: Path) -> tuple[str, str] | None:
    """The identity and the path at which it was created."""
    try:
        words = (home / "identity").read_text(encoding="utf-8").rstrip("\n").split(" ", 1)
    except (OSError, UnicodeDecodeError):
        return None
    return (words[0], words[1]) if len(words) == 2 and words[0] else None


def _is_copy(home: Path, identity: str, path: str) -> bool:
    """Whether the original folder of the identity still has it, so that this one is a copy."""
    elsewhere = Path(path)
    if elsewhere == home.resolve():
        return False
    known = _identity(elsewhere)
    return known is not None and known[0] == identity


def _part(entry: Any) -> Part:
    port = entry["port"]
    leader = Leader(int(entry["pid"]), float(entry["started_s"]))
    return Part(str(entry["name"]), leader, None if port is None else int(port))
