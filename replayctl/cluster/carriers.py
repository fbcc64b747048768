"""WebSockets that carry connections to ports of pods.

With `SPDY/3.1+portforward.k8s.io` (since Kubernetes 1.31), one tunnel carries many connections, as in kubectl. Older
servers carry one connection per WebSocket (`v4.channel.k8s.io`: channel 0 has data, channel 1 errors; the first message
of each has the port's number). https://github.com/kubernetes/enhancements, KEP 4006.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time

from replayctl.cluster.pod_streams import Carrier, PodStream
from replayctl.cluster.spdy import Answer, Data, GoingAway, Replied, Reset, Session
from replayctl.cluster.websocket import DisconnectedError, WebSocket
from replayctl.errors import Unreachable

_DATA, _ERROR = 0, 1
_REPLY_WITHIN_S = 5.0
_SEND_BYTES = 1 << 16
# An error may arrive on its own stream a moment after the end of the data.
_ERROR_WITHIN_S = 2.0


class Channel(Carrier):
    """A WebSocket for a single connection."""

    def __init__(self, socket: WebSocket) -> None:
        self.stream = PodStream(self)
        self._headers = {_DATA, _ERROR}
        super().__init__(socket)

    @property
    def count(self) -> int:
        """Always 1."""
        return 1

    async def send(self, stream: PodStream, data: bytes) -> None:
        """Sends data; raises DisconnectedError."""
        for start in range(0, len(data), _SEND_BYTES):
            await self._socket.send(bytes([_DATA]) + data[start : start + _SEND_BYTES])

    async def leave(self, stream: PodStream) -> None:
        """Ends the WebSocket with its stream."""
        await self.close()

    def feed(self, message: bytes) -> bytes:
        """Data or an error."""
        if message:
            channel, content = message[0], memoryview(message)[1:]
            if channel in self._headers:
                self._headers.discard(channel)
                # The port's number, which data may follow in the same message.
                content = content[2:]
            if channel == _DATA:
                self.stream.take(content)
            elif channel == _ERROR:
                self.stream.blame(content)
        return b""

    def disconnected(self, error: DisconnectedError) -> None:
        """Ends the stream together with the WebSocket."""
        self.stream.end("" if error.clean else f"the stream to the pod was interrupted ({error})")


class Tunnel(Carrier):
    """A WebSocket with many connections to ports of one pod."""

    _requests = itertools.count()

    def __init__(self, socket: WebSocket) -> None:
        self._session = Session()
        self._data: dict[int, PodStream] = {}
        self._errors: dict[int, PodStream] = {}
        self._numbers: dict[PodStream, int] = {}
        self._replies: dict[int, asyncio.Future[None]] = {}
        self._ended_data: set[int] = set()
        self._idle_since = time.monotonic()
        self._left = asyncio.Event()
        super().__init__(socket)

    @property
    def count(self) -> int:
        """The number of open streams."""
        return len(self._data)

    @property
    def idle_for(self) -> float:
        """For how many seconds there has been no stream."""
        return 0.0 if self._data else time.monotonic() - self._idle_since

    async def idle(self) -> None:
        """Waits until there is no stream."""
        while self._data:
            self._left.clear()
            await self._left.wait()

    async def open(self, port: int) -> PodStream:
        """Opens a connection to a port of the pod. Raises Unreachable if the tunnel does not accept it."""
        names = {"port": str(port), "requestid": str(next(self._requests))}
        error, opens_error = self._session.open({"streamtype": "error", **names})
        data, opens_data = self._session.open({"streamtype": "data", **names})
        stream = PodStream(self)
        self._data[data] = self._errors[error] = stream
        self._numbers[stream] = data
        reply = self._replies[data] = asyncio.get_running_loop().create_future()
        try:
            frames = opens_error + self._session.data(error, b"", last=True) + opens_data
            # Must be sent completely: compression of later headers depends on these.
            await asyncio.shield(asyncio.ensure_future(self._socket.send(frames)))
            await asyncio.wait_for(reply, _REPLY_WITHIN_S)
        except (DisconnectedError, TimeoutError) as problem:
            self.is_usable = False
            self._forget(data)
            late = f"no answer within {_REPLY_WITHIN_S:.0f} s"
            reason = late if isinstance(problem, TimeoutError) else str(problem)
            raise Unreachable(f"the tunnel to the pod does not accept connections: {reason}") from None
        except asyncio.CancelledError:
            await stream.close()
            raise
        finally:
            self._replies.pop(data, None)
        return stream

    async def send(self, stream: PodStream, data: bytes) -> None:
        """Sends data of a stream; raises DisconnectedError."""
        number = self._numbers.get(stream)
        for start in range(0, len(data), _SEND_BYTES):
            if number is not None:
                await self._socket.send(self._session.data(number, data[start : start + _SEND_BYTES]))

    async def leave(self, stream: PodStream) -> None:
        """Resets the stream on the server, unless the server has ended it."""
        number = self._numbers.get(stream)
        if number is not None:
            self._forget(number)
            with contextlib.suppress(DisconnectedError):
                await self._socket.send(self._session.reset(number))

    def feed(self, message: bytes) -> bytes:
        """Frames, or parts of them."""
        answer = b""
        for event in self._session.feed(message):
            if isinstance(event, Data):
                self._take(event)
            elif isinstance(event, Replied):
                self._replied(event.stream)
            elif isinstance(event, Reset):
                self._was_reset(event.stream)
            elif isinstance(event, Answer):
                answer += event.frame
            elif isinstance(event, GoingAway):
                self.is_usable = False
        return answer

    def disconnected(self, error: DisconnectedError) -> None:
        """Ends all streams with an error."""
        for reply in self._replies.values():
            if not reply.done():
                reply.set_exception(error)
        for number, stream in list(self._data.items()):
            stream.end(f"the tunnel to the pod was interrupted ({error})")
            self._forget(number)

    def _take(self, event: Data) -> None:
        if (stream := self._data.get(event.stream)) is not None:
            stream.take(event.content)
            if event.last and event.stream - 2 not in self._errors:
                self._finish(event.stream)
            elif event.last:
                self._ended_data.add(event.stream)
                asyncio.get_running_loop().call_later(_ERROR_WITHIN_S, self._finish, event.stream)
        elif (stream := self._errors.get(event.stream)) is not None:
            stream.blame(event.content)
            if event.last:
                del self._errors[event.stream]
                if event.stream + 2 in self._ended_data:
                    self._finish(event.stream + 2)

    def _finish(self, number: int) -> None:
        """Ends a connection that the pod has closed, once no error can follow."""
        if (stream := self._data.get(number)) is not None:
            stream.end()
            self._forget(number)

    def _replied(self, number: int) -> None:
        reply = self._replies.get(number)
        if reply is not None and not reply.done():
            reply.set_result(None)

    def _was_reset(self, number: int) -> None:
        self._replied(number)
        if (stream := self._data.get(number)) is not None:
            stream.end("the node has reset the connection")
            self._forget(number)
        elif number in self._errors:
            del self._errors[number]

    def _forget(self, number: int) -> None:
        stream = self._data.pop(number, None)
        self._errors.pop(number - 2, None)
        self._ended_data.discard(number)
        if stream is not None:
            self._numbers.pop(stream, None)
            self.has_room(stream)
            self._idle_since = time.monotonic()
            self._left.set()
