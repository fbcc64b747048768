"""The cluster from this machine: its services, and how they are reached.

Details are in `cluster` (credentials, requests, streams) and `forwarding` (listeners, links in pages, background).
"""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from replayctl.cluster.api import find_kubernetes
from replayctl.cluster.event_loop import event_loop
from replayctl.console.events import Reporter
from replayctl.errors import UsageProblem
from replayctl.forwarding import background, pages, targets
from replayctl.forwarding.background import Background
from replayctl.forwarding.forwarder import Listener
from replayctl.local import stack
from replayctl.settings.declared import Settings
from replayctl.settings.load import LOCAL_PROFILE

_LOCAL_PAGES = {"airflow": stack.airflow_url, "mlflow": stack.mlflow_url}


def plan_forwards(
    words: Sequence[str], settings: Settings, *, every: bool = False, port: str | None = None, links: bool | None = None
) -> list[Listener]:
    """The forwards to open, with their local ports. Raises what `targets.listeners` raises.

    Raises UsageProblem with the address for a service of the local profile, which needs no forward.
    """
    if settings.profile == LOCAL_PROFILE:
        for name in (word.partition("=")[0] for word in words):
            if name in _LOCAL_PAGES:
                raise UsageProblem(
                    f"{name} needs no forward in profile {LOCAL_PROFILE!r}: it is at {_LOCAL_PAGES[name](settings)}",
                    hint=f"run `replayctl open {name}`",
                )
    return targets.listeners(words, settings, every=every, port=port, links=links)


def plan_page(name: str, settings: Settings, *, port: str | None, by_forward: bool) -> str | list[Listener]:
    """A page's direct link, or the forward to it if the profile has no link or `by_forward` is set.

    The services of the local profile need neither: their addresses are on this machine.
    """
    link = None if by_forward else targets.direct_link(name, settings)
    if link is None and settings.profile == LOCAL_PROFILE and name in _LOCAL_PAGES and not by_forward:
        return _LOCAL_PAGES[name](settings)
    return link or targets.listeners([name], settings, every=False, port=port or targets.AUTO, links=None)


def forward(
    listeners: Sequence[Listener],
    settings: Settings,
    environ: Mapping[str, str],
    reporter: Reporter,
    tell: Callable[[list[Listener]], None],
) -> NoReturn:
    """Forwards until a signal ends the program; calls `tell` with the listeners once all of them are open."""
    cluster = find_kubernetes(settings, environ)
    opened: queue.SimpleQueue[list[Listener] | None] = queue.SimpleQueue()
    with event_loop("forwards") as loop:
        work = pages.serve(cluster, listeners, targets.namespaces(settings), reporter, opened.put)
        serving = asyncio.run_coroutine_threadsafe(work, loop)
        serving.add_done_callback(lambda _: opened.put(None))
        if (addresses := opened.get()) is not None:
            tell(addresses)
        serving.result()
    raise AssertionError("a forward ends by a signal only")


def forward_in_background(
    words: Sequence[str], settings: Settings, *, every: bool, port: str | None, links: bool | None
) -> Background:
    """Forwards in a recorded background process; returns when its listeners are open."""
    options = [*(["--all"] if every else []), *(["--port", port] if port else [])]
    options += [] if links is None else ["--links" if links else "--no-links"]
    return background.start(words, options, settings)
