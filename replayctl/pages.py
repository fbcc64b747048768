"""Pages of the cluster whose links work on this machine: an HTTP proxy in front of a forward.

Between a browser and a forward it reads requests and answers and changes the links in them (`page_links`); each service
that a page links to gets a forward of its own at that moment. Everything else passes as it is, and an answer that was
cut off stays cut off: it ends as a reset.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from replayctl.addresses import AddressBook
from replayctl.errors import ReplayctlError
from replayctl.events import Reporter
from replayctl.forward import Forwarder, Listener
from replayctl.forward_connection import CHUNK, reset
from replayctl.k8s import Kubernetes, Target
from replayctl.page_links import REWRITTEN_TYPES, LinkRewriter, Locate, rewrite_header

if TYPE_CHECKING:
    import h11

_LOCAL = "127.0.0.1"
# Each side's own affair (RFC 9110, 7.6.1), and encodings that we could not read.
_NOT_FOR_PODS = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"te", b"upgrade", b"expect", b"accept-encoding"}
)
_NOT_FOR_CLIENTS = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})
_ADDRESS_HEADERS = frozenset({b"location", b"refresh", b"content-location"})
_REPEATABLE = frozenset({b"GET", b"HEAD"})


async def serve(
    cluster: Kubernetes,
    listeners: Sequence[Listener],
    namespaces: Sequence[str],
    reporter: Reporter,
    on_open: Callable[[list[Listener]], None],
) -> None:
    """Listens and forwards until it is cancelled; `on_open` gets the listeners with the ports that they really have.

    Links are followed into the given namespaces. Raises what `Forwarder.open` raises.
    """
    async with Forwarder(cluster, reporter) as forwarder:
        pages = Pages(forwarder, AddressBook(cluster, namespaces, reporter), reporter)
        opened = [await (pages if each.links else forwarder).open(each) for each in listeners]
        on_open(opened)
        await asyncio.Event().wait()


class Pages:
    """The pages that are open, by target; a link to one of them leads to the same local port."""

    def __init__(self, forwarder: Forwarder, addresses: AddressBook, reporter: Reporter) -> None:
        self._forwarder = forwarder
        self._addresses = addresses
        self._reporter = reporter
        self._open: dict[Target, Listener] = {}
        self._opening = asyncio.Lock()

    async def open(self, listener: Listener) -> Listener:
        """Opens a page at the listener's port; raises what `Forwarder.open` raises."""
        inner = await self._forwarder.open(replace(listener, port=0))
        namespace = listener.target.namespace

        async def locate(host: str, port: int) -> str | None:
            return await self._locate(host, port, namespace)

        async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await BrowserConnection(reader, writer, inner.port, locate).serve()

        made = await self._forwarder.listen(listener, carry)
        self._open[listener.target] = made
        return made

    async def _locate(self, host: str, port: int, near: str) -> str | None:
        """Where `host:port` can be reached here, as `address:port`; opens a page for it when it is met first."""
        target = await asyncio.to_thread(self._addresses.find, host, port, near=near)
        if target is None:
            return None
        async with self._opening:
            if target not in self._open:
                try:
                    await self.open(Listener(str(target), target, 0, links=True))
                except ReplayctlError as error:
                    self._reporter.note(f"no way to {target}, to which a page links: {error}")
                    return None
            return f"{_LOCAL}:{self._open[target].port}"


