"""Text streams that accept every character, and streams whose reader has exited."""

from __future__ import annotations

import io
import os
import select
from typing import TextIO


class Stream:
    """A text stream, open or closed, that accepts every character: those outside its encoding are escaped."""

    def __init__(self, stream: TextIO | None) -> None:
        # Python has no stream object where the caller closed the descriptor.
        self.stream: TextIO = stream if stream is not None else io.StringIO()

    def write(self, text: str) -> None:
        """Write text, buffered by the stream."""
        if not self.can_show(text):
            text = text.encode(self.encoding, "backslashreplace").decode(self.encoding)
        self.stream.write(text)

    def write_bytes(self, data: bytes) -> None:
        """Write bytes unchanged and unbuffered."""
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
        """Flush the buffer. Raises OSError."""
        self.stream.flush()

    def isatty(self) -> bool:
        """Whether the stream is a terminal."""
        return self.stream.isatty()

    @property
    def encoding(self) -> str:
        """The encoding in which characters are written."""
        return getattr(self.stream, "encoding", None) or "utf-8"


def reader_is_gone() -> bool:
    """Whether the reader of stdout or stderr has exited, so that a broken pipe is not an error."""
    poll = select.poll()
    for descriptor in (1, 2):
        poll.register(descriptor, select.POLLOUT)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def silence() -> None:
    """Discard what is buffered for stdout, so that the interpreter's last flush cannot fail."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
