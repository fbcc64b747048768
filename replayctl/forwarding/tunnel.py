"""A forward to a service of the cluster in a thread of its own, for the duration of a block."""

from __future__ import annotations

import asyncio
import contextlib
import queue
from collections.abc import Iterator, Sequence

from replayctl.cluster.api import Endpoint, Kubernetes
from replayctl.cluster.event_loop import event_loop
from replayctl.console.events import Reporter
from replayctl.errors import TimedOut
from replayctl.forwarding.addresses import AddressBook
from replayctl.forwarding.forwarder import Forwarder, Listener

_OPEN_WITHIN_S = 30.0


@contextlib.contextmanager
def open_tunnel(
    cluster: Kubernetes, target: Endpoint, reporter: Reporter, *, redirects_to: Sequence[str] = ()
) -> Iterator[str]:
    """Yields `http://127.0.0.1:PORT` for the target. Raises what `Forwarder.open` raises, TimedOut after 30 s.

    Redirects and links to the namespaces `redirects_to` lead through forwards as well.
    """
    opened: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    async def work() -> None:
        async with Forwarder(cluster, reporter) as forwarder:
            listener = Listener(str(target), target, 0, links=bool(redirects_to))
            if redirects_to:
                from replayctl.forwarding.pages import Pages

                pages = Pages(forwarder, AddressBook(cluster, redirects_to, reporter), reporter)
                opened.put((await pages.open(listener)).url)
            else:
                opened.put((await forwarder.open(listener)).url)
            await asyncio.Event().wait()

    with event_loop(f"tunnel to {target}") as loop:
        working = asyncio.run_coroutine_threadsafe(work(), loop)
        working.add_done_callback(lambda _: opened.put(None))
        try:
            url = opened.get(timeout=_OPEN_WITHIN_S)
        except queue.Empty:
            raise TimedOut(f"the forward to {target} did not open within {_OPEN_WITHIN_S:.0f} s") from None
        if url is None:
            working.result()
        else:
            yield url
