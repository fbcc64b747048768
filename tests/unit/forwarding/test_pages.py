"""The proxy in front of a forward: requests of browsers, and complete and truncated answers."""

import asyncio
import contextlib
import socket
import sys
import threading
from collections.abc import Awaitable, Callable

import pytest

from replayctl.cluster.api import Endpoint, Pod
from replayctl.errors import Unreachable
from replayctl.forwarding.addresses import AddressBook
from replayctl.forwarding.connection import reset
from replayctl.forwarding.forwarder import Forwarder
from replayctl.forwarding.pages import BrowserConnection, Pages
from tests.reporters import RecordingReporter

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
PAGE = b'<a href="http://rm:8088/">'


async def locate(host: str, port: int) -> str | None:
    return "127.0.0.1:9" if (host, port) == ("rm", 8088) else None


def talk(serve: Serve, client: Callable[[int], bytes]) -> bytes:
    """What a blocking client gets that talks to the proxy in front of the given server."""

    async def work() -> bytes:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]

        async def browse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await BrowserConnection(reader, writer, port, locate).serve()

        front = await asyncio.start_server(browse, "127.0.0.1", 0)
        try:
            return await asyncio.to_thread(client, front.sockets[0].getsockname()[1])
        finally:
            front.close()
            server.close()
            ending = asyncio.all_tasks() - {asyncio.current_task()}
            await asyncio.wait_for(asyncio.gather(*ending, return_exceptions=True), 10)
            await asyncio.sleep(0.05)

    return asyncio.run(work())


