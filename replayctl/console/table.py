"""Prints tables: fitted to the width of a terminal, or one row per line for programs.

On a narrow terminal, cells that may be shortened lose their middle, cells that may wrap continue on further lines, and
then the last columns are omitted and named.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Sequence
from typing import TextIO

from replayctl.console.redaction import clean
from replayctl.console.result import Cell, Table
from replayctl.console.times import short_duration, short_moment

_GAP = 2
_LEAST_SHORTENED = 16
_LEAST_WRAPPED = 16
_NONE = "-"


def plain_rows(table: Table) -> str:
    """For pipes: cells separated by tabs, nothing wrapped or cut, times in ISO 8601, durations in seconds."""
    rows = [[_one_line(name) for name in table.columns], *_texts(table, _exact)]
    return "".join("\t".join(row) + "\n" for row in rows)


def print_table(table: Table, stdout: TextIO) -> None:
    """For a terminal: the columns that fit, and the names of those that do not."""
    from rich import box
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    console = Console(file=stdout, highlight=False, markup=False, emoji=False)
    names = [_one_line(name) for name in table.columns]
    rows = _texts(table, _short)
    natural = [max(cell_len(row[index]) for row in [names, *rows]) for index in range(len(names))]
    least = [_least(table, index, cell_len(names[index]), width) for index, width in enumerate(natural)]
    widths = fit(natural, least, console.width)
    grid = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for index, width in enumerate(widths):
        justify = "right" if index in table.numeric else "left"
        grid.add_column(Text(names[index]), justify=justify, overflow="fold", width=width)  # type: ignore[arg-type]
    for row in rows:
        cells = [
            shorten(cell, width) if index in table.shorten else cell
            for index, (cell, width) in enumerate(zip(row, widths, strict=False))
        ]
        grid.add_row(*(Text(cell) for cell in cells))
    if table.title:
        console.print(Text(f"{clean(table.title)}\n"), soft_wrap=True)
    console.print(grid)
    if missing := names[len(widths) :]:
        line = f"not shown, too narrow: {', '.join(name for name in missing if name)} (all: --output json)"
        console.print(Text(line))


def fit(natural: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """Widths of the first columns that fit into `room` with two spaces between them; at least one column.

    Each has between its `least` and its `natural` width; the widest gives way first.
    """
    for count in range(len(natural), 0, -1):
        space = room - _GAP * (count - 1)
        if sum(least[:count]) > space:
            continue
        widths = list(natural[:count])
        while (excess := sum(widths) - space) > 0:
            index = max(
                (column for column in range(count) if widths[column] > least[column]), key=lambda column: widths[column]
            )
            # Larger steps would be faster; tables are not that wide.
            widths[index] -= min(1, excess)
        return widths
    return [min(natural[0], room)] if natural else []


def shorten(text: str, width: int) -> str:
    """The text, or its beginning and its end around an ellipsis: names differ at either end."""
    from rich.cells import cell_len

    if cell_len(text) <= width:
        return text
    head, tail = "", ""
    for number in range(len(text)):
        # The end gets two characters for each one of the beginning.
        longer = (head, text[-len(tail) - 1] + tail) if number % 3 else (head + text[len(head)], tail)
        if cell_len("".join(longer)) > width - 1:
            break
        head, tail = longer
    return f"{head}…{tail}"


def _least(table: Table, index: int, name: int, natural: int) -> int:
    if index in table.shorten:
        return max(name, min(natural, _LEAST_SHORTENED))
    return max(name, min(natural, _LEAST_WRAPPED)) if index in table.wrap else natural


def _texts(table: Table, text_of: Callable[[Cell], str]) -> list[list[str]]:
    return [
        [text_of(cell) if index in table.own else _one_line(text_of(cell)) for index, cell in enumerate(row)]
        for row in table.rows
    ]


def _short(cell: Cell) -> str:
    if isinstance(cell, datetime.datetime):
        return short_moment(cell)
    if isinstance(cell, datetime.timedelta):
        return short_duration(cell.total_seconds())
    return _NONE if cell is None else str(cell)


def _exact(cell: Cell) -> str:
    if isinstance(cell, datetime.datetime):
        return cell.isoformat(timespec="seconds")
    if isinstance(cell, datetime.timedelta):
        return f"{cell.total_seconds():.1f}".removesuffix(".0")
    return _NONE if cell is None else str(cell)


def _one_line(text: str) -> str:
    return re.sub(r"[\t\r\n]+", " ", clean(text))
