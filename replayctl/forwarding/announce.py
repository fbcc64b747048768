"""Says that a command forwards to a server by itself: once for each server, however often it is opened."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from replayctl.console.events import Reporter

_announced: WeakKeyDictionary[Reporter, set[str]] = WeakKeyDictionary()


def announce_forward(reporter: Reporter, setting: str, target: str) -> None:
    """Reports the forward, and the setting that would make it unnecessary."""
    message = f"{setting} is not set: forwarding to {target}"
    if message not in (messages := _announced.setdefault(reporter, set())):
        messages.add(message)
        reporter.step(message)
