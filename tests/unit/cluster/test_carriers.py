"""Tunnels and what reads from them, against the other side of a port-forward in memory."""

import asyncio
import struct
import tempfile
import zlib
from collections.abc import Awaitable, Callable

import pytest

from replayctl.cluster import pod_streams
from replayctl.cluster.carriers import Tunnel
from replayctl.cluster.pod_streams import BrokenStreamError, PodStream
from replayctl.cluster.spdy import DICTIONARY, Session
from replayctl.cluster.websocket import DisconnectedError
from replayctl.errors import Unreachable

from .test_spdy import control


class Node:
    """A node's side of one tunnel, in the place of its WebSocket: notes what comes, says what it is told to."""

    def __init__(self, *, replies: bool = True) -> None:
        self.replies = replies
        self.opened: list[tuple[int, dict[str, str]]] = []
        self.received: dict[int, bytes] = {}
        self.resets: list[int] = []
        self.pongs: list[bytes] = []
        self.taken = 0
        self._said: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._headers = zlib.decompressobj(zdict=DICTIONARY)

    def say(self, frame: bytes) -> None:
        self._said.put_nowait(frame)

    def break_off(self) -> None:
        self._said.put_nowait(None)

    async def receive(self) -> bytes:
        message = await self._said.get()
        if message is None:
            raise DisconnectedError("cut", clean=True)
        self.taken += len(message)
        return message

    async def send(self, frames: bytes) -> None:
        while frames:
            first, second = struct.unpack_from(">II", frames)
            length = second & 0xFFFFFF
            payload, frames = frames[8 : 8 + length], frames[8 + length :]
            if not first >> 31:
                self.received[first] = self.received.get(first, b"") + payload
            elif first & 0xFFFF == 1:
                self._open(payload)
            elif first & 0xFFFF == 3:
                self.resets.append(struct.unpack_from(">I", payload)[0])
            elif first & 0xFFFF == 6:
                self.pongs.append(payload)

    def _open(self, payload: bytes) -> None:
        (stream,) = struct.unpack_from(">I", payload)
        block = self._headers.decompress(payload[10:])
        (count,), position, texts = struct.unpack_from(">I", block), 4, []
        for _ in range(2 * count):
            (size,) = struct.unpack_from(">I", block, position)
            texts.append(block[position + 4 : position + 4 + size].decode())
            position += 4 + size
        self.opened.append((stream, dict(zip(texts[::2], texts[1::2], strict=True))))
        if self.replies:
            self.say(control(2, struct.pack(">I", stream)))

    async def close(self) -> None:
        self.break_off()


def run(conversation: Callable[[Node, Tunnel], Awaitable[None]], *, replies: bool = True) -> None:
    async def work() -> None:
        node = Node(replies=replies)
        tunnel = Tunnel(node)  # type: ignore[arg-type]
        try:
            await asyncio.wait_for(conversation(node, tunnel), 20)
        finally:
            await tunnel.close()

    asyncio.run(work())


def test_many_connections_share_a_tunnel() -> None:
    async def talk(node: Node, tunnel: Tunnel) -> None:
        one, two = await asyncio.gather(tunnel.open(8000), tunnel.open(8000))
        kinds = [headers["streamtype"] for _, headers in node.opened]
        assert kinds == ["error", "data"] * 2
        assert {headers["port"] for _, headers in node.opened} == {"8000"}
        requests = [headers["requestid"] for _, headers in node.opened]
        assert requests[0] == requests[1] != requests[2] == requests[3]
        await two.write(b"for two")
        await one.write(b"for one")
        assert node.received == {1: b"", 5: b"", 3: b"for one", 7: b"for two"}
        node.say(Session.data(7, b"two says") + Session.data(3, b"one"))
        node.say(Session.data(3, b" says", last=True) + Session.data(1, b"", last=True))
        assert await two.read() == b"two says"
        assert await one.read() + await one.read() == b"one says"
        assert await one.read() == b""
        assert tunnel.count == 1
        node.say(control(6, struct.pack(">I", 2)))
        await two.close()
        assert node.resets == [7]
        while not node.pongs:
            await asyncio.sleep(0.01)
        assert tunnel.count == 0

    run(talk)


def test_only_the_beginning_of_an_error_is_kept() -> None:
    async def talk(node: Node, tunnel: Tunnel) -> None:
        stream = await tunnel.open(1)
        for _ in range(50):
            node.say(Session.data(1, b"refused: " + b"x" * (1 << 16)))
        node.say(Session.data(1, b"", last=True) + Session.data(3, b"", last=True))
        with pytest.raises(BrokenStreamError, match=r"^refused: x+$") as excinfo:
            await stream.read()
        assert len(str(excinfo.value)) <= 4096

    run(talk)


