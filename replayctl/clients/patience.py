"""The one way of waiting for what a server will say: a server that is away for a while does not end the wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from replayctl.console.events import Reporter
from replayctl.errors import NotReady, ReplayctlError, ServerTrouble, TimedOut, Unreachable

T = TypeVar("T")
# What may be over in a while, and is no answer.
AWAY = (Unreachable, NotReady, ServerTrouble)


def wait_until(
    look: Callable[[], T | None],
    late: Callable[[float, ReplayctlError | None], TimedOut],
    *,
    timeout_s: float,
    poll_s: float,
    reporter: Reporter,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """What `look` gives once it gives something; it is asked every `poll_s` seconds.

    While the server is away it is asked again, and the reporter says so. Raises what `late` makes of the seconds waited
    and the last trouble after `timeout_s`, and all that `look` raises besides.
    """
    started = time.monotonic()
    trouble: ReplayctlError | None = None
    while True:
        try:
            answer = look()
            if trouble is not None:
                reporter.step("it answers again")
            trouble = None
            if answer is not None:
                return answer
        except AWAY as error:
            if trouble is None:
                reporter.warn(f"{error}; asking again")
            trouble = error
            reporter.status(f"{error}; asking again for {time.monotonic() - started:.0f} s")
        waited = time.monotonic() - started
        if waited > timeout_s:
            raise late(waited, trouble)
        sleep(poll_s)
