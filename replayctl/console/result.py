"""Results of commands: data for programs, blocks of plain text for people. This module prints nothing.

Named tuples, because every start makes these classes, and Python takes five times as long for frozen dataclasses.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Literal, NamedTuple

from replayctl.errors import EXIT_PARTIAL

Status = Literal["ok", "nothing-to-do", "partial", "failed"]
Cell = str | int | datetime.datetime | datetime.timedelta | None


class Lines(NamedTuple):
    """Lines of text."""

    lines: Sequence[str]


class Fields(NamedTuple):
    """Names with values."""

    pairs: Sequence[tuple[str, str]]
    title: str | None = None


class Table(NamedTuple):
    """Rows under column titles, the most important columns first; `numeric` are the indices of those with numbers.

    On a narrow terminal, cells of the columns in `shorten` may lose their middle, and those in `wrap` continue on
    further lines. All others stay complete, and the last columns are omitted if they do not fit. Times and durations
    are short on a terminal, and exact elsewhere. Columns in `own` hold text of this program, where no secret can be.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    title: str | None = None
    numeric: Sequence[int] = ()
    shorten: Sequence[int] = ()
    wrap: Sequence[int] = ()
    own: Sequence[int] = ()


Block = Lines | Fields | Table


class Problem(NamedTuple):
    """An error that is reported without being raised."""

    code: str
    message: str
    hint: str | None = None
    details: str | None = None


class Result(NamedTuple):
    """The result of one command: `data` is a dataclass or a mapping for JSON, `view` is the same for people.

    A terminal shows `closing` after a log, to repeat what has scrolled away.
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
        """The exit code for the status."""
        return {"ok": 0, "nothing-to-do": 0, "partial": EXIT_PARTIAL, "failed": 1}[self.status]
