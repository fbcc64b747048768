"""The text in which YARN hands out logs, as bytes of files: the same from its web services and from `yarn logs`.

Each file comes with its length in front, which is the only thing to go by: a log may contain any words, and a stream
that was cut off ends somewhere in the middle without a sign.
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
    """One log file of one container: its size in bytes, and whether the container still runs."""

    container: str
    node: str
    name: str
    size: int
    running: bool


@dataclass(frozen=True, slots=True)
class Piece:
    """Some bytes of one container's file, in order; `length` is the file's, `first` and `last` mark its ends."""

    container: str
    file: str
    length: int
    data: bytes
    first: bool
    last: bool


def read_pieces(chunks: Iterable[bytes], *, tail: int | None = None) -> Iterator[Piece]:
    """The files in a stream of YARN's. With `tail`, each has at most that many of its last bytes.

    Raises OperationFailed that says how much came when the stream ends before a file does, or before its first one was
    told whole.
    """
    reader = _Reader(iter(chunks))
    container, fields = "", dict[bytes, bytes]()
    while True:
        line = reader.line()
        if line is None:
            if fields:
                raise OperationFailed(f"the log was cut off in front of {_text(fields.get(b'LogType'))} of {container}")
            return
        if found := _HEADER.search(line):
            container, fields = found["container"].decode(), {}
        elif line.strip() in _CONTENTS and b"LogLength" in fields:
            yield from _file(reader, container, fields, tail)
            fields = {}
        elif container and (field := _FIELD.match(line.strip())):
            fields[field["key"]] = field["value"].strip()


def _file(reader: _Reader, container: str, fields: dict[bytes, bytes], tail: int | None) -> Iterator[Piece]:
    name, length = _text(fields.get(b"LogType")), int(fields[b"LogLength"])
    left = length if tail is None else min(tail, length)
    wanted, first = left, True
    if not left:
        yield Piece(container, name, length, b"", first=True, last=True)
    while left:
        data = reader.some(left)
        if not data:
            raise OperationFailed(
                f"the log {name} of {container} was cut off: {wanted - left} of {wanted} bytes came",
                hint="what came is not all; give the command again",
            )
        left -= len(data)
        yield Piece(container, name, length, data, first=first, last=not left)
        first = False


def _text(value: bytes | None) -> str:
    return (value or b"?").decode("utf-8", "replace")


class _Reader:
    """Lines and runs of bytes from chunks of any size."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._buffer = b""

    def line(self) -> bytes | None:
        """The next line; None at the end. One that is too long for a header comes in parts."""
        while b"\n" not in self._buffer and len(self._buffer) < _LONGEST_HEADER:
            more = next(self._chunks, None)
            if more is None:
                rest, self._buffer = self._buffer, b""
                return rest or None
            self._buffer += more
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def some(self, most: int) -> bytes:
        """The next bytes, at most so many; empty at the end."""
        while not self._buffer:
            more = next(self._chunks, None)
            if more is None:
                return b""
            self._buffer = more
        data, self._buffer = self._buffer[:most], self._buffer[most:]
        return data
