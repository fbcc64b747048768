"""Makes links in pages of the cluster work on this machine: an HTTP proxy in front of a forward.

The proxy rewrites links in answers (`page_links`), and opens a forward for each service that a page links to.
Everything else passes unchanged. An answer that was cut off ends in a reset.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from replayctl.cluster.api import Endpoint, Kubernetes
from replayctl.console.events import Reporter
from replayctl.errors import OperationFailed, ReplayctlError
from replayctl.forwarding.addresses import AddressBook
from replayctl.forwarding.connection import CHUNK, reset
from replayctl.forwarding.forwarder import Forwarder, Listener
from replayctl.forwarding.page_links import REWRITTEN_TYPES, LinkRewriter, Locate, rewrite_header
from replayctl.forwarding.peers import has_left

if TYPE_CHECKING:
    import h11

_LOCAL = "127.0.0.1"
# Pages with content of other users may have any number of addresses.
_MOST_LINKED = 200
_MOST_LOCATED = 10_000
_LOCATED_FOR_S = 5.0
_LOOK_EVERY_S = 1.0
# Headers of a connection (RFC 9110, 7.6.1), encodings that cannot be rewritten, and requests for parts of a page
# or for a cached one, since the ports of its links may have changed.
_NOT_FOR_PODS = frozenset(
    {
        *(b"connection", b"keep-alive", b"proxy-connection", b"te", b"upgrade", b"expect", b"accept-encoding"),
        *(b"range", b"if-range", b"if-none-match", b"if-modified-since"),
    }
)
_NOT_FOR_CLIENTS = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})
_NOT_OF_REWRITTEN = frozenset(
    {b"content-length", b"etag", b"last-modified", b"accept-ranges", b"expires", b"cache-control"}
)
_ADDRESS_HEADERS = frozenset({b"location", b"refresh", b"content-location"})
_REPEATABLE = frozenset({b"GET", b"HEAD"})


async def serve(
    cluster: Kubernetes,
    listeners: Sequence[Listener],
    namespaces: Sequence[str],
    reporter: Reporter,
    on_open: Callable[[list[Listener]], None],
) -> None:
    """Listens and forwards until it is cancelled; calls `on_open` with the listeners and their actual ports.

    Links to the given namespaces are rewritten. Raises what `Forwarder.open` raises.
    """
    async with Forwarder(cluster, reporter) as forwarder:
        pages = Pages(forwarder, AddressBook(cluster, namespaces, reporter), reporter)
        opened = [await (pages if listener.links else forwarder).open(listener) for listener in listeners]
        on_open(opened)
        await asyncio.Event().wait()


class Pages:
    """The open pages by target; links to the same target lead to the same local port."""

    def __init__(self, forwarder: Forwarder, addresses: AddressBook, reporter: Reporter) -> None:
        self._forwarder = forwarder
        self._addresses = addresses
        self._reporter = reporter
        self._open: dict[Endpoint, Listener] = {}
        # One lookup at a time: a page may have thousands of addresses, and each lookup takes a thread.
        self._locating = asyncio.Lock()
        self._told: set[str] = set()
        self._located: dict[tuple[str, int, str], tuple[float, str | None]] = {}

    async def open(self, listener: Listener) -> Listener:
        """Opens a page on the listener's port. Raises what `Forwarder.open` raises."""
        inner = await self._forwarder.open(replace(listener, port=0))
        return await self._listen(listener, inner)

    async def _listen(self, listener: Listener, inner: Listener | None) -> Listener:
        """Serves a page through the forward `inner`, which is opened for the first client if it is None."""
        namespace = listener.target.namespace
        opening = asyncio.Lock()

        async def locate(host: str, port: int) -> str | None:
            return await self._locate(host, port, namespace)

        async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal inner
            async with opening:
                if inner is None:
                    try:
                        inner = await self._forwarder.open(replace(listener, port=0))
                    except ReplayctlError as error:
                        self._reporter.warn(f"{listener.name}: {error}")
                        reset(writer)
                        return
            await BrowserConnection(reader, writer, inner.port, locate).serve()

        opened = await self._forwarder.listen(listener, carry)
        self._open[listener.target] = opened
        return opened

    async def _locate(self, host: str, port: int, near: str) -> str | None:
        """The local `address:port` for `host:port`; None leaves the link unchanged."""
        # A list of applications has the same few addresses in thousands of links.
        asked_at, address = self._located.get((host, port, near), (float("-inf"), None))
        if time.monotonic() - asked_at > _LOCATED_FOR_S:
            address = await self._look_up(host, port, near)
            if len(self._located) >= _MOST_LOCATED:
                self._located.clear()
            self._located[host, port, near] = (time.monotonic(), address)
        return address

    async def _look_up(self, host: str, port: int, near: str) -> str | None:
        async with self._locating:
            try:
                target = await asyncio.to_thread(self._addresses.find, host, port, near=near)
                if target is None:
                    return None
                if target not in self._open:
                    if len(self._open) >= _MOST_LINKED:
                        raise OperationFailed(f"pages link to more than {_MOST_LINKED} addresses")
                    await self._listen(Listener(str(target), target, 0, links=True), None)
            except ReplayctlError as error:
                if str(error) not in self._told:
                    self._told.add(str(error))
                    self._reporter.note(f"cannot rewrite links to the cluster: {error}")
                return None
            return f"{_LOCAL}:{self._open[target].port}"


