"""Releases, rollbacks and what gc must keep, from the records alone."""

import datetime
import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dags.dag_entities import Namespace
from replayctl.clients.airflow import DagInfo
from replayctl.clients.airflow_runs import RunInfo
from replayctl.errors import Conflict, NotFound, OperationFailed, UsageProblem
from replayctl.publishing import history, removal
from replayctl.settings.declared import Settings
from replayctl.settings.load import load_settings
from replayctl.settings.workspace import Workspace
from replayctl.storage.answers import History
from tests.publishing import deploy, release_of, target_of, write_dags
from tests.reporters import RecordingReporter

MOMENT = datetime.datetime(2030, 1, 1, 12, tzinfo=datetime.UTC)


def at(minutes: int) -> str:
    return (MOMENT + datetime.timedelta(minutes=minutes)).isoformat()


def line(action: str, minutes: int, release: str | None = None, previous: str | None = None) -> dict:
    return {"action": action, "at": at(minutes), "release": release, "previous": previous}


def test_the_release_before_is_the_one_that_was_published_before() -> None:
    audit = (
        line("publish", 0, "r_a"),
        line("publish", 1, "r_b", "r_a"),
        line("rollback", 2, "r_a", "r_b"),
        line("publish", 3, "r_c", "r_a"),
    )
    known = {name: {"at": at(0)} for name in ("r_a", "r_b", "r_c")}
    assert history.choose(None, History("r_c", known, audit, 0)).name == "r_a"
    assert history.choose("r_b", History("r_c", known, audit, 0)).name == "r_b"
    with pytest.raises(UsageProblem, match="matches several releases: r_a, r_b, r_c"):
        history.choose("r_", History("r_c", known, audit, 0))
    with pytest.raises(NotFound, match="no earlier release"):
        history.choose(None, History("r_c", {"r_c": {}}, audit, 0))
    with pytest.raises(NotFound, match="release 'r_x' does not exist"):
        history.choose("r_x", History("r_c", known, audit, 0))


def test_what_airflow_could_not_load_is_neither_the_release_before_nor_among_the_newest() -> None:
    audit = (
        line("publish", 0, "r_a"),
        line("publish", 1, "r_b", "r_a"),
        line("publish", 2, "r_bad", "r_b"),
        line("withdraw", 3, "r_b", "r_bad"),
    )
    known = {name: {"at": at(0)} for name in ("r_a", "r_b", "r_bad")}
    assert history.choose(None, History("r_b", known, audit, 0)).name == "r_a"
    assert [record.name for record in history.records_of(History("r_b", known, audit, 0))] == ["r_b", "r_a", "r_bad"]


def test_a_line_without_a_move_of_the_pointer_is_not_a_publish() -> None:
    known = {name: {"at": at(0)} for name in ("r_a", "r_b", "r_c")}
    audit = (line("publish", 0, "r_a"), line("publish", 1, "r_b", "r_a"), line("publish", 2, "r_c", "r_b"))
    cut_off = History("r_b", known, audit, 0)
    assert [record.name for record in history.records_of(cut_off)] == ["r_b", "r_a", "r_c"]
    assert history.choose(None, cut_off).name == "r_a"
    # The same again, and done this time.
    result = History("r_c", known, (*audit, line("publish", 3, "r_c", "r_b")), 0)
    assert [record.name for record in history.records_of(result)] == ["r_c", "r_b", "r_a"]
    assert history.choose(None, result).name == "r_b"


def test_a_move_without_a_line_is_known_from_the_next_line_or_the_pointer() -> None:
    known = {name: {"at": at(0)} for name in ("r_a", "r_b", "r_c")}
    audit = (line("publish", 0, "r_a"), line("publish", 2, "r_c", "r_b"))
    assert history.choose(None, History("r_c", known, audit, 0)).name == "r_b"
    assert [record.name for record in history.records_of(History("r_c", known, audit, 0))] == ["r_c", "r_b", "r_a"]
    lost = History("r_b", known, audit[:1], 0)
    assert [record.name for record in history.records_of(lost)][:2] == ["r_b", "r_a"]
    assert history.choose(None, lost).name == "r_a"
    assert history.records_of(History("r_b", known, (), 0))[0].name == "r_b"


@given(
    st.sampled_from(["cut", "lost"]).flatmap(
        lambda broken: st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["done", broken])), max_size=12)
    )
)
def test_whatever_is_killed_the_history_is_what_the_pointer_did(steps: list[tuple[str, str]]) -> None:
    pointer: str | None = None
    audit: list[dict] = []
    moved: list[str] = []
    last = ""
    for minute, (letter, how) in enumerate(steps):
        release = f"r_{letter}"
        if release == pointer:
            continue
        # One lost line can be told from its neighbours; of two in a row, or of a way back, nothing is left.
        if how == "lost" and (not moved or last == "lost" or release in moved):
            continue
        last = how
        if how != "lost":
            audit.append(line("publish", minute, release, pointer))
        if how != "cut":
            pointer = release
            moved.append(release)
    known = {f"r_{letter}": {"at": at(0)} for letter in "abcd"}
    records = history.records_of(History(pointer, known, tuple(audit), 0))
    if pointer is not None:
        assert records[0].name == pointer
        before = [release for release in moved if release != pointer]
        if before:
            assert history.choose(None, History(pointer, known, tuple(audit), 0)).name == before[-1]


