"""Parses the text format in which YARN's web services and `yarn logs` return log files.

Each log file is preceded by its length. Only the length is reliable: a log may contain any text, and a stream that was
cut off ends without a marker.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from replayctl.errors import OperationFailed

_HEADER = re.compile(rb"Container: (?P<container>container_\w+) on (?P<node>\S+)")
_FIELD = re.compile(
    rb"(?P<key>LogType|LogLength|LogAggregationType|LogLastModifiedTime|Log Upload Time):\s*(?P<value>.*)"
)
_CONTENTS = (b"LogContents:", b"Log Contents:")
_LONGEST_HEADER = 1 << 16


@dataclass(frozen=True, slots=True)
class LogFile:
    """One log file of one container, its size in bytes, and whether the container is still running."""

    container: str
    node: str
    name: str
    size: int
    running: bool


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive bytes of a log file; `length` is that of the file, `first` and `last` mark its ends."""

    container: str
    file: str
    length: int
    data: bytes
    first: bool
    last: bool


def read_pieces(chunks: Iterable[bytes], *, tail: int | None = None) -> Iterator[Piece]:
    """The log files in a stream from YARN. With `tail`, each has at most that many of its last bytes.

    Raises OperationFailed with the number of bytes received if the stream ends within a log file or its header.
    """
    reader = _Reader(iter(chunks))
    container, fields = "", dict[bytes, bytes]()
    while True:
        line = reader.line()
        if line is None:
            if fields:
                raise OperationFailed(f"the log was cut off before {_text(fields.get(b'LogType'))} of {container}")
            return
        if header := _HEADER.search(line):
            container, fields = header["container"].decode(), {}
        elif line.strip() in _CONTENTS and b"LogLength" in fields:
            yield from _file(reader, container, fields, tail)
            fields = {}
        elif container and (field := _FIELD.match(line.strip())):
            fields[field["key"]] = field["value"].strip()


def _file(reader: _Reader, container: str, fields: dict[bytes, bytes], tail: int | None) -> Iterator[Piece]:
    name, length = _text(fields.get(b"LogType")), int(fields[b"LogLength"])
    remaining = length if tail is None else min(tail, length)
    expected, first = remaining, True
    if not remaining:
        yield Piece(container, name, length, b"", first=True, last=True)
    while remaining:
        data = reader.some(remaining)
        if not data:
            raise OperationFailed(
                f"log file {name} of {container} was cut off: received {expected - remaining} of {expected} bytes",
                hint="run the command again; the output is incomplete",
            )
        remaining -= len(data)
        yield Piece(container, name, length, data, first=first, last=not remaining)
        first = False


def _text(value: bytes | None) -> str:
    return (value or b"?").decode("utf-8", "replace")


class _Reader:
    """Lines and runs of bytes from chunks of any size."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._buffer = b""

    def line(self) -> bytes | None:
        """The next line; None at the end. A line that is too long for a header is returned in parts."""
        while b"\n" not in self._buffer and len(self._buffer) < _LONGEST_HEADER:
            more = next(self._chunks, None)
            if more is None:
                rest, self._buffer = self._buffer, b""
                return rest or None
            self._buffer += more
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def some(self, limit: int) -> bytes:
        """The next bytes, at most that many; empty at the end."""
        while not self._buffer:
            more = next(self._chunks, None)
            if more is None:
                return b""
            self._buffer = more
        data, self._buffer = self._buffer[:limit], self._buffer[limit:]
        return data
