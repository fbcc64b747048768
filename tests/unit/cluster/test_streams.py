"""exec and its ends, against a server that speaks and fails as no real one can be made to."""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from http import HTTPStatus

import pytest
from websockets.asyncio.server import Request, Response, ServerConnection, serve
from websockets.typing import Subprotocol

from replayctl.cluster.api import Kubernetes, Pod
from replayctl.cluster.kubeconfig import ClusterAccess
from replayctl.cluster.streams import Executed, execute
from replayctl.cluster.tunnels import Tunnels
from replayctl.cluster.websocket import DisconnectedError, WebSocket, open_websocket
from replayctl.errors import AuthFailed, NotFound, OperationFailed, TimedOut, Unreachable

POD = Pod("ns", "pod", ("main",), True, "Running", {})
SUCCESS = json.dumps({"status": "Success"}).encode()
Talk = Callable[[ServerConnection], Awaitable[None]]


@contextlib.contextmanager
def cluster(
    talk: Talk, protocols: Sequence[str] = ("v4.channel.k8s.io",), refusal: tuple[HTTPStatus, dict] | None = None
) -> Iterator[tuple[Kubernetes, list[Request]]]:
    """An API server of one endpoint in a thread of its own, and the requests that it gets."""
    loop, requests, ready, port = asyncio.new_event_loop(), list[Request](), threading.Event(), list[int]()

    def look(connection: ServerConnection, request: Request) -> Response | None:
        requests.append(request)
        # As a server that does not know of tunnels reads it; this one stumbles over the name.
        offered = request.headers.pop("Sec-WebSocket-Protocol").split(", ")
        request.headers["Sec-WebSocket-Protocol"] = ", ".join(protocol for protocol in offered if "/" not in protocol)
        if refusal is None:
            return None
        return connection.respond(refusal[0], json.dumps(refusal[1]))

    async def work() -> None:
        offered = [Subprotocol(protocol) for protocol in protocols]
        async with serve(talk, "127.0.0.1", 0, subprotocols=offered, process_request=look, compression=None) as server:
            port.append(server.sockets[0].getsockname()[1])
            ready.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    task = loop.create_task(work())
    thread = threading.Thread(target=lambda: loop.run_until_complete(task), daemon=True)
    thread.start()
    try:
        assert ready.wait(10)
        access = ClusterAccess(
            f"http://127.0.0.1:{port[0]}", "test", "ns", None, lambda: [("Authorization", "Bearer t")]
        )
        yield Kubernetes(access), requests
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(10)
        loop.close()


def run(kubernetes: Kubernetes, **options: object) -> tuple[Executed, bytes, bytes]:
    out, err = bytearray(), bytearray()
    result = execute(kubernetes, POD, "main", ["program", "a b"], on_stdout=out.extend, on_stderr=err.extend, **options)  # type: ignore[arg-type]
    return result, bytes(out), bytes(err)


async def answers(connection: ServerConnection) -> None:
    text = "ж".encode()
    for message in (b"\x01" + text[:1], b"\x02wrong", b"", b"\x01", b"\x01" + text[1:], b"\x03" + SUCCESS):
        await connection.send(message)


def test_an_older_server_gets_its_own_protocol() -> None:
    with cluster(answers) as (kubernetes, requests):
        assert run(kubernetes) == (Executed(0, 2, 5), "ж".encode(), b"wrong")
    assert "v5.channel.k8s.io, v4.channel.k8s.io" in requests[0].headers["Sec-WebSocket-Protocol"]
    assert "command=program&command=a+b" in requests[0].path
    assert "stdin" not in requests[0].path


def test_an_older_server_cannot_learn_where_stdin_ends() -> None:
    with cluster(answers) as (kubernetes, _), pytest.raises(OperationFailed, match="closing stdin"):
        run(kubernetes, stdin=b"x")


def test_a_newer_server_learns_where_stdin_ends() -> None:
    frames: list[bytes] = []

    async def talk(connection: ServerConnection) -> None:
        while not frames or frames[-1] != b"\xff\x00":
            frames.append(bytes(await connection.recv()))  # type: ignore[arg-type]
        await connection.send(b"\x03" + SUCCESS)

    with cluster(talk, ("v5.channel.k8s.io", "v4.channel.k8s.io")) as (kubernetes, _):
        assert run(kubernetes, stdin=b"y" * 100_000)[0].exit_code == 0
    assert b"".join(frame[1:] for frame in frames[:-1]) == b"y" * 100_000
    assert {frame[0] for frame in frames[:-1]} == {0}


