"""Tunnels to pods, which are kept open for later connections."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field

from replayctl.cluster.api import Kubernetes, Pod
from replayctl.cluster.carriers import Channel, Tunnel
from replayctl.cluster.pod_streams import PodStream
from replayctl.cluster.websocket import WebSocket, open_websocket
from replayctl.errors import Unreachable

_SPDY, _V4 = "SPDY/3.1+portforward.k8s.io", "v4.channel.k8s.io"
_OFFERED = (_SPDY, _V4)
# One tunnel is kept idle, so that a new connection need not share one with a reader that stops.
_MOST_TUNNELS = 4
_IDLE_FOR_S = 60.0


@dataclass
class _Way:
    """The tunnels to one pod, including the one that is being opened."""

    tunnels: list[Tunnel] = field(default_factory=list)
    opening: asyncio.Task[Tunnel | None] | None = None
    used_at: float = field(default_factory=time.monotonic)


class Tunnels:
    """All tunnels of one event loop to pods of one cluster."""

    def __init__(self, cluster: Kubernetes) -> None:
        self._cluster = cluster
        self._ways: dict[tuple[str, str], _Way] = {}
        # Each with the task that closes it when it is idle.
        self._retired: dict[asyncio.Task[None], Tunnel] = {}
        # Known after the first answer.
        self._has_tunnels = True

    async def dial(self, pod: Pod, port: int) -> PodStream:
        """Opens a connection to a pod's port. Raises Unreachable, or the error of a refusal."""
        for last in (False, True):
            tunnel = await self._tunnel(pod, port)
            if tunnel is None:
                return Channel(await self._open(pod, port, (_V4,))).stream
            try:
                return await tunnel.open(port)
            except Unreachable:
                # A tunnel that broke while idle says nothing about the pod; retire the others to it as well.
                self.retire(pod)
                if last:
                    raise
        raise AssertionError("the second try returns or raises")

    async def prepare(self, pod: Pod, port: int) -> bool:
        """Opens a tunnel in advance; False if the server has none. Raises what `dial` raises."""
        return self._has_tunnels and await self._tunnel(pod, port) is not None

    def retire(self, pod: Pod) -> None:
        """Stops using the tunnels to this pod for new connections."""
        if (way := self._ways.pop((pod.namespace, pod.name), None)) is not None:
            for tunnel in way.tunnels:
                self._close_when_idle(tunnel)

    async def close(self) -> None:
        """Closes everything."""
        openings = [way.opening for way in self._ways.values() if way.opening is not None]
        # A task that is cancelled before it starts has closed nothing.
        tunnels = list(self._retired.values())
        for task in (*openings, *self._retired):
            task.cancel()
        await asyncio.gather(*openings, *self._retired, return_exceptions=True)
        tunnels += [tunnel for way in self._ways.values() for tunnel in way.tunnels]
        self._ways.clear()
        await asyncio.gather(*(tunnel.close() for tunnel in tunnels))

    async def _tunnel(self, pod: Pod, port: int) -> Tunnel | None:
        """The best tunnel for a new connection; None if the server has none."""
        if not self._has_tunnels:
            return None
        way = self._ways.setdefault((pod.namespace, pod.name), _Way())
        way.used_at = time.monotonic()
        self._trim(way)
        if not way.tunnels:
            # Callers that come meanwhile wait for the same one; a cancelled caller does not end it.
            return await asyncio.shield(self._opening(way, pod, port))
        best = min(way.tunnels, key=lambda tunnel: tunnel.load)
        others_idle = any(not tunnel.count for tunnel in way.tunnels if tunnel is not best)
        if not others_idle and way.opening is None and len(way.tunnels) < _MOST_TUNNELS:
            # Opened in advance; an error shows up once it is needed.
            self._opening(way, pod, port).add_done_callback(_look_away)
        return best

    def _opening(self, way: _Way, pod: Pod, port: int) -> asyncio.Task[Tunnel | None]:
        if way.opening is None:
            way.opening = asyncio.create_task(self._add(way, pod, port))
        return way.opening

    async def _add(self, way: _Way, pod: Pod, port: int) -> Tunnel | None:
        try:
            socket = await self._open(pod, port, _OFFERED)
            if socket.subprotocol != _SPDY:
                self._has_tunnels = False
                await socket.close()
                return None
            tunnel = Tunnel(socket)
            way.tunnels.append(tunnel)
            if self._ways.get((pod.namespace, pod.name)) is not way:
                self._close_when_idle(tunnel)
            return tunnel
        finally:
            way.opening = None

    async def _open(self, pod: Pod, port: int, protocols: tuple[str, ...]) -> WebSocket:
        path = f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}/portforward?ports={port}"
        return await open_websocket(
            self._cluster, path, protocols, f"port-forward to {pod.namespace}/{pod.name}:{port}"
        )

    def _trim(self, way: _Way) -> None:
        """Drops tunnels that have ended, and all but one of those that have been idle for long."""
        ended = [tunnel for tunnel in way.tunnels if not tunnel.is_usable]
        idle = [tunnel for tunnel in way.tunnels if tunnel.idle_for > _IDLE_FOR_S and tunnel not in ended]
        for tunnel in (*ended, *idle[1:]):
            way.tunnels.remove(tunnel)
            self._close_when_idle(tunnel)

    def _close_when_idle(self, tunnel: Tunnel) -> None:
        async def close() -> None:
            with contextlib.suppress(asyncio.CancelledError):
                await tunnel.idle()
            await tunnel.close()

        task = asyncio.create_task(close())
        self._retired[task] = tunnel
        task.add_done_callback(self._retired.pop)


def _look_away(opening: asyncio.Task[Tunnel | None]) -> None:
    if not opening.cancelled():
        opening.exception()
