"""What a forwarder leaves behind when it ends in the middle of connections: nothing."""

import asyncio
import contextlib
import gc
import socket
import struct
import sys
from collections.abc import Awaitable, Callable

import pytest

from replayctl.cluster.api import Endpoint
from replayctl.errors import PortTaken
from replayctl.forwarding.connection import Connection
from replayctl.forwarding.forwarder import Forwarder, Listener
from tests.reporters import RecordingReporter

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
STEPS = range(24)


class Stream:
    """A pod's stream that answers at once, and ends."""

    def __init__(self) -> None:
        self.answers = [b"answer"]

    async def read(self) -> bytes:
        return self.answers.pop() if self.answers else b""

    async def write(self, data: bytes) -> None:
        await asyncio.sleep(0)

    async def close(self) -> None:
        await asyncio.sleep(0)


class Choice:
    """A pod, its tunnels, and the answers about its life."""

    def __init__(self) -> None:
        self.tunnels = self

    async def get(self) -> tuple[None, int]:
        return None, 80

    async def dial(self, pod: None, port: int) -> Stream:
        return Stream()

    async def has_just_died(self, pod: None) -> bool:
        await asyncio.sleep(0)
        return False


def end_after(steps: int, serve: Serve) -> list[bytes | None]:
    """Ends a forwarder the given number of steps of the event loop after its clients connected.

    Returns what each client received before the end of its connection; None if that was a reset.
    """
    received: list[bytes | None] = []

    async def work() -> None:
        clients = []
        async with Forwarder(None, RecordingReporter()) as forwarder:  # type: ignore[arg-type] # it asks no cluster
            listener = await forwarder.listen(Listener("web", Endpoint("ns", "svc", "web"), 0), serve)
            for _ in range(3):
                clients.append(socket.create_connection(("127.0.0.1", listener.port), timeout=5))
                clients[-1].sendall(b"request")
            for _ in range(steps):
                await asyncio.sleep(0)
        # The loop may have accepted a connection, and not have told the listener yet.
        for _ in range(5):
            await asyncio.sleep(0)
        assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for client in clients:
            with client:
                try:
                    received.append(client.recv(100))
                except ConnectionResetError:
                    received.append(None)

    asyncio.run(work())
    # Python reports transports that nobody closed when it collects them.
    gc.collect()
    return received


@pytest.mark.parametrize("steps", STEPS)
def test_every_connection_is_closed_wherever_the_end_finds_it(steps: int) -> None:
    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Connection("web", Choice(), reader, writer, RecordingReporter()).run()  # type: ignore[arg-type]

    assert set(end_after(steps, carry)) <= {b"answer", None}


@pytest.mark.parametrize("steps", range(8))
def test_a_listener_is_closed_though_its_opening_is_cancelled(steps: int) -> None:
    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def forward(port: int) -> None:
        async with Forwarder(None, RecordingReporter()) as forwarder:  # type: ignore[arg-type] # it asks no cluster
            await forwarder.listen(Listener("web", Endpoint("ns", "svc", "web"), port), carry)
            await asyncio.Event().wait()

    async def work() -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = free.getsockname()
        forwarding = asyncio.create_task(forward(address[1]))
        for _ in range(steps):
            await asyncio.sleep(0)
        forwarding.cancel()
        await asyncio.gather(forwarding, return_exceptions=True)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, timeout=5).close()

    asyncio.run(work())


def test_a_taken_port_is_refused() -> None:
    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def work() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            listener = Listener("web", Endpoint("ns", "svc", "web"), taken.getsockname()[1])
            async with Forwarder(None, RecordingReporter()) as forwarder:  # type: ignore[arg-type] # it asks no cluster
                with pytest.raises(PortTaken):
                    await forwarder.listen(listener, carry)

    asyncio.run(work())


class SilentStream(Stream):
    """A pod's stream that says nothing until it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = asyncio.Event()

    async def read(self) -> bytes:
        await self.closed.wait()
        return b""

    async def close(self) -> None:
        self.closed.set()


class FullStream(SilentStream):
    """A pod's stream that takes no data, either."""

    async def write(self, data: bytes) -> None:
        await self.closed.wait()


class SilentChoice(Choice):
    """A pod that accepts connections and does not answer."""

    def __init__(self, stream: type[SilentStream] = SilentStream) -> None:
        super().__init__()
        self.stream = stream
        self.streams: list[SilentStream] = []

    async def dial(self, pod: None, port: int) -> SilentStream:
        self.streams.append(self.stream())
        return self.streams[-1]

    async def has_died(self, pod: None) -> bool:
        return False


@pytest.mark.parametrize("is_reset", [False, True])
def test_a_client_that_leaves_ends_its_stream_to_a_silent_pod(is_reset: bool) -> None:
    choice = SilentChoice()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Connection("web", choice, reader, writer, RecordingReporter()).run()  # type: ignore[arg-type]

    async def work() -> None:
        async with Forwarder(None, RecordingReporter()) as forwarder:  # type: ignore[arg-type] # it asks no cluster
            listener = await forwarder.listen(Listener("web", Endpoint("ns", "svc", "web"), 0), carry)
            with socket.create_connection(("127.0.0.1", listener.port), timeout=5) as client:
                client.sendall(b"request")
                while not choice.streams:
                    await asyncio.sleep(0.01)
                if is_reset:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await asyncio.wait_for(choice.streams[0].closed.wait(), 10)

    asyncio.run(work())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells whether a client has left")
@pytest.mark.parametrize("is_reset", [False, True])
def test_a_client_that_leaves_ends_its_stream_to_a_pod_that_takes_no_data(is_reset: bool) -> None:
    choice = SilentChoice(FullStream)

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Connection("web", choice, reader, writer, RecordingReporter()).run()  # type: ignore[arg-type]

    async def work() -> None:
        async with Forwarder(None, RecordingReporter()) as forwarder:  # type: ignore[arg-type] # it asks no cluster
            listener = await forwarder.listen(Listener("web", Endpoint("ns", "svc", "web"), 0), carry)
            with socket.create_connection(("127.0.0.1", listener.port), timeout=5) as client:
                client.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    while True:
                        client.send(bytes(1 << 16))
                        await asyncio.sleep(0.01)
                # A client that only waits keeps its connection.
                await asyncio.sleep(2.5)
                assert not choice.streams[0].closed.is_set()
                if is_reset:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await asyncio.wait_for(choice.streams[0].closed.wait(), 10)

    asyncio.run(work())


def test_an_error_in_one_connection_resets_it_and_no_other() -> None:
    count = 0

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        if count == 1:
            raise RuntimeError("not foreseen")
        writer.write(b"answer")
        writer.close()

    assert end_after(50, carry) == [None, b"answer", b"answer"]
