"""What a diagnosis answers: causes with their place, and findings, which have no place yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Cause:
    """One probable cause of a failure. `rank` is smaller for the more probable, and comparable between all sources.

    `container`, `file` and the lines say where it stands; they are empty or 0 for what has no place in a log.
    """

    rank: int
    summary: str
    explanation: str
    container: str
    file: str
    first_line: int
    last_line: int
    excerpt: tuple[str, ...]


class Finding(NamedTuple):
    """What was found wrong. Findings with the same key are one cause, wherever they stand."""

    key: str
    summary: str
    explanation: str
    rank: int
    fatal: bool = False  # it ends the process that it is about
    echo: bool = False  # what is left to say when the driver's JVM is gone
