"""A service of the cluster as a plain address, for as long as a block runs: a forward in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator

from replayctl.cluster.api import Endpoint, Kubernetes
from replayctl.console.events import Reporter
from replayctl.errors import TimedOut
from replayctl.forwarding.forwarder import Forwarder, Listener

_OPEN_WITHIN_S = 30.0


@contextlib.contextmanager
def open_tunnel(cluster: Kubernetes, target: Endpoint, reporter: Reporter) -> Iterator[str]:
    """Gives `http://127.0.0.1:PORT` for the target. Raises what `Forwarder.open` raises, TimedOut after 30 s."""
    opened = threading.Event()
    found: list[str] = []
    failed: list[BaseException] = []
    loop = asyncio.new_event_loop()

    async def work() -> None:
        try:
            async with Forwarder(cluster, reporter) as forwarder:
                found.append((await forwarder.open(Listener(str(target), target, 0))).url)
                opened.set()
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            return
        except BaseException as error:  # noqa: BLE001 - raised again where the tunnel was asked for
            failed.append(error)
            opened.set()

    task = loop.create_task(work())

    def run() -> None:
        try:
            loop.run_until_complete(task)
        finally:
            loop.close()

    thread = threading.Thread(target=run, daemon=True, name=f"tunnel to {target}")
    thread.start()
    try:
        if not opened.wait(_OPEN_WITHIN_S):
            raise TimedOut(f"no way to {target} was found within {_OPEN_WITHIN_S:.0f} s")
        if failed:
            raise failed[0]
        yield found[0]
    finally:
        with contextlib.suppress(RuntimeError):
            # Closed already, when it has failed.
            loop.call_soon_threadsafe(task.cancel)
        thread.join(5.0)
