"""Connects one client to a stream of a pod.

The client sees what it would see of the pod itself, or a reset: the server's close arrives after its last byte, and a
connection that was cut ends in a reset, never in a truncated answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from dataclasses import dataclass, field

from replayctl.cluster.api import Endpoint, Kubernetes, Pod
from replayctl.cluster.pod_streams import BrokenStreamError, PodStream
from replayctl.cluster.tunnels import Tunnels
from replayctl.console.events import Reporter
from replayctl.errors import AuthFailed, NotFound, ReplayctlError, UsageProblem
from replayctl.forwarding.peers import has_left

CHUNK = 1 << 16
# How long a client waits for a ready pod, and how often the pods are checked meanwhile.
_DIAL_FOR_S, _DIAL_EVERY_S = 20.0, 0.2
# Data of the client is kept until the pod's first byte, to be sent to another pod if the first one refuses it.
_KEEP_BYTES = 1 << 20
# How much unsent data a slow client may have before reading from its pod is paused.
_UNSENT_BYTES = 1 << 19
# A tunnel stays open for a while after its pod was deleted, so a pod is cached only briefly.
_POD_KEPT_S = 1.0
_LEAVES_FOR_S = 3.0
# Where the system does not know whether a client that has stopped sending still listens.
_SILENT_FOR_S = 600.0
_LOOK_EVERY_S = 1.0
_SILENT_BEFORE_LOOK_S = 2.0
_REFUSED = ("connection refused", "failed to connect", "unable to connect", "no such host", "not found", "dial")

Life = tuple[str, ...]


@dataclass
class PodChoice:
    """The pod for connections to one target; selected again when the cache expires or the pod has failed."""

    cluster: Kubernetes
    tunnels: Tunnels
    target: Endpoint
    pod: Pod | None = None
    port: int = 0
    asked_at: float = float("-inf")
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    # What is known of a pod is not true of its successor, which may have the same name.
    looked_at: dict[Life, float] = field(default_factory=dict)
    dead: dict[Life, bool] = field(default_factory=dict)
    looking: asyncio.Lock = field(default_factory=asyncio.Lock)
    last_look: tuple[Life, float, tuple[bool, bool]] = (("",), 0.0, (False, False))

    async def get(self) -> tuple[Pod, int]:
        """A ready pod and its port. Raises what `Kubernetes.ready_pod` and `port_of` raise."""
        async with self.lock:
            if self.pod is not None and time.monotonic() - self.asked_at <= _POD_KEPT_S:
                return self.pod, self.port
            pod, port = await asyncio.to_thread(self._ask)
            self.pod, self.port, self.asked_at = pod, port, time.monotonic()
            return pod, port

    async def has_died(self, pod: Pod) -> bool:
        """Whether a pod was deleted or restarted; one request serves all its connections."""
        async with self.lock:
            life = (pod.name, *pod.life)
            if time.monotonic() - self.looked_at.get(life, float("-inf")) > _POD_KEPT_S:
                self.dead[life] = (await asyncio.to_thread(self._look, pod))[0]
                self.looked_at[life] = time.monotonic()
            return self.dead[life]

    async def has_just_died(self, pod: Pod) -> bool:
        """Whether a stream has ended because its pod has: then its data may be incomplete.

        The API may report that with a delay. Only a pod that is terminating is checked again.
        """
        deadline = time.monotonic() + _LEAVES_FOR_S
        while True:
            dead, leaving = await self._look_from_now_on(pod)
            if dead or not leaving or time.monotonic() > deadline:
                return dead
            await asyncio.sleep(_DIAL_EVERY_S)

    async def _look_from_now_on(self, pod: Pod) -> tuple[bool, bool]:
        """One check for all callers that come before it starts."""
        asked_at = time.monotonic()
        async with self.looking:
            life = (pod.name, *pod.life)
            if self.last_look[0] != life or self.last_look[1] < asked_at:
                began_at = time.monotonic()
                self.last_look = (life, began_at, await asyncio.to_thread(self._look, pod))
            return self.last_look[2]

    def _look(self, pod: Pod) -> tuple[bool, bool]:
        """Whether the pod is dead, and whether it is terminating."""
        try:
            (now,) = self.cluster.pods(Endpoint(pod.namespace, "pod", pod.name))
        except NotFound:
            return True, False
        except ReplayctlError:
            # Unknown: treat it as alive.
            return False, False
        return now.life != pod.life, now.leaving

    def forget(self, pod: Pod) -> None:
        """Makes the next connection select a pod again, and open a new tunnel to it."""
        self.tunnels.retire(pod)
        if self.pod is pod:
            self.pod = None

    def _ask(self) -> tuple[Pod, int]:
        pod = self.cluster.ready_pod(self.target)
        return pod, self.cluster.port_of(self.target, pod)


class Connection:
    """One client's connection, and its stream to a pod."""

    def __init__(
        self,
        name: str,
        choice: PodChoice,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        reporter: Reporter,
    ) -> None:
        self._name = name
        self._choice = choice
        self._reader = reader
        self._writer = writer
        self._reporter = reporter
        writer.transport.set_write_buffer_limits(high=_UNSENT_BYTES)
        # Data of the client that may have to be sent again.
        self._said = bytearray()
        self._may_repeat = True
        self._answered = False
        self._client_done = asyncio.Event()
        self._is_sending = False
        self._stream: PodStream | None = None
        self._last_byte = time.monotonic()
        self._pod_died = False

    async def run(self) -> None:
        """Serves the connection to its end. Raises only CancelledError."""
        listening = asyncio.create_task(self._listen_to_client())
        is_delivered = False
        try:
            with contextlib.suppress(OSError):
                if await self._serve():
                    listening.cancel()
                    await self._writer.drain()
                    self._writer.close()
                    await self._writer.wait_closed()
                    is_delivered = True
        finally:
            # Also if this task is cancelled at any of these steps.
            if not is_delivered:
                reset(self._writer)
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def _serve(self) -> bool:
        """Finds a pod that accepts the connection and serves it to its end; False if it must end in a reset."""
        deadline = time.monotonic() + _DIAL_FOR_S
        while True:
            pod = None
            try:
                pod, port = await self._choice.get()
                stream = await self._choice.tunnels.dial(pod, port)
                try:
                    refused = await self._carry(stream, pod)
                finally:
                    await stream.close()
                if refused is None and not self._client_done.is_set() and await self._choice.has_just_died(pod):
                    self._may_repeat = self._may_repeat and not self._said
                    refused = f"pod {pod.name} ended during the connection"
            except (AuthFailed, UsageProblem) as error:
                self._reporter.warn(f"{self._name}: {error}")
                return False
            except ReplayctlError as error:
                refused = str(error)
            if refused is None:
                return True
            if pod is not None:
                self._choice.forget(pod)
            again = not self._answered and self._may_repeat and time.monotonic() < deadline
            if not again or self._client_is_gone():
                self._reporter.warn(f"{self._name}: lost a connection: {refused}")
                return False
            self._reporter.note(f"{self._name}: retrying: {refused}")
            await asyncio.sleep(_DIAL_EVERY_S)

    async def _carry(self, stream: PodStream, pod: Pod) -> str | None:
        """Copies data both ways until the pod ends the stream. Returns None for a clean end, else the reason."""
        watching = [
            asyncio.create_task(self._watch_client(stream)),
            asyncio.create_task(self._watch_pod(stream, pod)),
        ]
        try:
            sent = 0
            while sent < len(self._said):
                # The client may send more meanwhile.
                news = bytes(self._said[sent:])
                sent += len(news)
                await stream.write(news)
            self._stream = stream
            while data := await stream.read():
                self._answered, self._last_byte = True, time.monotonic()
                self._said.clear()
                self._writer.write(data)
                await self._writer.drain()
            return self._judged("")
        except BrokenStreamError as error:
            return self._judged(str(error))
        finally:
            self._stream = None
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)

    def _judged(self, trouble: str) -> str | None:
        if self._pod_died:
            trouble = trouble or "its pod was deleted or restarted"
        if not trouble:
            return None
        # A request that a pod may have started to serve must not be repeated.
        unheard = not self._said or any(word in trouble.lower() for word in _REFUSED)
        self._may_repeat = self._may_repeat and unheard
        return trouble.strip()

    async def _listen_to_client(self) -> None:
        while True:
            try:
                data = await self._reader.read(CHUNK)
            except OSError:
                # A reset, after which the transport is closed: the client has gone.
                data = b""
            if not data:
                self._client_done.set()
                return
            if self._stream is None:
                # Sent once there is a pod.
                self._said += data
                while self._stream is None and len(self._said) > _KEEP_BYTES:
                    await asyncio.sleep(0.01)
                continue
            if not self._answered and len(self._said) + len(data) <= _KEEP_BYTES:
                self._said += data
            elif not self._answered:
                self._may_repeat = False
            self._is_sending = True
            await self._stream.write(data)
            self._is_sending = False

    async def _watch_client(self, stream: PodStream) -> None:
        """Ends the stream of a client that has disconnected; one that has only stopped sending still gets its answer.

        The protocol has no half-closed connections, so the system is asked whether the client still listens.
        """
        while not self._client_is_gone():
            if self._client_done.is_set():
                await asyncio.sleep(_LOOK_EVERY_S)
            else:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._client_done.wait(), _LOOK_EVERY_S)
        await stream.close()

    async def _watch_pod(self, stream: PodStream, pod: Pod) -> None:
        """Ends a silent stream of a pod that was deleted: some servers do not close it, and it would hang forever."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            silent = time.monotonic() - self._last_byte > _SILENT_BEFORE_LOOK_S
            if silent and await self._choice.has_died(pod):
                self._pod_died = True
                await stream.close()
                return

    def _client_is_gone(self) -> bool:
        if self._writer.transport.is_closing():
            return True
        if not self._client_done.is_set():
            # Its end is behind data that the pod does not take, and so is not read.
            return self._is_sending and bool(has_left(self._writer))
        has_gone = has_left(self._writer)
        return time.monotonic() - self._last_byte > _SILENT_FOR_S if has_gone is None else has_gone


def reset(writer: asyncio.StreamWriter) -> None:
    """Ends a client's connection with a reset, so that it does not look like the end of the answer."""
    connection = writer.get_extra_info("socket")
    if connection is not None:
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
