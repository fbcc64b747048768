"""Prints answers on stdout and errors on stderr, or one JSON document where it is asked for.

Text from elsewhere is never taken for markup, its control characters are taken out, and secrets are masked.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, Literal, TextIO

from replayctl.console.redaction import clean, mask
from replayctl.console.result import Block, Fields, Lines, Problem, Result, Table
from replayctl.console.secret import MASK, Secret
from replayctl.console.stream import Stream
from replayctl.errors import ReplayctlError

SCHEMA = "replayctl/1"
Mode = Literal["human", "json"]
_LONGEST_LOG_LINE = 1 << 20


def to_json(value: object) -> Any:
    """A value as JSON knows it; TypeError for what has no place there.

    Dataclasses become objects, paths and moments text. JSON has no NaN and no infinity: they become null. Secrets
    become `***`, also within text.
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, Secret):
        return MASK
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: to_json(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(each) for each in value]
    if isinstance(value, (set, frozenset)):
        return sorted((to_json(each) for each in value), key=lambda each: (type(each).__name__, str(each)))
    if isinstance(value, PurePath):
        return mask(str(value))
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
        self._stdout = Stream(stdout or sys.stdout)
        self._stderr = Stream(stderr or sys.stderr)
        self._in_lines = False
        self._log = b""

    def announce(self, result: Result) -> None:
        """A part of the answer, at once; from then on each JSON document is one line."""
        self._in_lines = True
        self.show(result)
        self.flush()

    def write_log(self, data: bytes, raw: bool) -> None:
        """Some bytes of a log, in order: text without control characters and secrets, or as they are.

        With JSON, where stdout is for documents, it goes to stderr.
        """
        stream = self._stderr if self.mode == "json" else self._stdout
        if raw:
            stream.write_bytes(data)
            return
        self._log += data
        # Whole lines, so that neither a character nor an escape sequence nor a secret is looked at by half.
        end = self._log.rfind(b"\n") + 1 or (len(self._log) if len(self._log) > _LONGEST_LOG_LINE else 0)
        text, self._log = self._log[:end], self._log[end:]
        if text:
            stream.write(clean(text.decode("utf-8", "replace")))
            # A log that is followed is read as it comes.
            stream.flush()

    def flush(self) -> None:
        """Hands all that was written to the reader; OSError when it cannot be."""
        if self._log:
            self.write_log(b"\n", raw=False)
        self._stdout.flush()

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
        import json

        indent = None if self._in_lines else 2
        text = json.dumps(document, indent=indent, ensure_ascii=False, allow_nan=False) + "\n"
        if not self._stdout.can_show(text):
            # Escaped, every reader gets the same value back.
            text = json.dumps(document, indent=indent, allow_nan=False) + "\n"
        self._stdout.write(text)

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
            _rich_table(block, self._stdout.stream)
        else:
            self._plain_table(block)

    def _fields(self, block: Fields) -> None:
        if block.title:
            self._stdout.write(f"{clean(block.title)}\n")
        pairs = [(clean(name), clean(value)) for name, value in block.pairs]
        width = max((len(name) for name, _ in pairs), default=0)
        self._stdout.write("".join(f"{name + ':':<{width + 1}} {value}\n" for name, value in pairs))

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

    grid = RichTable(title=Text(clean(table.title)) if table.title else None, box=box.SIMPLE_HEAD, title_justify="left")
    console = Console(file=stdout, highlight=False, markup=False, emoji=False)
    for index, name in enumerate(table.columns):
        # The first column is what people copy: it is folded last.
        key = max((len(row[0]) for row in table.rows), default=0) if index == 0 else 0
        grid.add_column(
            Text(clean(name)),
            justify="right" if index in table.numeric else "left",
            overflow="fold",
            min_width=min(key, console.width // 2) or None,
        )
    for row in table.rows:
        grid.add_row(*(Text(clean(cell)) for cell in row))
    console.print(grid)


def problem_of(error: ReplayctlError) -> Problem:
    """An error of our tree in the form in which it is shown."""
    return Problem(error.code, str(error), error.hint, error.details)
