"""The proxy in front of a forward: a browser's requests, and answers that are whole or cut off."""

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest

from replayctl.forward_connection import reset
from replayctl.pages import BrowserConnection

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
PAGE = b'<a href="http://rm:8088/">'


async def locate(host: str, port: int) -> str | None:
    return "127.0.0.1:9" if (host, port) == ("rm", 8088) else None


def talk(serve: Serve, client: Callable[[int], bytes]) -> bytes:
    """What a blocking client gets that talks to the proxy in front of the given server."""

    async def work() -> bytes:
        behind = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = behind.sockets[0].getsockname()[1]

        async def browse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await BrowserConnection(reader, writer, port, locate).serve()

        front = await asyncio.start_server(browse, "127.0.0.1", 0)
        try:
            return await asyncio.to_thread(client, front.sockets[0].getsockname()[1])
        finally:
            front.close()
            behind.close()
            ending = asyncio.all_tasks() - {asyncio.current_task()}
            await asyncio.wait_for(asyncio.gather(*ending, return_exceptions=True), 10)
            await asyncio.sleep(0.05)

    return asyncio.run(work())


def said(port: int, *requests: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        for request in requests:
            connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        parts = []
        while data := connection.recv(1 << 16):
            parts.append(data)
        return b"".join(parts)


def answering(answer: bytes, seen: list[bytes], *, then: Callable[[asyncio.StreamWriter], None] | None = None) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                seen.append(await reader.readuntil(b"\r\n\r\n"))
            except asyncio.IncompleteReadError:
                writer.close()
                return
            writer.write(answer)
            await writer.drain()
            if then is not None:
                then(writer)
                return

    return serve


HTML = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: %d\r\n\r\n%s" % (len(PAGE), PAGE)


def test_requests_follow_each_other_on_one_connection_and_encodings_are_not_offered() -> None:
    seen: list[bytes] = []
    ask = b"GET /%d HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\nCookie: a=b\r\n\r\n"
    got = talk(answering(HTML, seen), lambda port: said(port, ask % 1, ask % 2))
    assert got.count(b'<a href="http://127.0.0.1:9/">') == 2
    assert [each.split()[1] for each in seen] == [b"/1", b"/2"]
    assert b"gzip" not in b"".join(seen)
    assert b"cookie: a=b" in seen[0].lower()


def test_a_head_keeps_its_length_and_no_body_is_waited_for() -> None:
    head = HTML.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    got = talk(answering(head, []), lambda port: said(port, b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n"))
    assert b"content-length: %d" % len(PAGE) in got.lower()


def test_other_kinds_of_content_pass_byte_by_byte() -> None:
    log = b'"http://rm:8088/"\x00\xff' * 100_000
    plain = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s" % (len(log), log)
    got = talk(answering(plain, []), lambda port: said(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
    assert got.partition(b"\r\n\r\n")[2] == log


def test_a_redirect_to_the_cluster_leads_here() -> None:
    away = b"HTTP/1.1 302 Found\r\nLocation: http://rm:8088/x\r\nContent-Length: 0\r\n\r\n"
    got = talk(answering(away, []), lambda port: said(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
    assert b"location: http://127.0.0.1:9/x\r\n" in got.lower()


def test_a_body_is_sent_on_after_the_client_was_told_to_go_on() -> None:
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
        talk(answering(part, [], then=how), lambda port: said(port, b"POST / HTTP/1.1\r\nHost: x\r\n\r\n"))


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
            got = b""
            for _ in range(3):
                connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                part = b""
                while not part.endswith(b"0\r\n\r\n"):
                    part += connection.recv(1000)
                got += part
            return got

    assert talk(serve, client).count(b"127.0.0.1:9") == 3
    assert count == 3


def test_a_request_that_is_no_http_is_cut() -> None:
    with pytest.raises(ConnectionResetError):
        talk(answering(HTML, []), lambda port: said(port, b"\x16\x03\x01 hello\r\n\r\n"))
