"""Prints answers on stdout and errors on stderr, or one JSON document where it is asked for.

Text from elsewhere is never taken for markup, its control characters are taken out, and secrets are masked.
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
        return {each.name: _member_to_json(each.name, getattr(value, each.name)) for each in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {mask(str(key)): _member_to_json(str(key), each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        if value and all(isinstance(each, str) for each in value):
            # Often the lines of one text, in which a private key has many.
            return mask_lines(value)
        return [to_json(each) for each in value]
    if isinstance(value, (set, frozenset)):
        return sorted((to_json(each) for each in value), key=lambda each: (type(each).__name__, str(each)))
    if isinstance(value, PurePath):
        return mask(str(value))
    if isinstance(value, (datetime.datetime, datetime.date)):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no place in a result")


def _member_to_json(name: str, value: object) -> Any:
    return mask_value(name, value) if isinstance(value, str) else to_json(value)


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
        self._log_shown = False
        self._bar = ""
        self._log_cleaner = LogCleaner()

    def announce(self, result: Result) -> None:
        """A part of the answer, at once; from then on each JSON document is one line."""
        self._in_lines = True
        self.show(result)
        self.flush()

    def show_first(self, blocks: Sequence[Block]) -> None:
        """What people want to know ahead of a log. Programs get one document, at the end."""
        if self.mode == "human":
            for block in blocks:
                self._block(block)
            self.flush()

    def write_log(self, data: bytes, raw: bool) -> None:
        """Some bytes of a log, in order: text without control characters and secrets, or as they are.

        Of a line that was drawn over, as progress bars are, only the last state is shown; a terminal has it as it
        comes. With JSON, where stdout is for documents, logs go to stderr.
        """
        stream = self._stderr if self.mode == "json" else self._stdout
        self._log_shown |= bool(data)
        if raw:
            stream.write_bytes(data)
            return
        self._log += data
        # Whole lines, so that neither a character nor an escape sequence nor a secret is looked at by half.
        end = self._log.rfind(b"\n") + 1 or (len(self._log) if len(self._log) > _LONGEST_LOG_LINE else 0)
        text, self._log = self._log[:end], without_former_states(self._log[end:])
        if text:
            self._draw_bar(stream, "")
            stream.write(self._log_cleaner.clean(last_states(text.decode("utf-8", "replace"))))
            # A log that is followed is read as it comes.
            stream.flush()
        if stream.isatty():
            # A state is whole when the next one begins.
            self._draw_bar(stream, last_states(self._log.rpartition(b"\r")[0].decode("utf-8", "replace")))

    def _draw_bar(self, stream: Stream, state: str) -> None:
        """Draws the state of a line that is not over yet in place of the one that is shown; an empty one wipes it."""
        if not state and not self._bar:
            return
        bar = shorten(clean(state), shutil.get_terminal_size().columns - 1)
        if bar != self._bar:
            stream.write(f"{_ERASE_LINE}{bar}")
            stream.flush()
            self._bar = bar

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
        """What ended the command, and in JSON what a program needs all the same."""
        if self.mode == "json":
            self._document(envelope(command, "error", exit_code, data, (), (error,)))
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
    """An error of our tree in the form in which it is shown."""
    return Problem(error.code, str(error), error.hint, error.details)