def test_a_try_may_run_what_was_published_when_it_began_or_later() -> None:
    audit = tuple(line("publish", 10 * index, f"r_{index}") for index in range(5))
    releases = history.published_since(History("r_4", {}, audit, 0), MOMENT + datetime.timedelta(minutes=25))
    assert releases == {"r_2", "r_3", "r_4"}
    assert history.published_since(History("r_4", {}, audit, 0), MOMENT - datetime.timedelta(1)) == {
        f"r_{index}" for index in range(5)
    }
    broken = ({"action": "publish", "release": "r_9", "at": "yesterday"}, {})
    assert history.published_since(History("r_4", {}, broken, 0), MOMENT) == set()


@dataclass
class Server:
    """An Airflow with tries that run and DAGs that it will not forget."""

    tries: list[datetime.datetime] = field(default_factory=list)
    runs: list[RunInfo] = field(default_factory=list)
    stubborn: tuple[str, ...] = ()
    deleted: list[str] = field(default_factory=list)

    def dags(self) -> Iterable[DagInfo]:
        return [DagInfo(f"{name}_alice", f"/x/dag_{name}_alice.py", "t", False, False) for name in "ab"]

    def live_tries(self, dag_ids: Sequence[str]) -> list[datetime.datetime]:
        return self.tries

    def live_runs(self, dag_ids: Sequence[str]) -> list[RunInfo]:
        return self.runs

    def delete_dag(self, dag_id: str) -> None:
        if dag_id in self.stubborn:
            raise OperationFailed("something of it runs")
        self.deleted.append(dag_id)


@pytest.fixture
def place(tmp_path: Path) -> tuple[Settings, list[str], Path]:
    home = tmp_path / "home"
    (home / "dags").mkdir(parents=True)
    environ = {"HOME": str(tmp_path), "REPLAYCTL_LOCAL_HOME": str(home), "USERNAME_ON_CLUSTER": "alice"}
    target = target_of({"dags": str(home / "dags"), "files": str(home / "spark_submit_files"), "owner": "alice"})
    names = []
    for value in range(4):
        release = release_of(write_dags(tmp_path / "own", value), "alice")
        deploy(target, Namespace("alice"), release)
        names.append(release.name)
    return load_settings(None, environ=environ, cwd=tmp_path), names, home


def stored(home: Path) -> set[str]:
    return {path.name for path in (home / "dags" / "replayctl_releases" / "alice").glob("r_*")}


def gc(place: tuple, server: Server | None, **options: object) -> removal.Removal:
    return removal.gc(Workspace(place[0], Namespace("alice"), RecordingReporter()), server=server, **options)  # type: ignore[arg-type]


def test_gc_keeps_the_newest_the_published_and_what_may_run(place: tuple) -> None:
    _, names, home = place
    assert gc(place, Server(tries=[datetime.datetime.now(tz=datetime.UTC)]), keep=1).removed == ()
    now = datetime.datetime.now(tz=datetime.UTC)
    # A run under way goes on with the release it began with, though none of its tasks runs now.
    assert gc(place, Server(runs=[RunInfo("a_alice", "r", "queued", None, None, now)]), keep=1).removed == ()
    assert gc(place, None, keep=1).removed == ()
    planned = gc(place, Server(), keep=2, dry_run=True)
    assert set(planned.removed) == set(names[:2])
    assert stored(home) == set(names)
    removed = gc(place, Server(), keep=2)
    assert removed.kept[names[3]] == "published"
    assert stored(home) == set(names[2:])


def test_gc_asks_only_for_dags_that_the_server_knows(place: tuple) -> None:
    queries: list[str] = []

    class Asked(Server):
        def live_tries(self, dag_ids: Sequence[str]) -> list[datetime.datetime]:
            queries.extend(dag_ids)
            return []

    gc(place, Asked(), keep=1)
    # Of modules that build their DAGs themselves, too: they are found by their stubs.
    assert queries == ["a_alice", "b_alice"]


def rollback_to(place: tuple, release: str, **options: object) -> object:
    from replayctl.publishing import rollback

    return rollback.rollback(
        release,
        Workspace(place[0], Namespace("alice"), RecordingReporter()),
        find_server=None,
        **options,  # type: ignore[arg-type]
    )


def test_rollback_keeps_hand_edits_and_a_dry_run_looks_as_closely(place: tuple) -> None:
    _, names, home = place
    stub = home / "dags" / "dag_a_alice.py"
    stub.write_text(stub.read_text() + "# mine\n")
    for dry_run in (True, False):
        with pytest.raises(Conflict, match="dag_a_alice.py"):
            rollback_to(place, names[0], dry_run=dry_run)
    rollback_to(place, names[0], force=True)
    assert not stub.read_text().endswith("# mine\n")
    shutil.rmtree(home / "spark_submit_files" / "alice" / names[1])
    with pytest.raises(Conflict, match="is incomplete"):
        rollback_to(place, names[1], dry_run=True)


def test_undeploy_waits_for_nobody_and_says_what_airflow_kept(place: tuple) -> None:
    settings, _, home = place
    with pytest.raises(Conflict, match="are running"):
        removal.undeploy(Workspace(settings, Namespace("alice"), RecordingReporter()), server=Server(tries=[MOMENT]))
    assert len(stored(home)) == 4
    server = Server(stubborn=("b_alice",))
    removed = removal.undeploy(
        Workspace(settings, Namespace("alice"), RecordingReporter()), server=server, delete_from_airflow=True
    )
    assert removed.dags_deleted == ("a_alice",)
    assert removed.dags_left == {"b_alice": "something of it runs"}
    assert stored(home) == set()
    assert list((home / "dags").glob("dag_*")) == []
    lines = (home / "dags" / "replayctl_releases" / "alice" / "audit.log").read_text().splitlines()
    assert [json.loads(entry)["action"] for entry in lines] == ["publish"] * 4 + ["undeploy", "gc"]