def test_an_error_counts_though_it_comes_after_the_end() -> None:
    async def talk(node: Node, tunnel: Tunnel) -> None:
        stream = await tunnel.open(1)
        node.say(Session.data(3, b"a part", last=True))
        node.say(Session.data(1, b"connection refused") + Session.data(1, b"", last=True))
        assert await stream.read() == b"a part"
        with pytest.raises(BrokenStreamError, match="connection refused"):
            await stream.read()
        other = await tunnel.open(1)
        node.say(control(3, struct.pack(">II", 7, 2)))
        with pytest.raises(BrokenStreamError, match="reset"):
            await other.read()

    run(talk)


def test_no_stream_of_a_broken_tunnel_ends_well() -> None:
    async def talk(node: Node, tunnel: Tunnel) -> None:
        one, two = await tunnel.open(1), await tunnel.open(1)
        node.say(Session.data(3, b"a part"))
        node.break_off()
        assert await one.read() == b"a part"
        for stream in (one, two):
            with pytest.raises(BrokenStreamError, match="was interrupted"):
                await stream.read()
        assert not tunnel.is_usable

    run(talk)


def test_a_node_that_does_not_take_connections_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replayctl.cluster.carriers._REPLY_WITHIN_S", 0.1)

    async def talk(node: Node, tunnel: Tunnel) -> None:
        with pytest.raises(Unreachable, match="no answer within"):
            await tunnel.open(1)
        assert (tunnel.is_usable, tunnel.count) == (False, 0)

    run(talk, replies=False)


def test_an_opening_that_is_given_up_leaves_the_next_ones_whole() -> None:
    async def talk(node: Node, tunnel: Tunnel) -> None:
        node.replies = False
        for delay in (0.0, 0.01):
            opening = asyncio.create_task(tunnel.open(1))
            await asyncio.sleep(delay)
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
        node.replies = True
        await tunnel.open(2)
        assert node.opened[-1][1]["port"] == "2"
        assert tunnel.count == 1

    run(talk)


BLOCK = bytes(range(256)) * 256


def test_a_reader_that_stops_holds_back_its_tunnel_only_while_it_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pod_streams, "_PATIENCE_S", 0.05)
    files: list[int] = []
    make = tempfile.TemporaryFile
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda *words, **options: files.append(1) or make(*words, **options))

    async def talk(node: Node, tunnel: Tunnel) -> None:
        stopped = await tunnel.open(1)
        for _ in range(64):
            node.say(Session.data(3, BLOCK))
        await asyncio.sleep(0.3)
        assert node.taken < 1_000_000
        assert files == []
        other = await tunnel.open(1)
        node.say(Session.data(7, b"hello"))
        assert await other.read() == b"hello"
        assert files
        received = bytearray()
        while len(received) < 64 * len(BLOCK):
            received += await stopped.read()
        assert received == BLOCK * 64

    run(talk)


def test_a_reader_that_stops_is_fed_a_little_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else servers close its connection, since nothing moves on it."""
    monkeypatch.setattr(pod_streams, "_TRICKLE_EVERY_S", 0.1)
    monkeypatch.setattr(pod_streams, "_TRICKLE_BYTES", len(BLOCK))
    monkeypatch.setattr(pod_streams, "_MOST_KEPT_BYTES", 40 * len(BLOCK))

    async def talk(node: Node, tunnel: Tunnel) -> None:
        stopped = await tunnel.open(1)
        for _ in range(64):
            node.say(Session.data(3, BLOCK))
        times = []
        while not times or times[-1] < 30 * len(BLOCK):
            await asyncio.sleep(0.1)
            times.append(node.taken)
        assert len(set(times)) > 3
        # To a limit.
        await asyncio.sleep(2.0)
        assert node.taken < 45 * len(BLOCK)
        received = bytearray()
        while len(received) < 64 * len(BLOCK):
            received += await stopped.read()
        assert received == BLOCK * 64

    run(talk)


def test_no_room_for_a_slow_reader_is_an_error_of_that_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pod_streams, "_PATIENCE_S", 0.01)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)

    async def talk(node: Node, tunnel: Tunnel) -> None:
        stopped, other = await tunnel.open(1), await tunnel.open(1)
        for _ in range(64):
            node.say(Session.data(3, BLOCK))
        node.say(Session.data(7, b"hello"))
        assert await other.read() == b"hello"
        with pytest.raises(BrokenStreamError, match="No space left on device"):
            await read_all(stopped)

    run(talk)


async def read_all(stream: PodStream) -> bytes:
    text = b""
    while data := await stream.read():
        text += data
    return text