@dataclass
class _Pod:
    """The connection to the forward, and what HTTP says of it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    state: h11.Connection


class _CutError(Exception):
    """One of the two sides went away in the middle of something."""


class BrowserConnection:
    """One browser's connection, with one request after the other, to a page that is forwarded at `pod_port`."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pod_port: int, locate: Locate
    ) -> None:
        import h11

        self._reader = reader
        self._writer = writer
        self._state = h11.Connection(h11.SERVER)
        self._pod_port = pod_port
        self._locate = locate
        self._pod: _Pod | None = None

    async def serve(self) -> None:
        """Serves requests until one side ends the connection."""
        import h11

        try:
            while await self._serve_one():
                pass
        except (_CutError, OSError, h11.ProtocolError, asyncio.CancelledError) as error:
            reset(self._writer)
            if isinstance(error, asyncio.CancelledError):
                raise
            return
        finally:
            await self._leave_pod()
        with contextlib.suppress(OSError):
            self._writer.close()
            await self._writer.wait_closed()

    async def _serve_one(self) -> bool:
        """One request and its answer; False when there is none any more."""
        import h11

        request = await _next_event(self._state, self._reader)
        if not isinstance(request, h11.Request):
            return False
        pod, answer = await self._ask(request)
        await self._answer(request, pod, answer)
        if pod.state.our_state is h11.DONE and pod.state.their_state is h11.DONE:
            pod.state.start_next_cycle()
        else:
            await self._leave_pod()
        if self._state.our_state is not h11.DONE or self._state.their_state is not h11.DONE:
            return False
        self._state.start_next_cycle()
        return True

    async def _ask(self, request: h11.Request) -> tuple[_Pod, h11.Response]:
        """Passes a request on and waits for the head of its answer.

        A connection that was kept may have been closed by the pod meanwhile: then a new one is asked.
        """
        import h11

        kept = self._pod is not None
        while True:
            pod = self._pod or await self._reach_pod()
            try:
                await self._pass_on(request, pod)
                while True:
                    answer = await _next_event(pod.state, pod.reader)
                    if isinstance(answer, h11.Response):
                        return pod, answer
                    if not isinstance(answer, h11.InformationalResponse):
                        raise _CutError
            except (_CutError, OSError, h11.ProtocolError):
                await self._leave_pod()
                # Only what has no body, and does no harm when it is done twice.
                if not kept or request.method not in _REPEATABLE or self._state.their_state is not h11.DONE:
                    raise
                kept = False

    async def _pass_on(self, request: h11.Request, pod: _Pod) -> None:
        import h11

        headers = [(name, value) for name, value in request.headers if name not in _NOT_FOR_PODS]
        head = h11.Request(method=request.method, target=request.target, headers=headers)
        await _send(pod.writer, pod.state.send(head))
        while self._state.their_state is not h11.DONE:
            if self._state.they_are_waiting_for_100_continue:
                go_on = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")
                await _send(self._writer, self._state.send(go_on))
            event = await _next_event(self._state, self._reader)
            if isinstance(event, h11.Data):
                await _send(pod.writer, pod.state.send(h11.Data(data=event.data)))
            elif not isinstance(event, h11.EndOfMessage):
                raise _CutError
        await _send(pod.writer, pod.state.send(h11.EndOfMessage()))

    async def _answer(self, request: h11.Request, pod: _Pod, answer: h11.Response) -> None:
        import h11

        kind = dict(answer.headers).get(b"content-type", b"").partition(b";")[0].strip().lower()
        plain = dict(answer.headers).get(b"content-encoding", b"identity").lower() == b"identity"
        rewriter = LinkRewriter(self._locate) if plain and kind.decode("latin-1") in REWRITTEN_TYPES else None
        headers = []
        for name, value in answer.headers:
            if name in _NOT_FOR_CLIENTS or (rewriter and name == b"content-length" and request.method != b"HEAD"):
                continue
            headers.append((name, await rewrite_header(value, self._locate) if name in _ADDRESS_HEADERS else value))
        head = h11.Response(status_code=answer.status_code, reason=answer.reason, headers=headers)
        await _send(self._writer, self._state.send(head))
        while True:
            event = await _next_event(pod.state, pod.reader)
            if isinstance(event, h11.EndOfMessage):
                break
            if not isinstance(event, h11.Data):
                raise _CutError
            data = await rewriter.feed(bytes(event.data)) if rewriter else event.data
            await _send(self._writer, self._state.send(h11.Data(data=data)))
        if rewriter and (rest := await rewriter.end()):
            await _send(self._writer, self._state.send(h11.Data(data=rest)))
        await _send(self._writer, self._state.send(h11.EndOfMessage()))

    async def _reach_pod(self) -> _Pod:
        import h11

        reader, writer = await asyncio.open_connection(_LOCAL, self._pod_port, limit=CHUNK)
        self._pod = _Pod(reader, writer, h11.Connection(h11.CLIENT))
        return self._pod

    async def _leave_pod(self) -> None:
        pod, self._pod = self._pod, None
        if pod is not None:
            pod.writer.close()
            with contextlib.suppress(OSError):
                await pod.writer.wait_closed()


async def _next_event(
    state: h11.Connection, reader: asyncio.StreamReader
) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
    import h11

    while (event := state.next_event()) is h11.NEED_DATA:
        state.receive_data(await reader.read(CHUNK))
    return event


async def _send(writer: asyncio.StreamWriter, data: bytes | None) -> None:
    if data:
        writer.write(data)
        await writer.drain()
