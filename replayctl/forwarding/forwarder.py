"""Port-forwards that outlive pods: a local listener that stays; each connection gets a ready pod and its own stream."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from types import TracebackType

from replayctl.cluster.api import Endpoint, Kubernetes
from replayctl.cluster.tunnels import Tunnels
from replayctl.console.events import Reporter
from replayctl.errors import AuthFailed, OperationFailed, PortTaken, ReplayctlError
from replayctl.forwarding.connection import CHUNK, Connection, PodChoice

_BACKLOG = 512


@dataclass(frozen=True, slots=True)
class Listener:
    """One forward: what people call it, where it leads, and the local port that it has or wants (0: any free one).

    With `links`, links of its pages to host names of the cluster lead through forwards, too.
    """

    name: str
    target: Endpoint
    port: int
    links: bool = False

    @property
    def url(self) -> str:
        """The address to open in a browser."""
        return f"http://127.0.0.1:{self.port}"


class Forwarder:
    """The forwards of one process. An asynchronous context; at its end its listeners and connections are closed."""

    def __init__(self, cluster: Kubernetes, reporter: Reporter) -> None:
        self.cluster = cluster
        self.reporter = reporter
        self._tunnels = Tunnels(cluster)
        self._servers: list[asyncio.Server] = []
        self._connections: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Forwarder:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self._servers:
            server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._tunnels.close()

    async def open(self, listener: Listener) -> Listener:
        """Opens a forward; returns it with the port that it really has.

        Raises PortTaken that names who has the port, AuthFailed or NotFound when the target cannot be forwarded at all.
        """
        # A missing right or a wrong name should be told now, and not by the first connection; a pod may come.
        await asyncio.to_thread(self.cluster.check_port, listener.target)
        choice = PodChoice(self.cluster, self._tunnels, listener.target)
        if not await self._is_prepared(choice):
            await asyncio.to_thread(self.cluster.check_right_to_forward, listener.target.namespace)

        async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await Connection(listener.name, choice, reader, writer, self.reporter).run()

        return await self.listen(listener, carry)

    async def _is_prepared(self, choice: PodChoice) -> bool:
        """Opens the way for the first connection; AuthFailed when the server does not allow it."""
        try:
            return await self._tunnels.prepare(*await choice.get())
        except AuthFailed:
            raise
        except ReplayctlError as error:
            # A pod that serves may still come.
            self.reporter.note(f"{choice.target}: {error}")
            return False

    async def listen(
        self, listener: Listener, serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
    ) -> Listener:
        """Listens at the listener's port and has each connection served until all is over."""

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._connections.add(task)
            try:
                # Cancelled only by us, when all is over; the streams would complain of it.
                with contextlib.suppress(asyncio.CancelledError):
                    await serve(reader, writer)
            finally:
                self._connections.discard(task)

        try:
            server = await asyncio.start_server(accept, "127.0.0.1", listener.port, limit=CHUNK, backlog=_BACKLOG)
        except OSError as error:
            raise _not_listening(listener, error) from error
        if not server.sockets:
            # So it ends when this process may open no more of them.
            raise OperationFailed(f"no port can be opened for {listener.name}: too many open files")
        self._servers.append(server)
        return replace(listener, port=server.sockets[0].getsockname()[1])


def _not_listening(listener: Listener, error: OSError) -> OperationFailed | PortTaken:
    another = f"choose another one: {listener.name}=PORT, or any: --port auto"
    if error.errno == errno.EADDRINUSE:
        who = _who_listens(listener.port)
        taken = f"port {listener.port} for {listener.name} is taken{f' by {who}' if who else ''}"
        return PortTaken(taken, hint=another)
    return OperationFailed(
        f"port {listener.port} for {listener.name} cannot be opened: {error.strerror or error}", hint=another
    )


def _who_listens(port: int) -> str | None:
    """The process that listens on a local port, where the system lets us know."""
    import psutil

    try:
        listening = [
            connection
            for connection in psutil.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN and connection.laddr
        ]
        pid = next(connection.pid for connection in listening if connection.laddr.port == port and connection.pid)
        return f"{psutil.Process(pid).name()} (process {pid})"
    except (psutil.Error, StopIteration):
        return "another user's process" if sys.platform == "linux" else None
