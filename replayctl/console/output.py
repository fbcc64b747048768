"""Prints results to stdout and errors to stderr, or one JSON document with `--output json`.

Text from outside is never interpreted as markup, its control characters are removed, and secrets are masked.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, Literal, TextIO

from replayctl.console.bars import last_states, without_former_states
from replayctl.console.redaction import LogCleaner, clean, clean_lines, mask, mask_lines, mask_value
from replayctl.console.result import Block, Fields, Lines, Problem, Result
from replayctl.console.secret import MASK, Secret
from replayctl.console.stream import Stream
from replayctl.console.table import plain_rows, print_table, shorten
from replayctl.errors import ReplayctlError

SCHEMA = "replayctl/1"
Mode = Literal["human", "json"]
_LONGEST_LOG_LINE = 1 << 20
_ERASE_LINE = "\r\x1b[2K"


def to_json(value: object) -> Any:
    """A value as JSON. Raises TypeError for a type that cannot be converted.

    Dataclasses become objects, paths and times text. JSON has no NaN and no infinity: they become null. Secrets
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
        return {item.name: _member_to_json(item.name, getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {mask(str(key)): _member_to_json(str(key), member) for key, member in value.items()}
    if isinstance(value, (list, tuple)):
        if value and all(isinstance(item, str) for item in value):
            # Often the lines of one text, which may contain a private key.
            return mask_lines(value)
        return [to_json(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((to_json(item) for item in value), key=lambda item: (type(item).__name__, str(item)))
    if isinstance(value, PurePath):
        return mask(str(value))
    if isinstance(value, (datetime.datetime, datetime.date)):
        return value.isoformat()
    raise TypeError(f"cannot convert {type(value).__name__} to JSON")


def _member_to_json(name: str, value: object) -> Any:
    return mask_value(name, value) if isinstance(value, str) else to_json(value)


def envelope(
    command: str, status: str, exit_code: int, data: object, warnings: Sequence[str], errors: Sequence[Problem]
) -> dict[str, Any]:
    """The JSON document of a result, for success and for failure."""
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
    """Prints the result and the errors of one command in the selected mode."""

    def __init__(self, mode: Mode, *, stdout: TextIO | None = None, stderr: TextIO | None = None) -> None:
        self.mode = mode
        self._stdout = Stream(stdout or sys.stdout)
        self._stderr = Stream(stderr or sys.stderr)
        self._in_lines = False
        self._log = b""
        self._log_shown = False
        self._bar = ""
        self._log_cleaner = LogCleaner()

    def announce(self, result: Result) -> None:
        """Print a part of the result at once; from then on each JSON document is one line."""
        self._in_lines = True
        self.show(result)
        self.flush()

    def show_first(self, blocks: Sequence[Block]) -> None:
        """Print blocks before a log, for people only. Programs get one document at the end."""
        if self.mode == "human":
            for block in blocks:
                self._block(block)
            self.flush()

    def write_log(self, data: bytes, raw: bool) -> None:
        """Print consecutive bytes of a log: as text without control characters and secrets, or unchanged if `raw`.

        A line that was redrawn, such as a progress bar, is printed in its last state; a terminal shows each state. With
        JSON, logs go to stderr, because stdout is for documents.
        """
        stream = self._stderr if self.mode == "json" else self._stdout
        self._log_shown |= bool(data)
        if raw:
            stream.write_bytes(data)
            return
        self._log += data
        # Complete lines, so that no character, escape sequence or secret is split.
        end = self._log.rfind(b"\n") + 1 or (len(self._log) if len(self._log) > _LONGEST_LOG_LINE else 0)
        text, self._log = self._log[:end], without_former_states(self._log[end:])
        if text:
            self._draw_bar(stream, "")
            stream.write(self._log_cleaner.clean(last_states(text.decode("utf-8", "replace"))))
            # A followed log is read as it grows.
            stream.flush()
        if stream.isatty():
            # A state is complete when the next one begins.
            self._draw_bar(stream, last_states(self._log.rpartition(b"\r")[0].decode("utf-8", "replace")))

    def _draw_bar(self, stream: Stream, state: str) -> None:
        """Replace the state of an unfinished line on the terminal; an empty state erases it."""
        if not state and not self._bar:
            return
        bar = shorten(clean(state), shutil.get_terminal_size().columns - 1)
        if bar != self._bar:
            stream.write(f"{_ERASE_LINE}{bar}")
            stream.flush()
            self._bar = bar

    def flush(self) -> None:
        """Flush all output. Raises OSError."""
        if self._log:
            self.write_log(b"\n", raw=False)
        self._stdout.flush()

    def show(self, result: Result) -> None:
        """Print the result, then warnings and problems to stderr."""
        if self.mode == "json":
            self._document(
                envelope(result.command, result.status, result.exit_code, result.data, result.warnings, result.problems)
            )
            return
        self.flush()
        if result.status == "nothing-to-do":
            self._stdout.write("nothing to do\n")
        for block in result.view:
            self._block(block)
        for warning in result.warnings:
            self._stderr.write(f"warning: {clean(warning)}\n")
        for problem in result.problems:
            self._problem(problem)
        if self._log_shown and self._stdout.isatty():
            for block in result.closing:
                self._block(block)

    def show_error(self, command: str, error: Problem, exit_code: int, data: object = None) -> None:
        """Print the error that ended the command; in JSON, with the `data` that exists."""
        if self.mode == "json":
            self._document(envelope(command, "error", exit_code, data, (), (error,)))
        else:
            self._problem(error)

    def _document(self, document: Mapping[str, Any]) -> None:
        import json

        indent = None if self._in_lines else 2
        text = json.dumps(document, indent=indent, ensure_ascii=False, allow_nan=False) + "\n"
        if not self._stdout.can_show(text):
            # Escaped characters have the same value for every reader.
            text = json.dumps(document, indent=indent, allow_nan=False) + "\n"
        self._stdout.write(text)

    def _problem(self, problem: Problem) -> None:
        self._stderr.write(f"error: {clean(problem.message)}\n")
        if problem.details:
            lines = clean(last_states(problem.details)).splitlines()
            self._stderr.write("".join(f"  | {line}\n" for line in lines))
        if problem.hint:
            self._stderr.write(f"hint: {clean(problem.hint)}\n")

    def _block(self, block: Block) -> None:
        if isinstance(block, Lines):
            self._stdout.write("".join(f"{line}\n" for line in clean_lines(block.lines)))
        elif isinstance(block, Fields):
            self._fields(block)
        elif self._stdout.isatty():
            print_table(block, self._stdout.stream)
        else:
            self._stdout.write(plain_rows(block))

    def _fields(self, block: Fields) -> None:
        if block.title:
            self._stdout.write(f"{clean(block.title)}\n")
        pairs = [(clean(name), mask_value(name, clean(value))) for name, value in block.pairs]
        width = max((len(name) for name, _ in pairs), default=0)
        self._stdout.write("".join(f"{name + ':':<{width + 1}} {value}\n" for name, value in pairs))


def problem_of(error: ReplayctlError) -> Problem:
    """An error of replayctl in the form in which it is printed."""
    return Problem(error.code, str(error), error.hint, error.details)
