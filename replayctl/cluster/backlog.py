"""Buffers data for a slow reader, first in memory and then in an unnamed temporary file."""

from __future__ import annotations

import tempfile
from collections import deque
from typing import IO

_IN_MEMORY_BYTES = 1 << 20
_PIECE = 1 << 18


class Backlog:
    """A queue of bytes."""

    def __init__(self) -> None:
        self._memory: deque[bytes | memoryview] = deque()
        self._in_memory = 0
        # Has the bytes after those in memory.
        self._file: IO[bytes] | None = None
        self._read_to = self._written_to = 0

    def __len__(self) -> int:
        return self._in_memory + self._written_to - self._read_to

    def append(self, content: bytes | memoryview) -> None:
        """Appends bytes. Raises OSError if the file cannot be written."""
        if self._written_to == self._read_to and self._in_memory + len(content) <= _IN_MEMORY_BYTES:
            self._memory.append(content)
            self._in_memory += len(content)
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="replayctl-", buffering=0)  # noqa: SIM115 - as long as the backlog
        self._file.seek(self._written_to)
        view = memoryview(content)
        while view:
            count = self._file.write(view)
            self._written_to += count
            view = view[count:]

    def take(self) -> bytes:
        """Removes and returns the oldest bytes, at most some hundred kilobytes; empty if there are none."""
        if self._memory:
            pieces = []
            size = 0
            while self._memory and size < _PIECE:
                pieces.append(self._memory.popleft())
                size += len(pieces[-1])
            self._in_memory -= size
            return b"".join(pieces)
        if self._file is None:
            return b""
        self._file.seek(self._read_to)
        piece = self._file.read(min(_PIECE, self._written_to - self._read_to))
        self._read_to += len(piece)
        if self._read_to == self._written_to:
            self.clear()
        return piece

    def clear(self) -> None:
        """Drops all bytes, and frees the file's space."""
        self._memory.clear()
        self._in_memory = self._read_to = self._written_to = 0
        if self._file is not None:
            self._file.close()
            self._file = None
