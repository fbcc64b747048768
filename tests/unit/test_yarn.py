"""Killing applications: by any permitted way, with a message for each."""

import datetime
from collections.abc import Callable
from dataclasses import replace

import pytest

from replayctl import yarn
from replayctl.clients.resource_manager import Application
from replayctl.errors import RemoteCommandFailed, TimedOut, Unreachable
from tests.reporters import RecordingReporter

FIRST = Application(
    *("application_1_0001", "job", "alice", "default", "RUNNING", "UNDEFINED", "SPARK"),
    *((), datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC), None, 0.0, "", None, None, "", 0, 0),
)
SECOND = replace(FIRST, id="application_1_0002")


class Cluster:
    """Applications with their states at each look, and what may be done."""

    def __init__(self, **looks: list[str | Exception]) -> None:
        self.looks = {f"application_1_{name[1:]}": states for name, states in looks.items()}
        self.may_kill = True
        self.programs: list[list[str]] = []
        self.trouble: Exception | None = None

    @property
    def manager(self) -> "Cluster":
        return self

    def kill(self, name: str) -> bool:
        return self.may_kill

    def execute(self, argv: list[str], on_stdout: Callable[[bytes], None], timeout_s: float | None = None) -> None:
        self.programs.append(argv)
        if self.trouble:
            raise self.trouble

    def application(self, name: str) -> Application:
        states = self.looks[name]
        state = states.pop(0) if len(states) > 1 else states[0]
        if isinstance(state, Exception):
            raise state
        final = {"FINISHED": "SUCCEEDED", "KILLED": "KILLED"}.get(state, "UNDEFINED")
        return replace(FIRST, id=name, state=state, final_status=final)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)


def kill(cluster: Cluster, *applications: Application, timeout_s: float = 5.0) -> dict[str, tuple[str, bool, str]]:
    reporter = RecordingReporter()
    outcomes = yarn.kill(cluster, applications, reporter, timeout_s=timeout_s)  # type: ignore[arg-type] # enough of it
    return {outcome.id[-4:]: (outcome.state, outcome.ended, outcome.note) for outcome in outcomes}


def test_all_are_awaited_and_one_that_ends_by_itself_is_not_an_error() -> None:
    cluster = Cluster(a0001=["RUNNING", "RUNNING", "KILLED"], a0002=["RUNNING", "FINISHED"])
    assert kill(cluster, FIRST, SECOND) == {
        "0001": ("KILLED", True, "killed"),
        "0002": ("FINISHED", True, "ended by itself: SUCCEEDED"),
    }
    assert cluster.programs == []


def test_where_the_rest_api_forbids_it_yarns_own_program_does_it() -> None:
    cluster = Cluster(a0001=["RUNNING", "KILLED"])
    cluster.may_kill = False
    assert kill(cluster, FIRST) == {"0001": ("KILLED", True, "killed")}
    assert cluster.programs == [["yarn", "application", "-kill", "application_1_0001"]]


def test_the_programs_message_is_shown_for_an_application_that_continues() -> None:
    cluster = Cluster(a0001=["RUNNING"])
    cluster.may_kill = False
    cluster.trouble = RemoteCommandFailed("yarn application in pod rm ended with status 1", details="not yours")
    ((state, ended, note),) = kill(cluster, FIRST, timeout_s=0.01).values()
    assert (state, ended) == ("RUNNING", False)
    assert "not yours" in note


def test_a_program_that_hangs_keeps_no_other_application_from_being_killed() -> None:
    cluster = Cluster(a0001=["RUNNING"], a0002=["RUNNING", "KILLED"])
    cluster.may_kill = False
    cluster.trouble = TimedOut("yarn application in pod rm did not end within 120 s")
    outcomes = kill(cluster, FIRST, SECOND, timeout_s=0.5)
    assert len(cluster.programs) == 2
    assert outcomes["0001"][:2] == ("RUNNING", False)
    assert "did not end within 120 s" in outcomes["0001"][2]
    assert outcomes["0002"] == ("KILLED", True, "killed")


def test_a_manager_that_is_away_for_a_moment_is_asked_again() -> None:
    cluster = Cluster(a0001=[Unreachable("away"), "RUNNING", "KILLED"])
    assert kill(cluster, FIRST) == {"0001": ("KILLED", True, "killed")}


def test_an_application_that_does_not_end_in_time_is_reported() -> None:
    ((state, ended, note),) = kill(Cluster(a0001=["RUNNING"]), FIRST, timeout_s=0.01).values()
    assert (state, ended) == ("RUNNING", False)
    assert note.startswith("still RUNNING after")
