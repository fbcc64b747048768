"""Waiting: what is asked again, for how long, and what ends it."""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from replayctl.clients import patience
from replayctl.errors import OperationFailed, ReplayctlError, TimedOut, Unreachable
from tests.reporters import RecordingReporter

AWAY = Unreachable("no answer")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that only sleeping moves on."""
    now = [0.0]
    monkeypatch.setattr(patience.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(patience.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))


def wait(answers: Iterator[Any], reporter: RecordingReporter | None = None, **limits: Any) -> Any:
    def look() -> Any:
        answer = next(answers)
        if isinstance(answer, ReplayctlError):
            raise answer
        return answer

    return patience.wait_until(look, poll_s=10, reporter=reporter or RecordingReporter(), **limits)


@pytest.mark.usefixtures("clock")
def test_requests_repeat_until_there_is_an_answer_and_each_outage_is_reported_once() -> None:
    reporter = RecordingReporter()
    answers = iter([None, AWAY, AWAY, None, AWAY, "done"])
    assert wait(answers, reporter, away_for_s=25) == "done"
    assert reporter.messages("warn") == ["no answer; retrying"] * 2
    assert reporter.messages("step") == ["the server answers again"] * 2


@pytest.mark.usefixtures("clock")
def test_an_absence_that_is_too_long_ends_it_however_long_the_wait_may_be() -> None:
    answers = itertools.chain([None] * 50, itertools.repeat(AWAY))
    with pytest.raises(Unreachable, match="no answer"):
        wait(answers, away_for_s=300)


@pytest.mark.usefixtures("clock")
def test_the_time_ends_it_with_the_last_trouble() -> None:
    troubles: list[Any] = []

    def late(waited_s: float, trouble: ReplayctlError | None) -> ReplayctlError:
        troubles.append((waited_s, trouble))
        return TimedOut("too late")

    for answer in (None, AWAY):
        with pytest.raises(TimedOut, match="too late"):
            wait(itertools.repeat(answer), late=late, timeout_s=25)
    assert troubles == [(30.0, None), (30.0, AWAY)]
    with pytest.raises(Unreachable):
        wait(itertools.repeat(AWAY), timeout_s=25)


@pytest.mark.usefixtures("clock")
def test_a_refusal_is_an_answer_unless_it_counts_as_absence() -> None:
    refusal = OperationFailed("HTTP 409")
    with pytest.raises(OperationFailed):
        wait(iter([refusal, "done"]))
    assert wait(iter([refusal, "done"]), away=(OperationFailed,)) == "done"
