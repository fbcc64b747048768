"""Pinned lists of Python packages, and how the environments that are packed from them are named."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from replayctl.errors import UsageProblem

_DIGITS = 12
_REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[^\s;#]+")


def read_requirements(path: Path) -> tuple[str, ...]:
    """The pins of a list, sorted; UsageProblem for a list that cannot be read or leaves a version open."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageProblem(f"cannot read {path}: {reason}", hint="check packages.requirements") from error
    pins = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition(" #")[0].strip()
        if not words or words.startswith("#"):
            continue
        if not _REQUIREMENT.fullmatch(words):
            raise UsageProblem(
                f"{path}:{number}: {words!r} is not NAME==VERSION",
                hint="pin all packages, dependencies too; `pip freeze` writes such a list",
            )
        pins.append(words)
    if not pins:
        raise UsageProblem(f"{path} lists no packages")
    return tuple(sorted(pins, key=str.lower))


def environment_prefix(path: Path, requirements: Sequence[str], python: str) -> str:
    """How the names of all archives of one list begin, whatever else they were built from."""
    stem = re.sub(r"[^A-Za-z0-9._]+", "-", path.stem).strip("-._") or "environment"
    digest = hashlib.sha256("\n".join((python, *requirements)).encode()).hexdigest()
    return f"{stem}-py{python}-{digest[:_DIGITS]}-"
