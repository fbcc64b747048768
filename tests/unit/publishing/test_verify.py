"""The evidence that a server shows a release, and how often the server is asked for it."""

import datetime
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from replayctl.clients.airflow import DagInfo, ImportProblem
from replayctl.errors import AuthFailed, Conflict, NotFound, OperationFailed, TimedOut
from replayctl.publishing.verify import Expected, Watcher
from replayctl.settings.load import load_settings
from replayctl.storage.target import Publication
from tests.reporters import RecordingReporter, SilentReporter

RELEASE = "r_0123456789abcdef"
NOTHING_DECLARED = Expected(
    RELEASE,
    dags={},
    stubs=frozenset({"dag_free_alice.py", "dag_loose_alice.py"}),
    free_stubs=frozenset({"dag_free_alice.py", "dag_loose_alice.py"}),
)


class Server:
    """An Airflow that shows some DAGs, each with its tasks, and counts how often it is asked for all of them."""

    def __init__(self, dags: Mapping[str, Mapping[str, str]]) -> None:
        self.shown = dict(dags)
        self.listed = 0
        self.problems: list[ImportProblem] = []

    def dags(self) -> Iterable[DagInfo]:
        self.listed += 1
        return [
            DagInfo(dag_id, f"/dags/dag_{dag_id}_alice.py", f"token-{dag_id}", is_paused=False, is_stale=False)
            for dag_id in self.shown
        ]

    def tasks_docs(self, dag_id: str) -> Mapping[str, str]:
        if dag_id not in self.shown:
            raise NotFound(dag_id)
        return self.shown[dag_id]

    def import_problems(self) -> list[ImportProblem]:
        return self.problems

    def reparse(self, file_token: str) -> None:
        assert file_token.startswith("token-")


@pytest.fixture
def watcher(tmp_path: Path) -> Watcher:
    environ = {"HOME": str(tmp_path), "REPLAYCTL_DEPLOY_TIMEOUT_S": "0.05", "REPLAYCTL_USER": "alice"}
    settings = load_settings(None, environ=environ, cwd=tmp_path)
    return Watcher(Server({}), settings, SilentReporter())


def wait(watcher: Watcher, server: Server, expected: Expected) -> None:
    watcher.server = server
    watcher.wait(expected, sleep=lambda _s: None)


def test_a_module_without_tasks_does_not_prove_a_release(watcher: Watcher) -> None:
    tasks = {"x": f"Release: {RELEASE}"}
    with pytest.raises(TimedOut, match="dag_loose_alice.py") as excinfo:
        wait(watcher, Server({"free": tasks, "loose": {}}), NOTHING_DECLARED)
    assert "tasks" in str(excinfo.value)
    wait(watcher, Server({"free": tasks, "loose": tasks}), NOTHING_DECLARED)


@pytest.mark.parametrize(("names", "words"), [(("one",), "1 DAG left"), (("one", "two"), "2 DAGs left")])
def test_one_dag_is_not_several(watcher: Watcher, names: Iterable[str], words: str) -> None:
    watcher._reporter = reporter = RecordingReporter()
    expected = Expected(RELEASE, dags=dict.fromkeys(names), stubs=frozenset(), free_stubs=frozenset())
    with pytest.raises(TimedOut):
        wait(watcher, Server({name: {} for name in names}), expected)
    assert words in reporter.messages("status")[0]


def test_a_release_whose_tasks_are_not_known_needs_one_that_shows_it(watcher: Watcher) -> None:
    expected = Expected(RELEASE, dags={"one": None}, stubs=frozenset(), free_stubs=frozenset())
    with pytest.raises(TimedOut):
        wait(watcher, Server({"one": {}}), expected)
    wait(watcher, Server({"one": {"x": f"Release: {RELEASE}"}}), expected)


def test_a_server_without_dags_has_the_time_that_it_needs_to_find_new_files(
    watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, clock = Server({}), [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    watcher.server = server

    def sleep(_seconds: float) -> None:
        clock[0] += 10.0
        if clock[0] == 300.0:
            server.shown["one"] = {"x": f"Release: {RELEASE}"}

    stubs = frozenset({"dag_one_alice.py"})
    expected = Expected(RELEASE, dags={"one": frozenset({"x"})}, stubs=stubs, free_stubs=frozenset())
    assert watcher.wait(expected, sleep=sleep) == 300.0
    del server.shown["one"]
    clock[0] = 0.0
    with pytest.raises(TimedOut, match="after 310 s"):
        watcher.wait(expected, sleep=lambda _s: clock.__setitem__(0, clock[0] + 10.0))


def test_all_dags_are_listed_once_for_all_that_are_waited_for(watcher: Watcher) -> None:
    server = Server({"free": {"x": f"Release: {RELEASE}"}, "loose": {"x": f"Release: {RELEASE}"}})
    wait(watcher, server, NOTHING_DECLARED)
    assert server.listed == 1


def test_the_servers_words_about_a_module_come_with_the_error(watcher: Watcher) -> None:
    server = Server({})
    now = datetime.datetime.now(tz=datetime.UTC)
    server.problems = [ImportProblem("/dags/dag_free_alice.py", f"in {RELEASE}: boom", now)]
    with pytest.raises(OperationFailed, match="cannot load dag_free_alice.py") as excinfo:
        wait(watcher, server, NOTHING_DECLARED)
    assert "boom" in (excinfo.value.details or "")


class Broken:
    """A target whose lock was broken meanwhile."""

    def publish(self, token: str, publication: Publication) -> None:
        raise Conflict("the lock was broken by someone else", hint="deploy again")


def test_what_cannot_be_taken_back_does_not_hide_why(watcher: Watcher) -> None:
    now = datetime.datetime.now(tz=datetime.UTC)
    server = Server({})
    server.problems = [ImportProblem("/dags/dag_free_alice.py", f"in {RELEASE}: boom", now)]
    watcher.server = server
    back = Publication("r_before", "{}")
    with pytest.raises(OperationFailed, match="cannot load dag_free_alice.py") as excinfo:
        watcher.wait_or_give_back(NOTHING_DECLARED, Broken(), "token", back)  # type: ignore[arg-type]
    assert "r_before could not be published again: the lock was broken" in str(excinfo.value)
    assert (excinfo.value.details, excinfo.value.hint) == (f"in {RELEASE}: boom", "deploy again")


def test_a_server_that_does_not_answer_this_user_says_why(watcher: Watcher, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise AuthFailed("Airflow refused user 'u'", details="locked", hint="check airflow.username")

    watcher.server = Server({})
    monkeypatch.setattr(watcher.server, "import_problems", refuse)
    with pytest.raises(AuthFailed, match=f"published {RELEASE} without verifying") as excinfo:
        watcher.wait_or_give_back(NOTHING_DECLARED, Broken(), "token", None)  # type: ignore[arg-type]
    assert (excinfo.value.details, excinfo.value.hint) == ("locked", "check airflow.username")


def test_the_wait_names_a_time_and_counts_only_what_is_known(watcher: Watcher) -> None:
    reporter = RecordingReporter()
    watcher._reporter = reporter
    known = Server({"known": {"split": "Release: r_other"}})
    watcher.server = known
    watcher.look()
    expected = Expected(RELEASE, {"known": frozenset({"split"})}, frozenset(), frozenset({"dag_free_alice.py"}))
    with pytest.raises(TimedOut):
        wait(watcher, known, expected)
    assert any(
        "1 DAG and those of 1 free-form module left (1 changed: Airflow updates such DAGs within seconds)" in line
        for _, line in reporter.events
    )