async def closed(connection: ServerConnection) -> None:
    await connection.close()


async def dropped(connection: ServerConnection) -> None:
    connection.transport.abort()


@pytest.mark.parametrize("end", [closed, dropped])
def test_an_end_without_a_status_says_how_much_came(end: Talk) -> None:
    async def talk(connection: ServerConnection) -> None:
        for _ in range(64):
            await connection.send(b"\x01" + b"x" * 500_000)
        await connection.send(b"\x02yy")
        await end(connection)

    with (
        cluster(talk) as (kubernetes, _),
        pytest.raises(Unreachable, match=r"after \d+ bytes of stdout and \d of stderr"),
    ):
        run(kubernetes)


def test_a_status_that_came_counts_though_the_connection_breaks_then() -> None:
    async def talk(connection: ServerConnection) -> None:
        failed = {"status": "Failure", "details": {"causes": [{"reason": "ExitCode", "message": "7"}]}}
        await connection.send(b"\x03" + json.dumps(failed).encode())
        connection.transport.abort()

    with cluster(talk) as (kubernetes, _):
        # The status may be lost with the connection, and is an error then.
        try:
            assert run(kubernetes)[0].exit_code == 7
        except Unreachable as error:
            assert "0 bytes of stdout" in str(error)  # noqa: PT017 - one of two right ends


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ({"status": "Failure", "message": "no such file"}, "program cannot be run in pod ns/pod"),
        ({"status": "Failure", "message": "x", "details": {"causes": []}}, "program cannot be run"),
        (None, "an invalid status"),
    ],
)
def test_a_program_that_did_not_run_has_no_exit_code(status: dict | None, words: str) -> None:
    async def talk(connection: ServerConnection) -> None:
        await connection.send(b"\x03" + (b"<html>" if status is None else json.dumps(status).encode()))

    with cluster(talk) as (kubernetes, _), pytest.raises(OperationFailed, match=words):
        run(kubernetes)


def test_a_silent_server_is_given_up_on_time() -> None:
    async def talk(connection: ServerConnection) -> None:
        await connection.send(b"\x01first")
        await connection.wait_closed()

    with cluster(talk) as (kubernetes, _), pytest.raises(TimedOut, match=r"did not end within 0\.5 s"):
        run(kubernetes, timeout_s=0.5)


@pytest.mark.parametrize(
    ("code", "message", "error", "words"),
    [
        (401, "Unauthorized", AuthFailed, "does not accept your credentials"),
        (
            403,
            'pods "pod" is forbidden: User "alice" cannot create resource "pods/exec" in the namespace "ns"',
            AuthFailed,
            "alice may not create pods/exec in namespace ns",
        ),
        (404, 'pods "pod" not found', NotFound, "does not exist"),
        (500, "container is waiting", OperationFailed, "status 500"),
    ],
)
def test_a_refused_handshake_says_what_is_missing(code: int, message: str, error: type[Exception], words: str) -> None:
    body = (HTTPStatus(code), {"kind": "Status", "message": message})
    with cluster(answers, refusal=body) as (kubernetes, _), pytest.raises(error, match=words):
        run(kubernetes)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replayctl.cluster.websocket._PING_EVERY_S", 0.05)
    monkeypatch.setattr("replayctl.cluster.websocket._SILENT_FOR_S", 0.5)


@pytest.mark.usefixtures("impatient")
def test_a_reader_may_pause_for_longer_than_a_server_may_be_silent() -> None:
    size, count = 100_000, 400

    async def talk(connection: ServerConnection) -> None:
        for _ in range(count):
            await connection.send(b"\x01" + b"x" * size)
        await connection.send(b"\x03" + SUCCESS)

    received = [0]

    def take(data: bytes) -> None:
        if not received[0]:
            time.sleep(2.0)
        received[0] += len(data)

    with cluster(talk) as (kubernetes, _):
        result = execute(kubernetes, POD, "main", ["program"], on_stdout=take, on_stderr=lambda _: None)
    assert received[0] == size * count
    assert result == Executed(0, size * count, 0)


