"""The only module that prints: answers on stdout, the story on stderr, one JSON document where it is asked for.

Text from elsewhere is never taken for markup, its control characters are taken out, and secrets are masked.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, Literal, TextIO

from replayctl.errors import ReplayctlError
from replayctl.result import Block, Fields, Lines, Problem, Result, Table

SCHEMA = "replayctl/1"
Mode = Literal["human", "json"]
_STATUS_EVERY_S = 10.0
_ERASE_LINE = "\r\x1b[2K"
# Tabs and line ends stay; everything else that could move a cursor or ring a bell goes.
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_MASKS = (
    (re.compile(r"(?<=://)[^/\s:@]*:[^/\s@]+(?=@)"), "***"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[a-z0-9._~+/=-]{8,}"), r"\1 ***"),
    (
        re.compile(r"(?i)\b(password|passwd|secret|token|access_token|api_key)(\"?\s*[:=]\s*\"?)[^\s\"',;&}]+"),
        r"\1\2***",
    ),
)


def clean(text: str) -> str:
    """Text fit for a terminal: no control characters, no secrets of the usual shapes."""
    text = _CONTROL.sub("", text)
    for pattern, mask in _MASKS:
        text = pattern.sub(mask, text)
    return text


def to_json(value: object) -> Any:
    """A value as JSON knows it: dataclasses become objects, paths and moments text; TypeError for anything else."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: to_json(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(each) for each in value]
    if isinstance(value, (set, frozenset)):
        return sorted(to_json(each) for each in value)
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, (datetime.datetime, datetime.date)):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no place in a result")


def envelope(
    command: str, status: str, exit_code: int, data: object, warnings: Sequence[str], errors: Sequence[Problem]
) -> dict[str, Any]:
    """The one shape of every JSON answer, of success and of failure."""
    return {
        "schema": SCHEMA,
        "command": command,
        "status": status,
        "exit_code": exit_code,
        "data": to_json(data),
        "warnings": [clean(warning) for warning in warnings],
        "errors": [
            {
                "code": error.code,
                "message": clean(error.message),
                "hint": clean(error.hint) if error.hint else None,
                "details": clean(error.details) if error.details else None,
            }
            for error in errors
        ],
    }


class Output:
    """Prints one command's answer, and errors, in the chosen mode."""

    def __init__(self, mode: Mode, *, stdout: TextIO | None = None, stderr: TextIO | None = None) -> None:
        self.mode = mode
        self._stdout = stdout or sys.stdout
        self._stderr = stderr or sys.stderr

    def show(self, result: Result) -> None:
        """The answer, and after it on stderr what should be looked at."""
        if self.mode == "json":
            self._document(
                envelope(result.command, result.status, result.exit_code, result.data, result.warnings, result.problems)
            )
            return
        if result.status == "nothing-to-do":
            self._stdout.write("nothing to do\n")
        for block in result.view:
            self._block(block)
        for warning in result.warnings:
            self._stderr.write(f"warning: {clean(warning)}\n")
        for problem in result.problems:
            self._problem(problem)

    def show_error(self, command: str, error: Problem, exit_code: int) -> None:
        """What ended the command."""
        if self.mode == "json":
            self._document(envelope(command, "error", exit_code, None, (), (error,)))
        else:
            self._problem(error)

    def _document(self, document: Mapping[str, Any]) -> None:
        self._stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")

    def _problem(self, problem: Problem) -> None:
        self._stderr.write(f"error: {clean(problem.message)}\n")
        if problem.details:
            lines = clean(problem.details).splitlines()
            self._stderr.write("".join(f"  | {line}\n" for line in lines))
        if problem.hint:
            self._stderr.write(f"hint: {clean(problem.hint)}\n")

    def _block(self, block: Block) -> None:
        if isinstance(block, Lines):
            self._stdout.write("".join(f"{clean(line)}\n" for line in block.lines))
        elif isinstance(block, Fields):
            self._fields(block)
        elif self._stdout.isatty():
            _rich_table(block, self._stdout)
        else:
            self._plain_table(block)

    def _fields(self, block: Fields) -> None:
        if block.title:
            self._stdout.write(f"{clean(block.title)}\n")
        width = max((len(name) for name, _ in block.pairs), default=0)
        self._stdout.write("".join(f"{name + ':':<{width + 1}} {clean(value)}\n" for name, value in block.pairs))

    def _plain_table(self, table: Table) -> None:
        """For pipes: one row a line, cells parted by tabs, nothing folded or cut."""
        rows = [table.columns, *table.rows]
        self._stdout.write("".join("\t".join(_cell(each) for each in row) + "\n" for row in rows))


def _cell(text: str) -> str:
    return re.sub(r"[\t\r\n]+", " ", clean(text))


def _rich_table(table: Table, stdout: TextIO) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    grid = RichTable(title=Text(table.title) if table.title else None, box=box.SIMPLE_HEAD, title_justify="left")
    for index, name in enumerate(table.columns):
        grid.add_column(Text(name), justify="right" if index in table.numeric else "left", overflow="fold")
    for row in table.rows:
        grid.add_row(*(Text(clean(cell)) for cell in row))
    Console(file=stdout, highlight=False, markup=False, emoji=False).print(grid)


class StderrReporter:
    """Tells the story on stderr, each line with the seconds since the start."""

    def __init__(self, verbosity: int = 0, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._verbosity = verbosity
        self._started = time.monotonic()
        self._terminal = self._stream.isatty()
        self._status_shown = False
        self._status_at = float("-inf")

    def step(self, message: str) -> None:
        """One line."""
        self._line(message)

    def note(self, message: str) -> None:
        """One line, with -v."""
        if self._verbosity:
            self._line(message)

    def warn(self, message: str) -> None:
        """One line that is marked."""
        self._line(f"warning: {message}")

    def status(self, message: str) -> None:
        """Replaces one line of a terminal; elsewhere a line now and then."""
        if self._terminal:
            self._stream.write(f"{_ERASE_LINE}{self._clock()} {clean(message)}")
            self._stream.flush()
            self._status_shown = True
        elif time.monotonic() - self._status_at >= _STATUS_EVERY_S:
            self._status_at = time.monotonic()
            self._line(f"… {message}")

    def close(self) -> None:
        """Takes a status line away that is still shown."""
        if self._status_shown:
            self._stream.write(_ERASE_LINE)
            self._stream.flush()
            self._status_shown = False

    def _line(self, message: str) -> None:
        self.close()
        self._stream.write(f"{self._clock()} {clean(message)}\n")
        self._stream.flush()

    def _clock(self) -> str:
        return f"[{time.monotonic() - self._started:7.1f}s]"


def problem_of(error: ReplayctlError) -> Problem:
    """An error of our tree in the form in which it is shown."""
    return Problem(error.code, str(error), error.hint, error.details)
