"""Results of a diagnosis: causes with their place in a log, and findings without one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Cause:
    """One probable cause of a failure. A smaller `rank` is more probable; ranks of all sources are comparable.

    `container`, `file` and the lines are its place; they are empty or 0 for a cause without a place in a log.
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
    """A sign of a failure. Findings with the same key are one cause, whatever their place."""

    key: str
    summary: str
    explanation: str
    rank: int
    fatal: bool = False  # it ends the process that it is about
    echo: bool = False  # a consequence of the loss of the driver's JVM
