"""A WebSocket to the API server, which is closed if the server disappears.

The library's own keepalive mistakes a paused reader for a dead server. Here, a server counts as dead if it does not
answer a ping, and nothing has arrived while a reader was waiting.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from replayctl.cluster.api import Kubernetes, refusal, unreachable
from replayctl.cluster.kubeconfig import ClusterAccess

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection
    from websockets.client import ClientProtocol
    from websockets.datastructures import Headers

_OPEN_TIMEOUT_S = 10.0
_PING_EVERY_S, _SILENT_FOR_S = 20.0, 60.0


class DisconnectedError(Exception):
    """The connection has ended; `clean` if the server has closed it without an error."""

    def __init__(self, reason: str, *, clean: bool) -> None:
        super().__init__(reason)
        self.clean = clean


class WebSocket:
    """One open connection. `receive` belongs to one task; `send` and `close` may come from any."""

    def __init__(self, stream: ClientConnection) -> None:
        self._stream = stream
        self._waits_since: float | None = None
        self._heartbeat = asyncio.create_task(self._watch())

    @property
    def subprotocol(self) -> str | None:
        """The protocol that the server has selected."""
        return self._stream.subprotocol

    async def receive(self) -> bytes:
        """The next message. Raises DisconnectedError at the end."""
        from websockets.exceptions import ConnectionClosed, ConnectionClosedOK

        self._waits_since = time.monotonic()
        try:
            return await self._stream.recv(decode=False)
        except ConnectionClosed as error:
            raise DisconnectedError(str(error), clean=isinstance(error, ConnectionClosedOK)) from None
        finally:
            self._waits_since = None

    async def send(self, message: bytes) -> None:
        """Sends a message, and waits while too much of earlier ones is unsent. Raises DisconnectedError."""
        from websockets.exceptions import ConnectionClosed, ConnectionClosedOK

        try:
            await self._stream.send(message)
        except ConnectionClosed as error:
            raise DisconnectedError(str(error), clean=isinstance(error, ConnectionClosedOK)) from None

    async def close(self) -> None:
        """Closes the connection; `receive` then raises."""
        self._heartbeat.cancel()
        try:
            await asyncio.gather(self._heartbeat, return_exceptions=True)
            await self._stream.close()
        finally:
            # Also if the caller is cancelled meanwhile.
            self._stream.transport.abort()

    async def _watch(self) -> None:
        from websockets.exceptions import ConnectionClosed

        while True:
            await asyncio.sleep(_PING_EVERY_S)
            answer = asyncio.create_task(self._ping())
            try:
                while not answer.done():
                    await asyncio.wait({answer}, timeout=1.0)
                    silent_for = time.monotonic() - self._waits_since if self._waits_since is not None else 0.0
                    if silent_for > _SILENT_FOR_S and not answer.done():
                        self._stream.transport.abort()
                        return
                answer.result()
            except ConnectionClosed:
                return
            finally:
                answer.cancel()

    async def _ping(self) -> None:
        # A server that has stopped reading does not even let the ping be sent.
        await (await self._stream.ping())


async def open_websocket(cluster: Kubernetes, path: str, protocols: Sequence[str], what: str) -> WebSocket:
    """Opens a WebSocket with one of the protocols. Raises Unreachable, or the error of a refusal, naming `what`."""
    from websockets.exceptions import InvalidHandshake, InvalidStatus

    try:
        return WebSocket(await _handshake(cluster.access, path, protocols))
    except InvalidStatus as error:
        answer = error.response
        raise refusal(answer.status_code, bytes(answer.body or b""), what, cluster.access) from error
    except (OSError, InvalidHandshake, TimeoutError) as error:
        raise unreachable(cluster.access, error) from error


async def _handshake(access: ClusterAccess, path: str, protocols: Sequence[str]) -> ClientConnection:
    """Opens a WebSocket; retries once with new credentials if the server refuses them."""
    from websockets.asyncio.client import ClientConnection, connect
    from websockets.exceptions import InvalidStatus, NegotiationError

    class Connection(ClientConnection):
        def __init__(self, protocol: ClientProtocol, **options: Any) -> None:
            # The library refuses names with a slash, which RFC 6455 does not allow, but Kubernetes uses.
            vars(protocol)["process_subprotocol"] = choose
            super().__init__(protocol, **options)

    def choose(headers: Headers) -> str | None:
        protocol = headers.get("Sec-WebSocket-Protocol")
        if protocol is not None and protocol not in protocols:
            raise NegotiationError(f"the server selected {protocol}, which was not offered")
        return protocol

    offer = ("Sec-WebSocket-Protocol", ", ".join(protocols))
    # By default, the name is that of the address.
    named: dict[str, Any] = {"server_hostname": access.server_name} if access.server_name else {}
    again = True
    while True:
        try:
            return await connect(
                access.server.replace("http", "ws", 1) + path,
                ssl=access.tls,
                **named,
                additional_headers=[*await asyncio.to_thread(access.headers), offer],
                create_connection=Connection,
                compression=None,
                max_size=None,
                max_queue=64,
                open_timeout=_OPEN_TIMEOUT_S,
                close_timeout=2.0,
                ping_interval=None,
                proxy=access.proxy,
                user_agent_header="replayctl",
            )
        except InvalidStatus as error:
            if error.response.status_code != 401 or not again:
                raise
            access.forget()
            again = False
