"""Forwards that survive restarts of pods: each connection to the local listener gets a ready pod and its own stream."""

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
from replayctl.forwarding.connection import CHUNK, Connection, PodChoice, reset

_BACKLOG = 512


@dataclass(frozen=True, slots=True)
class Listener:
    """One forward: its name, its target, and its requested or actual local port (0: any free port).

    With `links`, links in its pages to host names of the cluster are rewritten.
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
    """The forwards of one process. An asynchronous context manager that closes its listeners and connections."""

    def __init__(self, cluster: Kubernetes, reporter: Reporter) -> None:
        self.cluster = cluster
        self.reporter = reporter
        self._tunnels = Tunnels(cluster)
        self._servers: list[asyncio.Server] = []
        self._connections: set[asyncio.Task[None]] = set()
        self._is_closed = False

    async def __aenter__(self) -> Forwarder:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # asyncio of Python 3.11 loses a connection that it has accepted when its server is closed a step later.
        loop = asyncio.get_running_loop()
        for listening in (sock for server in self._servers for sock in server.sockets):
            loop.remove_reader(listening.fileno())
        await asyncio.sleep(0)
        for server in self._servers:
            server.close()
        self._is_closed = True
        for task in self._connections:
            task.cancel()
        if self._connections:
            await asyncio.wait(self._connections)
        await self._tunnels.close()

    async def open(self, listener: Listener) -> Listener:
        """Opens a forward; returns it with its actual port.

        Raises PortTaken that names the process on the port, AuthFailed or NotFound if the target cannot be forwarded.
        """
        # Report a missing permission or a wrong name now, and not at the first connection. Pods may still come.
        await asyncio.to_thread(self.cluster.check_port, listener.target)
        choice = PodChoice(self.cluster, self._tunnels, listener.target)
        if not await self._is_prepared(choice):
            await asyncio.to_thread(self.cluster.check_right_to_forward, listener.target.namespace)

        async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await Connection(listener.name, choice, reader, writer, self.reporter).run()

        return await self.listen(listener, carry)

    async def _is_prepared(self, choice: PodChoice) -> bool:
        """Opens a tunnel for the first connection. Raises AuthFailed if the server does not allow it."""
        try:
            return await self._tunnels.prepare(*await choice.get())
        except AuthFailed:
            raise
        except ReplayctlError as error:
            # A ready pod may still come.
            self.reporter.note(f"{choice.target}: {error}")
            return False

    async def listen(
        self, listener: Listener, serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
    ) -> Listener:
        """Listens on the listener's port, and serves each connection."""

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if self._is_closed:
                # The loop had accepted it before the listener was closed.
                reset(writer)
                return

            async def run() -> None:
                # Cancelled only at the end, by this class; the streams would log it.
                with contextlib.suppress(asyncio.CancelledError):
                    await serve(reader, writer)

            def finish(task: asyncio.Task[None]) -> None:
                self._connections.discard(task)
                # A task that is cancelled before it starts has closed nothing.
                if not writer.is_closing():
                    reset(writer)
                if not task.cancelled() and (error := task.exception()) is not None:
                    context = {"message": f"{listener.name}: a connection ended with an error", "exception": error}
                    task.get_loop().call_exception_handler(context)

            task = asyncio.get_running_loop().create_task(run())
            self._connections.add(task)
            task.add_done_callback(finish)

        try:
            server = await asyncio.start_server(
                accept, "127.0.0.1", listener.port, limit=CHUNK, backlog=_BACKLOG, start_serving=False
            )
            # Before the next step, at which this task may be cancelled.
            self._servers.append(server)
            await server.start_serving()
        except OSError as error:
            raise _not_listening(listener, error) from error
        if not server.sockets:
            # asyncio returns no sockets if the process has too many open files.
            raise OperationFailed(f"cannot open a port for {listener.name}: too many open files")
        return replace(listener, port=server.sockets[0].getsockname()[1])


def _not_listening(listener: Listener, error: OSError) -> OperationFailed | PortTaken:
    another = f"pass {listener.name}=PORT to use another port, or --port auto to use any free one"
    if error.errno == errno.EADDRINUSE:
        who = _who_listens(listener.port)
        taken = f"port {listener.port} for {listener.name} is in use{f' by {who}' if who else ''}"
        return PortTaken(taken, hint=another)
    return OperationFailed(
        f"cannot open port {listener.port} for {listener.name}: {error.strerror or error}", hint=another
    )


def _who_listens(port: int) -> str | None:
    """The process that listens on a local port, if the system shows it."""
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
