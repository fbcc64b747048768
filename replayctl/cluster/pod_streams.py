"""Connections to ports of pods, and what carries them.

Neither protocol of port-forward has flow control. If a reader stops, its carrier stops reading if it has no other
streams; otherwise, the reader's data is buffered in a file, so that the other streams continue. A carrier with a single
stream still reads a little from time to time, since servers close idle connections.
"""

from __future__ import annotations

import asyncio
import contextlib

from replayctl.cluster.backlog import Backlog
from replayctl.cluster.spdy import SpdyError
from replayctl.cluster.websocket import DisconnectedError, WebSocket

# When a stream counts as full, how long the others wait for it, and how much it may buffer at most.
_FULL_BYTES = 1 << 19
_PATIENCE_S = 0.2
_MOST_KEPT_BYTES = 1 << 30
_LONGEST_ERROR = 4096
_TRICKLE_EVERY_S, _TRICKLE_BYTES = 5.0, 1 << 20


class BrokenStreamError(Exception):
    """A connection to a pod has ended with an error, or was cut: its data may be incomplete."""


class PodStream:
    """One connection to a port of a pod. `read` belongs to one task; `write` and `close` may come from any."""

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier
        self._backlog = Backlog()
        self._news = asyncio.Event()
        self._ended = False
        self._trouble = ""
        self.is_patient = True

    @property
    def unread(self) -> int:
        """The number of received bytes that were not read yet."""
        return len(self._backlog)

    async def read(self) -> bytes:
        """Some bytes; empty once the pod has closed the stream. Raises BrokenStreamError for any other end."""
        while not self._backlog:
            if self._ended:
                if self._trouble:
                    raise BrokenStreamError(self._trouble.strip())
                return b""
            self._news.clear()
            await self._news.wait()
        data = self._backlog.take()
        if len(self._backlog) <= _FULL_BYTES // 2:
            self.is_patient = True
            self._carrier.has_room(self)
        return data

    async def write(self, data: bytes) -> None:
        """Sends bytes, and waits while too much is unsent. After the end, bytes are dropped; `read` has the reason."""
        if not self._ended:
            with contextlib.suppress(DisconnectedError):
                await self._carrier.send(self, data)

    async def close(self) -> None:
        """Ends the connection, both ways."""
        self.end()
        self._backlog.clear()
        await self._carrier.leave(self)

    def take(self, content: memoryview) -> None:
        """Receives bytes from the pod."""
        if self._ended or not content:
            return
        try:
            self._backlog.append(content)
        except OSError as error:
            self.end(f"cannot buffer unread data: {error.strerror}")
            return
        self._news.set()
        if len(self._backlog) > _FULL_BYTES:
            self._carrier.is_full(self)

    def blame(self, words: memoryview) -> None:
        """Receives the text of an error, and keeps its beginning."""
        self._trouble += bytes(words[: _LONGEST_ERROR - len(self._trouble)]).decode("utf-8", "replace")

    def end(self, trouble: str = "") -> None:
        """Ends the stream, with an error if `trouble` is not empty."""
        if not self._ended:
            self._trouble = self._trouble or trouble
            self._ended = True
            self._news.set()
            self._carrier.has_room(self)


class Carrier:
    """A WebSocket with connections on it; ends them all when it ends."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._full: set[PodStream] = set()
        self._room = asyncio.Event()
        self._allowance = 0
        self.is_usable = True
        self._reading = asyncio.create_task(self._read())

    async def send(self, stream: PodStream, data: bytes) -> None:
        """Sends data of a stream; raises DisconnectedError."""
        raise NotImplementedError

    async def leave(self, stream: PodStream) -> None:
        """Ends a stream from this side."""
        raise NotImplementedError

    @property
    def count(self) -> int:
        """The number of open streams."""
        raise NotImplementedError

    def feed(self, message: bytes) -> bytes:
        """Passes a message to its stream; returns what must be sent back."""
        raise NotImplementedError

    def disconnected(self, error: DisconnectedError) -> None:
        """The WebSocket has ended."""
        raise NotImplementedError

    @property
    def load(self) -> tuple[bool, int]:
        """A sort key for new streams, the best carrier first: whether a stream is full, and the number of streams."""
        return bool(self._full), self.count

    def is_full(self, stream: PodStream) -> None:
        """A stream has too much unread data."""
        self._full.add(stream)

    def has_room(self, stream: PodStream) -> None:
        """A stream has been read, or has ended."""
        if stream in self._full:
            self._full.discard(stream)
            self._room.set()

    async def close(self) -> None:
        """Closes the WebSocket; its streams break."""
        self.is_usable = False
        await self._socket.close()
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        self.disconnected(DisconnectedError("closed", clean=False))

    async def _read(self) -> None:
        try:
            while True:
                message = await self._socket.receive()
                self._allowance -= len(message)
                if answer := self.feed(message):
                    await self._socket.send(answer)
                if self._full:
                    await self._hold_back()
        except DisconnectedError as error:
            self.is_usable = False
            self.disconnected(error)
        except SpdyError as error:
            self.is_usable = False
            self.disconnected(DisconnectedError(str(error), clean=False))
            await self._socket.close()

    async def _hold_back(self) -> None:
        """Waits for slow readers, as long as no other stream has to wait for them."""
        while self._full and self._allowance <= 0:
            at_most = max(stream.unread for stream in self._full) >= _MOST_KEPT_BYTES
            if at_most or len(self._full) >= self.count:
                if not await self._room_within(_TRICKLE_EVERY_S) and not at_most:
                    self._allowance = _TRICKLE_BYTES
            elif impatient := [stream for stream in self._full if stream.is_patient]:
                if not await self._room_within(_PATIENCE_S):
                    for stream in impatient:
                        stream.is_patient = False
            else:
                return

    async def _room_within(self, seconds: float) -> bool:
        self._room.clear()
        try:
            await asyncio.wait_for(self._room.wait(), seconds)
        except TimeoutError:
            return False
        return True
