"""Text streams that take every character, and what becomes of them when nobody reads any more."""

from __future__ import annotations

import io
import os
import select
from typing import TextIO


class Stream:
    """A text stream, open or not, that takes every character: what its encoding lacks is written as an escape."""

    def __init__(self, stream: TextIO | None) -> None:
        # Python has no stream at all where the caller closed it.
        self.stream: TextIO = stream if stream is not None else io.StringIO()

    def write(self, text: str) -> None:
        """Text, buffered as the stream does it."""
        if not self.can_show(text):
            text = text.encode(self.encoding, "backslashreplace").decode(self.encoding)
        self.stream.write(text)

    def write_bytes(self, data: bytes) -> None:
        """Bytes as they are, at once."""
        self.stream.flush()
        buffer = getattr(self.stream, "buffer", None)
        if buffer is None:
            self.stream.write(data.decode("utf-8", "backslashreplace"))
            return
        buffer.write(data)
        buffer.flush()

    def can_show(self, text: str) -> bool:
        """Whether the stream's encoding has all characters of the text."""
        try:
            text.encode(self.encoding)
        except UnicodeEncodeError:
            return False
        return True

    def flush(self) -> None:
        """Hands what is buffered to the reader; OSError when it cannot be."""
        self.stream.flush()

    def isatty(self) -> bool:
        """Whether a terminal reads it."""
        return self.stream.isatty()

    @property
    def encoding(self) -> str:
        """The encoding in which characters are written."""
        return getattr(self.stream, "encoding", None) or "utf-8"


def reader_is_gone() -> bool:
    """Whether stdout or stderr is a pipe that nobody reads any more: then a broken pipe is no failure of ours."""
    poll = select.poll()
    for descriptor in (1, 2):
        poll.register(descriptor, select.POLLOUT)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def silence() -> None:
    """Sends what is still buffered for stdout nowhere, so that the interpreter's last flush cannot fail."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
