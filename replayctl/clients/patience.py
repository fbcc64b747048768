"""Waits for a server's answer; a server that is unavailable for a while does not end the wait."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TypeVar

from replayctl.console.events import Reporter
from replayctl.errors import NotReady, ReplayctlError, ServerTrouble, TimedOut, Unreachable

T = TypeVar("T")
# Errors that may pass, and are not an answer.
AWAY = (Unreachable, NotReady, ServerTrouble)


def _late(waited_s: float, trouble: ReplayctlError | None) -> ReplayctlError:
    return trouble or TimedOut(f"no answer after {waited_s:.0f} s")


def wait_until(
    look: Callable[[], T | None],
    late: Callable[[float, ReplayctlError | None], ReplayctlError] = _late,
    *,
    poll_s: float,
    reporter: Reporter,
    timeout_s: float | Callable[[], float] = math.inf,
    rest: float = 0.0,
    away: tuple[type[ReplayctlError], ...] = AWAY,
    away_for_s: float = math.inf,
    sleep: Callable[[float], None] | None = None,
) -> T:
    """Calls `look` every `poll_s` seconds until it returns a value, and returns that.

    While the server is unavailable (errors in `away`, for at most `away_for_s`), the calls are repeated and reported.
    After `timeout_s`, which may grow meanwhile, raises what `late` returns for the seconds waited and the last error.
    Other errors of `look` are raised at once. A pause is at least `rest` times as long as the last call took.
    """
    started = answered_at = time.monotonic()
    trouble: ReplayctlError | None = None
    while True:
        call_start = time.monotonic()
        try:
            answer = look()
            if trouble is not None:
                reporter.step("the server answers again")
            trouble, answered_at = None, time.monotonic()
            if answer is not None:
                return answer
        except away as error:
            if time.monotonic() - answered_at > away_for_s:
                raise
            if trouble is None:
                reporter.warn(f"{error}; retrying")
            trouble = error
            reporter.status(f"{error}; retrying for {time.monotonic() - answered_at:.0f} s")
        waited = time.monotonic() - started
        if waited > (timeout_s() if callable(timeout_s) else timeout_s):
            raise late(waited, trouble)
        (sleep or time.sleep)(max(poll_s, rest * (time.monotonic() - call_start)))
