"""What commands return: data for programs, blocks of plain text for people. Nothing here prints."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from replayctl.errors import EXIT_PARTIAL

Status = Literal["ok", "nothing-to-do", "partial", "failed"]
Cell = str | int | datetime.datetime | datetime.timedelta | None


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines of text."""

    lines: Sequence[str]


@dataclass(frozen=True, slots=True)
class Fields:
    """Names with values."""

    pairs: Sequence[tuple[str, str]]
    title: str | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under column titles, the most important columns first; `numeric` are the indices of those with numbers.

    On a narrow terminal cells of the columns in `shorten` may lose their middle, and those in `wrap` go on in further
    lines. All others stay whole, and where there is no room for them, the last columns go. Moments and durations are
    short there, and exact elsewhere.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    title: str | None = None
    numeric: Sequence[int] = ()
    shorten: Sequence[int] = ()
    wrap: Sequence[int] = ()


Block = Lines | Fields | Table


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that went wrong, in the form of an error that was not raised."""

    code: str
    message: str
    hint: str | None = None
    details: str | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """One command's answer: `data` is a dataclass or a mapping and becomes JSON, `view` is the same for people.

    `closing` is what a terminal shows once more in the end when a log has scrolled it away.
    """

    command: str
    data: object
    view: Sequence[Block]
    status: Status = "ok"
    warnings: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    closing: Sequence[Block] = ()

    @property
    def exit_code(self) -> int:
        """0 also when there was nothing to do."""
        return {"ok": 0, "nothing-to-do": 0, "partial": EXIT_PARTIAL, "failed": 1}[self.status]
