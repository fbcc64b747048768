"""The one way of waiting for what a server will say: a server that is away for a while does not end the wait."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TypeVar

from replayctl.console.events import Reporter
from replayctl.errors import NotReady, ReplayctlError, ServerTrouble, TimedOut, Unreachable

T = TypeVar("T")
# What may be over in a while, and is no answer.
AWAY = (Unreachable, NotReady, ServerTrouble)


def _late(waited_s: float, trouble: ReplayctlError | None) -> ReplayctlError:
    return trouble or TimedOut(f"waited {waited_s:.0f} s in vain")


def wait_until(
    look: Callable[[], T | None],
    late: Callable[[float, ReplayctlError | None], ReplayctlError] = _late,
    *,
    poll_s: float,
    reporter: Reporter,
    timeout_s: float = math.inf,
    away: tuple[type[ReplayctlError], ...] = AWAY,
    away_for_s: float = math.inf,
    sleep: Callable[[float], None] | None = None,
) -> T:
    """What `look` gives once it gives something; it is asked every `poll_s` seconds.

    While the server is `away` it is asked again, for at most `away_for_s`, and the reporter says so. Raises what `late`
    makes of the seconds waited and the last trouble after `timeout_s`, and all that `look` raises besides.
    """
    started = answered_at = time.monotonic()
    trouble: ReplayctlError | None = None
    while True:
        try:
            answer = look()
            if trouble is not None:
                reporter.step("it answers again")
            trouble, answered_at = None, time.monotonic()
            if answer is not None:
                return answer
        except away as error:
            if time.monotonic() - answered_at > away_for_s:
                raise
            if trouble is None:
                reporter.warn(f"{error}; asking again")
            trouble = error
            reporter.status(f"{error}; asking again for {time.monotonic() - answered_at:.0f} s")
        waited = time.monotonic() - started
        if waited > timeout_s:
            raise late(waited, trouble)
        (sleep or time.sleep)(poll_s)
