"""exec and port-forward over WebSocket, each stream a connection of its own.

Protocols: `v5.channel.k8s.io`, else `v4.channel.k8s.io`, for exec (channels 0 stdin, 1 stdout, 2 stderr, 3 the final
Status, 255 closes another); `v4.channel.k8s.io` for port-forward (0 data, 1 errors; the first message of each is the
port's number). https://github.com/kubernetes/enhancements, KEP 4006. The final Status is the only proof of an end: a
stream without it was cut off.
"""

from __future__ import annotations

import asyncio
import json
import urllib.parse
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from replayctl.cluster.api import Kubernetes, Pod, refusal, unreachable
from replayctl.cluster.kubeconfig import ClusterAccess
from replayctl.errors import OperationFailed, TimedOut, Unreachable

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

_V5, _V4 = "v5.channel.k8s.io", "v4.channel.k8s.io"
_STDIN, _STDOUT, _STDERR, _STATUS, _CLOSE = 0, 1, 2, 3, 255
_OPEN_TIMEOUT_S = 10.0
_STDIN_CHUNK = 1 << 16
# A server that is busy sending answers pings late; one that is gone never does.
_PING_EVERY_S, _PING_TIMEOUT_S = 20.0, 60.0


@dataclass(frozen=True, slots=True)
class Executed:
    """How a program in a pod ended: its exit code, and how many bytes came from each stream."""

    exit_code: int
    stdout_bytes: int
    stderr_bytes: int


def execute(
    cluster: Kubernetes,
    pod: Pod,
    container: str,
    argv: Sequence[str],
    *,
    on_stdout: Callable[[bytes], None],
    on_stderr: Callable[[bytes], None],
    stdin: bytes | None = None,
    timeout_s: float | None = None,
) -> Executed:
    """Runs a program in a container, without a shell, and hands over its output as it comes.

    Raises Unreachable that says how much came when the connection was cut before the program's end was told, TimedOut
    after `timeout_s`, OperationFailed when the program cannot be started. Whatever ends the call, ends the connection.
    """
    work = _execute(cluster, pod, container, argv, on_stdout, on_stderr, stdin)
    try:
        return asyncio.run(asyncio.wait_for(work, timeout_s))
    except TimeoutError as error:
        raise TimedOut(f"{argv[0]} in pod {pod.namespace}/{pod.name} did not end within {timeout_s:g} s") from error


async def _execute(
    cluster: Kubernetes,
    pod: Pod,
    container: str,
    argv: Sequence[str],
    on_stdout: Callable[[bytes], None],
    on_stderr: Callable[[bytes], None],
    stdin: bytes | None,
) -> Executed:
    from websockets.exceptions import ConnectionClosed

    words = [("container", container), *(("command", word) for word in argv), ("stdout", "true"), ("stderr", "true")]
    words += [("stdin", "true")] if stdin is not None else []
    path = f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}/exec?{urllib.parse.urlencode(words)}"
    counts = {_STDOUT: 0, _STDERR: 0}
    takers = {_STDOUT: on_stdout, _STDERR: on_stderr}
    status: bytes | None = None
    async with _connect(cluster, path, (_V5, _V4), f"exec in {pod.namespace}/{pod.name}") as stream:
        if stdin is not None:
            if stream.subprotocol != _V5:
                raise OperationFailed("this cluster cannot be told where stdin ends (it speaks no v5 of exec)")
            await _send_stdin(stream, stdin)
        try:
            async for message in stream:
                data = message.encode() if isinstance(message, str) else message
                if not data:
                    continue
                channel, content = data[0], data[1:]
                if channel in takers and content:
                    counts[channel] += len(content)
                    takers[channel](content)
                elif channel == _STATUS:
                    status = (status or b"") + content
        except ConnectionClosed:
            # With the status it has said all that there was to say.
            if status is None:
                raise _cut_off(pod, counts) from None
    if status is None:
        raise _cut_off(pod, counts)
    return Executed(_exit_code(status, argv, pod), counts[_STDOUT], counts[_STDERR])


async def _send_stdin(stream: ClientConnection, stdin: bytes) -> None:
    for start in range(0, len(stdin), _STDIN_CHUNK):
        await stream.send(bytes([_STDIN]) + stdin[start : start + _STDIN_CHUNK])
    await stream.send(bytes([_CLOSE, _STDIN]))


def _cut_off(pod: Pod, counts: dict[int, int]) -> Unreachable:
    return Unreachable(
        f"the connection to pod {pod.namespace}/{pod.name} was cut before the program's end was told; until then came "
        f"{counts[_STDOUT]} bytes of stdout and {counts[_STDERR]} of stderr",
        hint="what came is not all; give the command again",
    )


def _exit_code(status: bytes, argv: Sequence[str], pod: Pod) -> int:
    try:
        document = json.loads(status)
    except ValueError as error:
        raise OperationFailed(
            f"pod {pod.namespace}/{pod.name} told the end of {argv[0]} in words that are no status",
            details=status[:300].decode("utf-8", "replace"),
        ) from error
    if document.get("status") == "Success":
        return 0
    for cause in (document.get("details") or {}).get("causes") or []:
        if cause.get("reason") == "ExitCode":
            return int(cause["message"])
    raise OperationFailed(f"{argv[0]} cannot be run in pod {pod.namespace}/{pod.name}", details=document.get("message"))


@asynccontextmanager
async def dial(cluster: Kubernetes, pod: Pod, port: int) -> AsyncIterator[ClientConnection]:
    """A stream to a pod's port: messages of channel 0 are data, those of channel 1 errors.

    The first message of each channel holds the port's number and nothing else. Raises what a refused connection means.
    """
    path = f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}/portforward?ports={port}"
    async with _connect(cluster, path, (_V4,), f"port-forward to {pod.namespace}/{pod.name}:{port}") as stream:
        yield stream


@asynccontextmanager
async def _connect(
    cluster: Kubernetes, path: str, protocols: Sequence[str], what: str
) -> AsyncIterator[ClientConnection]:
    from websockets.exceptions import InvalidHandshake, InvalidStatus

    try:
        stream = await _handshake(cluster.access, path, protocols)
    except InvalidStatus as error:
        answer = error.response
        raise refusal(answer.status_code, bytes(answer.body or b""), what, cluster.access) from error
    except (OSError, InvalidHandshake, TimeoutError) as error:
        raise unreachable(cluster.access, error) from error
    try:
        yield stream
    finally:
        await stream.close()


async def _handshake(access: ClusterAccess, path: str, protocols: Sequence[str]) -> ClientConnection:
    """An open WebSocket; credentials that the server did not accept are made anew once."""
    from websockets.asyncio.client import connect
    from websockets.exceptions import InvalidStatus
    from websockets.typing import Subprotocol

    # Where there is none, it is the address's own.
    named: dict[str, Any] = {"server_hostname": access.server_name} if access.server_name else {}
    again = True
    while True:
        try:
            return await connect(
                access.server.replace("http", "ws", 1) + path,
                ssl=access.tls,
                **named,
                additional_headers=await asyncio.to_thread(access.headers),
                subprotocols=[Subprotocol(protocol) for protocol in protocols],
                compression=None,
                max_size=None,
                max_queue=64,
                open_timeout=_OPEN_TIMEOUT_S,
                close_timeout=2.0,
                ping_interval=_PING_EVERY_S,
                ping_timeout=_PING_TIMEOUT_S,
                proxy=access.proxy,
                user_agent_header="replayctl",
            )
        except InvalidStatus as error:
            if error.response.status_code != 401 or not again:
                raise
            access.forget()
            again = False
