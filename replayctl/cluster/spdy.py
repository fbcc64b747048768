"""SPDY/3.1 framing for port-forward, client side only: the client opens streams, and the server answers on them.

Does no I/O: bytes go in and come out. Headers of the server are ignored, since nothing in them matters, and so is flow
control, which the servers (moby/spdystream) do not have.
https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_SYN_STREAM, _SYN_REPLY, _RST_STREAM, _PING, _GOAWAY = 1, 2, 3, 6, 7
_CONTROL, _VERSION, _FIN = 0x8000, 3, 0x01
_CANCEL = 5
_HEADER = struct.Struct(">II")
_LARGEST_CONTROL_FRAME = 1 << 20

# The dictionary for the compression of headers, section 2.6.10.1: words with their lengths, then plain text.
_WORDS = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow "
    "authorization cache-control connection content-base content-encoding content-language content-length "
    "content-location content-md5 content-range content-type date etag expect expires from host if-match "
    "if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma "
    "proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade "
    "user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie "
    "keep-alive origin"
)
_TEXT = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden"
    "404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,"
    "publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)


def _counted(text: str) -> bytes:
    return struct.pack(">I", len(text.encode())) + text.encode()


DICTIONARY = b"".join(_counted(word.replace("_", " ")) for word in _WORDS.split()) + _TEXT.encode("ascii")


class SpdyError(Exception):
    """The server has violated the protocol."""


@dataclass(frozen=True, slots=True)
class Replied:
    """The server has accepted a stream; data sent before that is lost."""

    stream: int


@dataclass(frozen=True, slots=True)
class Data:
    """Data of the server on a stream; `last` if nothing follows."""

    stream: int
    content: memoryview
    last: bool


@dataclass(frozen=True, slots=True)
class Reset:
    """The server has aborted a stream, or refused it."""

    stream: int
    status: int


@dataclass(frozen=True, slots=True)
class Answer:
    """Bytes that must be sent back."""

    frame: bytes


@dataclass(frozen=True, slots=True)
class GoingAway:
    """The server accepts no more streams."""


Event = Replied | Data | Reset | Answer | GoingAway


class Session:
    """The client's side of one connection."""

    def __init__(self) -> None:
        self._headers = zlib.compressobj(zdict=DICTIONARY)
        self._next_stream = 1
        self._waiting = bytearray()
        # The data frame being received: its stream, its remaining bytes, and whether it is the last one of the stream.
        self._stream, self._left, self._last = 0, 0, False

    def open(self, headers: Mapping[str, str]) -> tuple[int, bytes]:
        """A new stream's number, and the frame that opens it. These frames must be sent in the order of the numbers."""
        stream = self._next_stream
        self._next_stream += 2
        block = struct.pack(">I", len(headers)) + b"".join(
            _counted(name.lower()) + _counted(value) for name, value in headers.items()
        )
        packed = self._headers.compress(block) + self._headers.flush(zlib.Z_SYNC_FLUSH)
        return stream, _control(_SYN_STREAM, struct.pack(">IIH", stream, 0, 0) + packed)

    @staticmethod
    def data(stream: int, content: bytes, *, last: bool = False) -> bytes:
        """A frame of data, of less than 16 MiB."""
        return _HEADER.pack(stream, (_FIN if last else 0) << 24 | len(content)) + content

    @staticmethod
    def reset(stream: int) -> bytes:
        """The frame that ends a stream at once, both ways."""
        return _control(_RST_STREAM, struct.pack(">II", stream, _CANCEL))

    def feed(self, received: bytes) -> Iterator[Event]:
        """Parses received bytes. Yields data as it arrives, other frames once they are complete. Raises SpdyError."""
        if self._waiting:
            received = bytes(self._waiting) + received
            self._waiting.clear()
        view = memoryview(received)
        while view:
            if self._left:
                content, view = view[: self._left], view[self._left :]
                self._left -= len(content)
                yield Data(self._stream, content, self._last and not self._left)
                continue
            if len(view) < _HEADER.size:
                break
            first, second = _HEADER.unpack_from(view)
            flags, length = second >> 24, second & 0xFFFFFF
            if not first >> 31:
                self._stream, self._left, self._last = first, length, bool(flags & _FIN)
                view = view[_HEADER.size :]
                if not length:
                    yield Data(first, view[:0], self._last)
                continue
            if first >> 16 != _CONTROL | _VERSION or length > _LARGEST_CONTROL_FRAME:
                raise SpdyError(f"a frame begins with {first:#010x}, {length} bytes")
            end = _HEADER.size + length
            if len(view) < end:
                break
            yield from _meaning(first & 0xFFFF, flags, bytes(view[_HEADER.size : end]))
            view = view[end:]
        self._waiting += view


def _control(kind: int, payload: bytes) -> bytes:
    return struct.pack(">HHI", _CONTROL | _VERSION, kind, len(payload)) + payload


def _meaning(kind: int, flags: int, payload: bytes) -> Iterator[Event]:
    try:
        if kind == _SYN_REPLY:
            (stream,) = struct.unpack_from(">I", payload)
            yield Replied(stream)
            if flags & _FIN:
                yield Data(stream, memoryview(b""), True)
        elif kind == _RST_STREAM:
            yield Reset(*struct.unpack_from(">II", payload))
        elif kind == _PING:
            (number,) = struct.unpack_from(">I", payload)
            # Even numbers are pings of the server, which must be echoed.
            if number % 2 == 0:
                yield Answer(_control(_PING, payload))
        elif kind == _GOAWAY:
            yield GoingAway()
    except struct.error as error:
        raise SpdyError(f"a frame of kind {kind} has only {len(payload)} bytes") from error
