"""exec over WebSocket: `v5.channel.k8s.io`, else `v4.channel.k8s.io`.

Channels: 0 stdin, 1 stdout, 2 stderr, 3 the final Status, 255 closes another.
https://github.com/kubernetes/enhancements, KEP 4006. Only the final Status proves that the program has ended: a stream
without it was cut off.
"""

from __future__ import annotations

import asyncio
import json
import queue
import urllib.parse
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from replayctl.cluster.api import Kubernetes, Pod
from replayctl.cluster.event_loop import event_loop
from replayctl.cluster.websocket import DisconnectedError, WebSocket, open_websocket
from replayctl.errors import OperationFailed, TimedOut, Unreachable

_V5, _V4 = "v5.channel.k8s.io", "v4.channel.k8s.io"
_STDIN, _STDOUT, _STDERR, _STATUS, _CLOSE = 0, 1, 2, 3, 255
_STDIN_CHUNK = 1 << 16
# How much output is buffered for a slow reader.
_UNREAD_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Executed:
    """The result of a program in a pod: its exit code, and the number of bytes received from each stream."""

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
    """Runs a program in a container, without a shell, and passes on its output as it arrives.

    Raises Unreachable with the amount received if the connection was lost before the end of the program, TimedOut after
    `timeout_s`, OperationFailed if the program cannot be started. The connection is closed in any case.
    """
    with event_loop(f"exec in {pod.name}") as loop:
        output = _Output(loop)
        work = _execute(cluster, pod, container, argv, output, stdin)
        running = asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, timeout_s), loop)
        running.add_done_callback(lambda _: output.end())
        takers = {_STDOUT: on_stdout, _STDERR: on_stderr}
        while (piece := output.take()) is not None:
            takers[piece[0]](piece[1])
        try:
            return running.result()
        except TimeoutError as error:
            raise TimedOut(f"{argv[0]} in pod {pod.namespace}/{pod.name} did not end within {timeout_s:g} s") from error


class _Output:
    """Passes a program's output from the loop to the reading thread, with a bounded buffer."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._pieces: queue.SimpleQueue[tuple[int, bytes] | None] = queue.SimpleQueue()
        self._unread = 0
        self._room = asyncio.Event()

    async def put(self, channel: int, content: bytes) -> None:
        self._pieces.put((channel, content))
        self._unread += len(content)
        while self._unread > _UNREAD_BYTES:
            self._room.clear()
            await self._room.wait()

    def end(self) -> None:
        self._pieces.put(None)

    def take(self) -> tuple[int, bytes] | None:
        """Waits for the next piece; None at the end."""
        piece = self._pieces.get()
        if piece is not None:
            self._loop.call_soon_threadsafe(self._taken, len(piece[1]))
        return piece

    def _taken(self, count: int) -> None:
        self._unread -= count
        self._room.set()


async def _execute(
    cluster: Kubernetes, pod: Pod, container: str, argv: Sequence[str], output: _Output, stdin: bytes | None
) -> Executed:
    words = [("container", container), *(("command", word) for word in argv), ("stdout", "true"), ("stderr", "true")]
    words += [("stdin", "true")] if stdin is not None else []
    path = f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}/exec?{urllib.parse.urlencode(words)}"
    counts = {_STDOUT: 0, _STDERR: 0}
    status: bytes | None = None
    async with _connect(cluster, path, (_V5, _V4), f"exec in {pod.namespace}/{pod.name}") as stream:
        if stdin is not None and stream.subprotocol != _V5:
            raise OperationFailed("this cluster does not support closing stdin (exec v5)")
        try:
            if stdin is not None:
                await _send_stdin(stream, stdin)
            while True:
                message = await stream.receive()
                channel, content = message[0] if message else -1, message[1:]
                if channel in counts and content:
                    counts[channel] += len(content)
                    await output.put(channel, content)
                elif channel == _STATUS:
                    status = (status or b"") + content
        except DisconnectedError:
            # After the status, nothing else follows.
            if status is None:
                raise _cut_off(pod, counts) from None
    return Executed(_exit_code(status, argv, pod), counts[_STDOUT], counts[_STDERR])


async def _send_stdin(stream: WebSocket, stdin: bytes) -> None:
    for start in range(0, len(stdin), _STDIN_CHUNK):
        await stream.send(bytes([_STDIN]) + stdin[start : start + _STDIN_CHUNK])
    await stream.send(bytes([_CLOSE, _STDIN]))


def _cut_off(pod: Pod, counts: dict[int, int]) -> Unreachable:
    return Unreachable(
        f"lost the connection to pod {pod.namespace}/{pod.name} before the program ended, "
        f"after {counts[_STDOUT]} bytes of stdout and {counts[_STDERR]} of stderr",
        hint="run the command again; the output is incomplete",
    )


def _exit_code(status: bytes, argv: Sequence[str], pod: Pod) -> int:
    try:
        document = json.loads(status)
    except ValueError as error:
        raise OperationFailed(
            f"pod {pod.namespace}/{pod.name} returned an invalid status of {argv[0]}",
            details=status[:300].decode("utf-8", "replace"),
        ) from error
    if document.get("status") == "Success":
        return 0
    for cause in (document.get("details") or {}).get("causes") or []:
        if cause.get("reason") == "ExitCode":
            return int(cause["message"])
    raise OperationFailed(f"{argv[0]} cannot be run in pod {pod.namespace}/{pod.name}", details=document.get("message"))


@asynccontextmanager
async def _connect(cluster: Kubernetes, path: str, protocols: Sequence[str], what: str) -> AsyncIterator[WebSocket]:
    stream = await open_websocket(cluster, path, protocols, what)
    try:
        yield stream
    finally:
        await stream.close()