@dataclass
class _PodConnection:
    """The connection to the forward, with its HTTP state."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    state: h11.Connection


class _CutError(Exception):
    """One side has closed the connection in the middle of a message."""


class BrowserConnection:
    """One browser's connection to a page that is forwarded on `pod_port`; serves its requests one by one."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pod_port: int, locate: Locate
    ) -> None:
        import h11

        self._reader = reader
        self._writer = writer
        self._state = h11.Connection(h11.SERVER)
        self._pod_port = pod_port
        self._locate = locate
        self._pod: _PodConnection | None = None
        # Reads the browser's data, or its end, while waiting for the pod.
        self._ahead: asyncio.Task[bytes] | None = None

    async def serve(self) -> None:
        """Serves requests until one side ends the connection."""
        import h11

        is_delivered = False
        try:
            with contextlib.suppress(_CutError, OSError, h11.ProtocolError):
                while await self._serve_one():
                    pass
                await self._leave_pod()
                self._writer.close()
                await self._writer.wait_closed()
                is_delivered = True
        finally:
            # Also if this task is cancelled at any of these steps.
            if not is_delivered:
                reset(self._writer)
            if self._ahead is not None:
                self._ahead.cancel()
                await asyncio.gather(self._ahead, return_exceptions=True)
            await self._leave_pod(at_once=True)

    async def _serve_one(self) -> bool:
        """Serves one request; False if the connection has ended."""
        import h11

        request = await self._from_browser()
        if not isinstance(request, h11.Request):
            return False
        pod, answer = await self._ask(request)
        await self._answer(pod, answer)
        if pod.state.our_state is h11.DONE and pod.state.their_state is h11.DONE:
            pod.state.start_next_cycle()
        else:
            await self._leave_pod()
        if self._state.our_state is not h11.DONE or self._state.their_state is not h11.DONE:
            return False
        self._state.start_next_cycle()
        return True

    async def _ask(self, request: h11.Request) -> tuple[_PodConnection, h11.Response]:
        """Sends a request to the pod and waits for the head of its answer.

        The pod may have closed a kept-alive connection meanwhile: then the request is repeated on a new one. Requests
        that must not be repeated get a new connection at once.
        """
        import h11

        if request.method not in _REPEATABLE or (self._pod is not None and self._pod.reader.at_eof()):
            await self._leave_pod()
        kept, repeatable = self._pod is not None, False
        while True:
            pod = self._pod or await self._reach_pod()
            try:
                await _send(pod.writer, pod.state.send(self._for_pod(request)))
                if not repeatable:
                    repeatable = not await self._pass_body(pod)
                await _send(pod.writer, pod.state.send(h11.EndOfMessage()))
                while True:
                    answer = await self._from_pod(pod)
                    if isinstance(answer, h11.Response):
                        return pod, answer
                    if not isinstance(answer, h11.InformationalResponse):
                        raise _CutError
            except (_CutError, OSError, h11.ProtocolError):
                await self._leave_pod(at_once=True)
                if not kept or not repeatable or self._has_left():
                    raise
                kept = False

    def _for_pod(self, request: h11.Request) -> h11.Request:
        import h11

        headers = [(name, value) for name, value in request.headers if name not in _NOT_FOR_PODS]
        if not any(name == b"host" for name, _ in headers):
            # Old clients may omit it.
            headers.append((b"host", f"{_LOCAL}:{self._pod_port}".encode("ascii")))
        return h11.Request(method=request.method, target=request.target, headers=headers)

    async def _pass_body(self, pod: _PodConnection) -> bool:
        """Sends a request's body to the pod; returns whether it had any data."""
        import h11

        any_data = False
        if self._state.they_are_waiting_for_100_continue:
            go_on = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")
            await _send(self._writer, self._state.send(go_on))
        while not isinstance(event := await self._from_browser(), h11.EndOfMessage):
            if not isinstance(event, h11.Data):
                raise _CutError
            any_data = True
            sending = asyncio.ensure_future(_send(pod.writer, pod.state.send(h11.Data(data=event.data))))
            try:
                while not sending.done():
                    await asyncio.wait({sending}, timeout=_LOOK_EVERY_S)
                    # The browser's end is behind data that the pod does not take.
                    if not sending.done() and has_left(self._writer):
                        raise _CutError
            finally:
                sending.cancel()
            sending.result()
        return any_data

    async def _answer(self, pod: _PodConnection, answer: h11.Response) -> None:
        import h11

        kind = dict(answer.headers).get(b"content-type", b"").partition(b";")[0].strip().lower()
        plain = dict(answer.headers).get(b"content-encoding", b"identity").lower() == b"identity"
        rewriter = LinkRewriter(self._locate) if plain and kind.decode("latin-1") in REWRITTEN_TYPES else None
        headers = [(b"cache-control", b"no-store")] if rewriter else []
        for name, value in answer.headers:
            if name in _NOT_FOR_CLIENTS or (rewriter and name in _NOT_OF_REWRITTEN):
                continue
            headers.append((name, await rewrite_header(value, self._locate) if name in _ADDRESS_HEADERS else value))
        head = h11.Response(status_code=answer.status_code, reason=answer.reason, headers=headers)
        await _send(self._writer, self._state.send(head))
        while not isinstance(event := await self._from_pod(pod), h11.EndOfMessage):
            if not isinstance(event, h11.Data):
                raise _CutError
            data = await rewriter.feed(bytes(event.data)) if rewriter else event.data
            await _send(self._writer, self._state.send(h11.Data(data=data)))
        if rewriter and (rest := await rewriter.end()):
            await _send(self._writer, self._state.send(h11.Data(data=rest)))
        await _send(self._writer, self._state.send(h11.EndOfMessage()))

    async def _from_browser(self) -> object:
        import h11

        while (event := self._state.next_event()) is h11.NEED_DATA:
            ahead, self._ahead = self._ahead, None
            self._state.receive_data(await (ahead or self._reader.read(CHUNK)))
        return event

    async def _from_pod(self, pod: _PodConnection) -> object:
        """The pod's next event. Raises _CutError if the browser disconnects meanwhile."""
        import h11

        while (event := pod.state.next_event()) is h11.NEED_DATA:
            reading = asyncio.ensure_future(pod.reader.read(CHUNK))
            try:
                while not reading.done():
                    await self._wait(reading)
            finally:
                reading.cancel()
            pod.state.receive_data(reading.result())
        return event

    async def _wait(self, reading: asyncio.Future[bytes]) -> None:
        if self._ahead is None:
            self._ahead = asyncio.ensure_future(self._reader.read(CHUNK))
        if not self._ahead.done():
            await asyncio.wait({reading, self._ahead}, return_when=asyncio.FIRST_COMPLETED)
            return
        # The browser may have finished sending, and still listen.
        await asyncio.wait({reading}, timeout=_LOOK_EVERY_S)
        if not reading.done() and self._has_left():
            raise _CutError

    def _has_left(self) -> bool:
        if self._ahead is None or not self._ahead.done():
            return False
        if self._ahead.cancelled() or self._ahead.exception() is not None:
            return True
        return not self._ahead.result() and bool(has_left(self._writer))

    async def _reach_pod(self) -> _PodConnection:
        import h11

        reader, writer = await asyncio.open_connection(_LOCAL, self._pod_port, limit=CHUNK)
        self._pod = _PodConnection(reader, writer, h11.Connection(h11.CLIENT))
        return self._pod

    async def _leave_pod(self, *, at_once: bool = False) -> None:
        """Ends the connection to the forward; `at_once` without the data that the pod has not taken, or never will."""
        pod, self._pod = self._pod, None
        if pod is not None:
            if at_once:
                pod.writer.transport.abort()
            pod.writer.close()
            with contextlib.suppress(OSError):
                await pod.writer.wait_closed()


async def _send(writer: asyncio.StreamWriter, data: bytes | None) -> None:
    if data:
        writer.write(data)
        await writer.drain()