@pytest.mark.usefixtures("impatient")
def test_pings_are_answered_while_the_reader_pauses() -> None:
    pongs: list[float] = []

    async def talk(connection: ServerConnection) -> None:
        await connection.send(b"\x01x")
        for _ in range(3):
            started = time.monotonic()
            await (await connection.ping())
            pongs.append(time.monotonic() - started)
        await connection.send(b"\x03" + SUCCESS)

    def take(_: bytes) -> None:
        deadline = time.monotonic() + 10
        while len(pongs) < 3:
            assert time.monotonic() < deadline, "no answer while the reader pauses"
            time.sleep(0.01)

    with cluster(talk) as (kubernetes, _):
        execute(kubernetes, POD, "main", ["program"], on_stdout=take, on_stderr=lambda _: None)


@pytest.mark.usefixtures("impatient")
def test_a_server_that_is_gone_is_noticed() -> None:
    async def talk(connection: ServerConnection) -> None:
        await connection.send(b"\x01x")
        # It neither reads nor says anything from here on.
        connection.transport.pause_reading()
        await asyncio.sleep(2)
        connection.transport.abort()

    with cluster(talk) as (kubernetes, _), pytest.raises(Unreachable, match="after 1 bytes of stdout"):
        run(kubernetes)


@pytest.mark.usefixtures("impatient")
def test_a_server_that_stops_reading_is_noticed_though_no_ping_can_be_sent() -> None:
    ended = threading.Event()

    async def talk(connection: ServerConnection) -> None:
        connection.transport.pause_reading()
        while not ended.is_set():
            await asyncio.sleep(0.01)
        connection.transport.abort()

    async def send(stream: WebSocket) -> None:
        while True:
            await stream.send(bytes(1 << 16))

    async def work(kubernetes: Kubernetes) -> None:
        stream = await open_websocket(kubernetes, "/portforward", ("v4.channel.k8s.io",), "port-forward")
        try:
            both = asyncio.gather(send(stream), stream.receive(), return_exceptions=True)
            ends = await asyncio.wait_for(both, 10)
            assert [type(end) for end in ends] == [DisconnectedError, DisconnectedError]
        finally:
            ended.set()
            await stream.close()

    with cluster(talk) as (kubernetes, _):
        asyncio.run(work(kubernetes))


def test_a_server_without_tunnels_carries_each_connection_by_itself() -> None:
    async def talk(connection: ServerConnection) -> None:
        await connection.send(b"\x00" + (8000).to_bytes(2, "little"))
        await connection.send(b"\x01" + (8000).to_bytes(2, "little"))
        async for message in connection:
            await connection.send(message)
            if message == b"\x00end":
                return

    async def work(kubernetes: Kubernetes) -> None:
        tunnels = Tunnels(kubernetes)
        assert await tunnels.prepare(POD, 8000) is False
        one, two = await tunnels.dial(POD, 8000), await tunnels.dial(POD, 8000)
        for stream, word in ((one, b"one"), (two, b"two")):
            await stream.write(word)
            assert await stream.read() == word
        await one.write(b"end")
        assert await one.read() == b"end"
        assert await one.read() == b""
        await two.close()
        await one.close()
        await tunnels.close()

    with cluster(talk) as (kubernetes, requests):
        asyncio.run(work(kubernetes))
    assert len(requests) == 3
    assert {request.path for request in requests} == {"/api/v1/namespaces/ns/pods/pod/portforward?ports=8000"}


def test_a_connection_is_closed_even_if_the_task_that_closes_it_is_cancelled() -> None:
    """As at the end of a loop, which cancels tasks that are closing connections already."""
    closed = threading.Event()

    async def talk(connection: ServerConnection) -> None:
        await connection.wait_closed()
        closed.set()

    async def work(kubernetes: Kubernetes) -> None:
        stream = await open_websocket(kubernetes, "/exec", ("v4.channel.k8s.io",), "exec")
        closing = asyncio.create_task(stream.close())
        await asyncio.sleep(0)
        closing.cancel()
        assert isinstance((await asyncio.gather(closing, return_exceptions=True))[0], asyncio.CancelledError)
        assert await asyncio.to_thread(closed.wait, 10)

    with cluster(talk) as (kubernetes, _):
        asyncio.run(work(kubernetes))