def exchange(port: int, *requests: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        for request in requests:
            connection.sendall(request)
        # It may be cut already: reading says so.
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
        parts = []
        while data := connection.recv(1 << 16):
            parts.append(data)
        return b"".join(parts)


def answering(
    answer: bytes, requests: list[bytes], *, after_answer: Callable[[asyncio.StreamWriter], None] | None = None
) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                requests.append(await reader.readuntil(b"\r\n\r\n"))
            except asyncio.IncompleteReadError:
                writer.close()
                return
            writer.write(answer)
            await writer.drain()
            if after_answer is not None:
                after_answer(writer)
                return

    return serve


HTML = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: %d\r\n\r\n%s" % (len(PAGE), PAGE)


def test_requests_follow_each_other_on_one_connection_and_encodings_are_not_offered() -> None:
    requests: list[bytes] = []
    request = b"GET /%d HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\nCookie: a=b\r\n\r\n"
    answer = talk(answering(HTML, requests), lambda port: exchange(port, request % 1, request % 2))
    assert answer.count(b'<a href="http://127.0.0.1:9/">') == 2
    assert [request.split()[1] for request in requests] == [b"/1", b"/2"]
    assert b"gzip" not in b"".join(requests)
    assert b"cookie: a=b" in requests[0].lower()


def test_no_body_is_waited_for_after_a_head() -> None:
    head = HTML.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    request = b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n"
    answer = talk(answering(head, []), lambda port: exchange(port, request, request))
    assert answer.count(b"HTTP/1.1 200 ") == 2
    assert answer.endswith(b"\r\n\r\n")
    assert answer.count(b"\r\n\r\n") == 2


def test_other_kinds_of_content_pass_byte_by_byte() -> None:
    log = b'"http://rm:8088/"\x00\xff' * 100_000
    plain = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s" % (len(log), log)
    answer = talk(answering(plain, []), lambda port: exchange(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
    assert answer.partition(b"\r\n\r\n")[2] == log


def test_a_redirect_to_the_cluster_leads_here() -> None:
    away = b"HTTP/1.1 302 Found\r\nLocation: http://rm:8088/x\r\nContent-Length: 0\r\n\r\n"
    answer = talk(answering(away, []), lambda port: exchange(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
    assert b"location: http://127.0.0.1:9/x\r\n" in answer.lower()


def test_a_body_is_forwarded_after_100_continue() -> None:
    bodies: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"expect" not in head.lower()
        bodies.append(await reader.readexactly(200_000))
        writer.write(HTML)
        await writer.drain()
        writer.close()

    def client(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\nExpect: 100-continue\r\n\r\n")
            first = connection.recv(1000)
            assert first.startswith(b"HTTP/1.1 100 ")
            connection.sendall(b"y" * 200_000)
            return connection.recv(1000)

    assert talk(serve, client).startswith(b"HTTP/1.1 200 ")
    assert bodies == [b"y" * 200_000]


@pytest.mark.parametrize("how", [reset, lambda writer: writer.close()])
@pytest.mark.parametrize(
    "part",
    [
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 1000\r\n\r\nonly this",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Ty",
        b"nonsense\r\n\r\n",
    ],
)
def test_an_answer_that_is_cut_off_ends_as_a_reset(part: bytes, how: Callable[[asyncio.StreamWriter], None]) -> None:
    with pytest.raises(ConnectionResetError):
        talk(answering(part, [], after_answer=how), lambda port: exchange(port, b"POST / HTTP/1.1\r\nHost: x\r\n\r\n"))


def test_a_kept_connection_that_the_server_has_closed_is_replaced() -> None:
    count = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HTML)
        await writer.drain()
        # Without a word of it, as servers do with those that are idle.
        writer.close()

    def client(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            received = b""
            for _ in range(3):
                connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                part = b""
                while not part.endswith(b"0\r\n\r\n"):
                    part += connection.recv(1000)
                received += part
            return received

    assert talk(serve, client).count(b"127.0.0.1:9") == 3
    assert count == 3


def test_a_request_that_is_not_http_is_closed() -> None:
    with pytest.raises(ConnectionResetError):
        talk(answering(HTML, []), lambda port: exchange(port, b"\x16\x03\x01 hello\r\n\r\n"))


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n",
    ],
)
def test_clients_that_close_or_offer_other_protocols_are_answered(request_: bytes) -> None:
    def client(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(request_)
            answer = b""
            while b"127.0.0.1:9/" not in answer:
                data = connection.recv(1000)
                assert data, answer
                answer += data
            return answer

    assert talk(answering(HTML, []), client).startswith(b"HTTP/1.1 200 ")


def test_copies_of_rewritten_pages_are_not_kept_and_parts_not_asked_for() -> None:
    requests: list[bytes] = []
    page = HTML.replace(
        b"\r\n", b'\r\nETag: "1"\r\nLast-Modified: x\r\nAccept-Ranges: bytes\r\nCache-Control: a\r\n', 1
    )
    request = b'GET / HTTP/1.1\r\nHost: x\r\nIf-None-Match: "1"\r\nRange: bytes=0-5\r\n\r\n'
    answer = talk(answering(page, requests), lambda port: exchange(port, request)).lower()
    assert b"etag" not in answer
    assert b"last-modified" not in answer
    assert b"accept-ranges" not in answer
    assert answer.count(b"cache-control: no-store") == 1
    assert b"if-none-match" not in requests[0].lower()
    assert b"range" not in requests[0].lower()


def test_what_must_not_be_done_twice_gets_a_connection_of_its_own() -> None:
    methods: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                methods.append((await reader.readuntil(b"\r\n\r\n")).split()[0])
            except asyncio.IncompleteReadError:
                break
            writer.write(HTML)
            await writer.drain()
            if methods[-1] == b"GET":
                break
        writer.close()

    def client(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            for method in (b"GET", b"POST", b"GET", b"DELETE"):
                connection.sendall(method + b" / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
                part = b""
                while not part.endswith(b"0\r\n\r\n"):
                    data = connection.recv(1000)
                    assert data
                    part += data
        return b""

    talk(serve, client)
    assert methods == [b"GET", b"POST", b"GET", b"DELETE"]


def test_a_browser_that_leaves_while_an_answer_is_waited_for_leaves_no_connection_behind() -> None:
    departed = threading.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        with contextlib.suppress(OSError):
            await reader.read()
        departed.set()
        writer.close()

    def client(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert departed.wait(10)
        return b""

    talk(serve, client)


class Cluster:
    """One service that pages link to, as far as forwards and names ask for it."""

    def __init__(self, trouble: Exception | None = None) -> None:
        self.trouble = trouble
        self.requests = 0

    def pods(self, target: Endpoint) -> list[Pod]:
        return []

    def services(self, namespace: str) -> list[tuple[str, tuple[str, ...]]]:
        self.requests += 1
        if self.trouble:
            raise self.trouble
        return [("rm", ())]

    def pods_of(self, namespace: str) -> list[Pod]:
        return []


def located(cluster: Cluster, *ports: int) -> tuple[list[str | None], RecordingReporter]:
    reporter = RecordingReporter()

    async def work() -> list[str | None]:
        async with Forwarder(cluster, reporter) as forwarder:  # type: ignore[arg-type] # as far as it is asked
            pages = Pages(forwarder, AddressBook(cluster, ["ns"], reporter), reporter)  # type: ignore[arg-type]
            return await asyncio.gather(*(pages._locate("rm", port, "ns") for port in ports))

    return asyncio.run(work()), reporter


def test_links_to_one_address_lead_to_one_port() -> None:
    cluster = Cluster()
    links, _ = located(cluster, 8088, 8088, 8042)
    assert links[0] == links[1]
    assert links[0] != links[2]
    assert all(link and link.startswith("127.0.0.1:") for link in links)
    assert cluster.requests == 1


def test_a_cluster_that_cannot_be_asked_leaves_links_as_they_are() -> None:
    cluster = Cluster(Unreachable("the Kubernetes API cannot be reached"))
    links, reporter = located(cluster, *range(1, 20))
    assert set(links) == {None}
    assert cluster.requests == 1
    assert len(reporter.messages("note")) == 1


def test_a_page_cannot_open_any_number_of_ports() -> None:
    links, reporter = located(Cluster(), 0, 70_000, *range(1, 400))
    assert sum(link is not None for link in links) == 200
    assert links[:2] == [None, None]
    assert len(reporter.messages("note")) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells whether a browser has left")
def test_a_browser_that_leaves_a_stuck_upload_leaves_nothing_behind() -> None:
    async def work() -> None:
        ended = asyncio.Event()

        async def take_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            await ended.wait()
            reset(writer)

        async def browse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await BrowserConnection(reader, writer, server.sockets[0].getsockname()[1], locate).serve()
            browsed.set()

        browsed = asyncio.Event()
        server = await asyncio.start_server(take_nothing, "127.0.0.1", 0)
        front = await asyncio.start_server(browse, "127.0.0.1", 0)
        with socket.create_connection(front.sockets[0].getsockname()) as browser:
            browser.setblocking(False)
            browser.send(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n")
            with contextlib.suppress(BlockingIOError):
                while True:
                    browser.send(bytes(1 << 16))
                    await asyncio.sleep(0.01)
            # A browser that only waits keeps its connection.
            await asyncio.sleep(2.5)
            assert not browsed.is_set()
        try:
            await asyncio.wait_for(browsed.wait(), 10)
        finally:
            ended.set()
            front.close()
            server.close()
            await asyncio.sleep(0.05)

    asyncio.run(work())
