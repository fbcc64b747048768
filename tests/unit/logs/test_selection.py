"""Which applications are selected, and which of them have lost their task."""

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dags.dag_entities import Namespace, instance_tag, yarn_tag
from replayctl.clients.airflow import DagInfo
from replayctl.clients.resource_manager import FINAL_STATES, Application
from replayctl.errors import NotFound, Unreachable, UsageProblem
from replayctl.logs.selection import ApplicationSelection, newest, orphans, select
from replayctl.settings.declared import Settings
from replayctl.settings.load import load_settings

EPOCH = datetime.datetime.fromtimestamp(0, tz=datetime.UTC)
Instance = tuple[str, str, str, int]


def application(number: int, instance: Instance | None, *, state: str = "RUNNING", user: str = "alice") -> Application:
    namespace = Namespace(user)
    tags = namespace.yarn_tags if instance is None else namespace.task_tags(*instance)
    name = "shell" if instance is None else f"{instance[0]}.{instance[2]}"
    running = Application(
        *(f"application_1_{number:04}", name, "root", "default", state, "UNDEFINED", "SPARK"),
        # YARN keeps them in small letters.
        tuple(tag.lower() for tag in tags),
        *(EPOCH + datetime.timedelta(seconds=number), None, 0.0, "", None, None, "", 0, 0),
    )
    return replace(running, finished=EPOCH) if state in FINAL_STATES else running


class Manager:
    """A ResourceManager that answers as the real one: any of the tags, any of the states, the newest first."""

    def __init__(self, *applications: Application) -> None:
        self.known = sorted(applications, key=lambda application: application.started, reverse=True)

    def applications(
        self,
        *,
        states: Sequence[str] = (),
        user: str | None = None,
        tags: Sequence[str] = (),
        started_since: datetime.datetime | None = None,
    ) -> list[Application]:
        assert user is None
        assert started_since is None
        return [
            application
            for application in self.known
            if (not states or application.state in states) and (not tags or set(tags) & set(application.tags))
        ]


class Airflow:
    """The answers of each look at the tasks that are alive, one after the other; the last one for ever."""

    def __init__(self, *looks: Sequence[Instance], dags: Sequence[str] = ()) -> None:
        self.looks = list(looks)
        self.dags = dags

    def live_instances(self) -> Iterator[Instance]:
        return iter(self.looks.pop(0) if len(self.looks) > 1 else self.looks[0])

    def find_dag(self, dag_id: str) -> DagInfo | None:
        return DagInfo(dag_id, "", "", False, False) if dag_id in self.dags else None


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(None, environ={"HOME": str(tmp_path), "REPLAYCTL_USER": "alice"}, cwd=tmp_path)


def selected(settings: Settings, selection: ApplicationSelection, *known: Application) -> list[int]:
    return [int(application.id[-4:]) for application in select(Manager(*known), selection, settings)]  # type: ignore[arg-type]


def test_all_conditions_hold_and_names_go_with_or_without_the_suffix(settings: Settings) -> None:
    known = (
        application(1, ("a_alice", "R", "fit", -1)),
        application(2, ("a_alice", "r", "fit", -1)),
        application(3, ("a_alice", "R", "eval", 0)),
        application(4, ("b_alice", "R", "fit", -1), state="FAILED"),
        application(5, ("a_bob", "R", "fit", -1), user="bob"),
        application(6, None),
    )
    assert selected(settings, ApplicationSelection(), *known) == [6, 5, 4, 3, 2, 1]
    assert selected(settings, ApplicationSelection(mine=True), *known) == [6, 4, 3, 2, 1]
    assert selected(settings, ApplicationSelection(dag="a"), *known) == [3, 2, 1]
    assert selected(settings, ApplicationSelection(dag="a_alice"), *known) == [3, 2, 1]
    assert selected(settings, ApplicationSelection(dag="a_bob"), *known) == [5]
    # Names that differ only in case are two names, though YARN does not keep their case.
    assert selected(settings, ApplicationSelection(run="R"), *known) == [5, 4, 3, 1]
    assert selected(settings, ApplicationSelection(run="r"), *known) == [2]
    assert selected(settings, ApplicationSelection(dag="a", task="fit", run="R"), *known) == [1]
    assert selected(settings, ApplicationSelection(mine=True, task="fit"), *known) == [4, 2, 1]


def test_the_newest_is_taken_and_nothing_is_an_error(settings: Settings) -> None:
    manager = Manager(application(1, ("a_alice", "1", "fit", -1)), application(2, ("a_alice", "2", "fit", -1)))
    app, others = newest(manager, ApplicationSelection(dag="a"), settings)  # type: ignore[arg-type]
    assert (app.id[-4:], others) == ("0002", 1)
    others_too = Manager(
        application(1, ("a_alice", "1", "fit", -1)),
        application(2, ("a_bob", "2", "fit", -1), user="bob"),
        application(3, ("c_bob", "2", "eval", -1), user="bob"),
    )
    # One's own come first, and others' only when none of one's own fits.
    assert newest(others_too, ApplicationSelection(task="fit"), settings)[0].id[-4:] == "0001"  # type: ignore[arg-type]
    assert newest(others_too, ApplicationSelection(task="eval"), settings)[0].id[-4:] == "0003"  # type: ignore[arg-type]
    assert newest(others_too, ApplicationSelection(dag="a_bob"), settings)[0].id[-4:] == "0002"  # type: ignore[arg-type]
    with pytest.raises(NotFound, match="no application matches the step"):
        newest(manager, ApplicationSelection(dag="other"), settings)  # type: ignore[arg-type]
    with pytest.raises(NotFound, match="has your tag"):
        newest(Manager(), ApplicationSelection(mine=True), settings)  # type: ignore[arg-type]


def test_without_a_user_a_whole_dag_id_is_enough(settings: Settings) -> None:
    nobody = replace(settings, user=None)
    known = application(1, ("a_alice", "1", "fit", -1))
    assert selected(nobody, ApplicationSelection(dag="a_alice"), known) == [1]
    with pytest.raises(UsageProblem, match="no user"):
        selected(nobody, ApplicationSelection(mine=True), known)


ALIVE: Instance = ("a_alice", "1", "fit", -1)
ENDED: Instance = ("a_alice", "2", "fit", -1)
GONE: Instance = ("old_alice", "1", "fit", -1)


def lost(settings: Settings, manager: Manager, airflow: Airflow) -> dict[str, str]:
    lost_orphans = orphans(manager, airflow, settings)  # type: ignore[arg-type]
    return {orphan.application.id[-4:]: orphan.reason for orphan in lost_orphans}


def test_orphans_are_those_whose_task_has_ended_or_is_unknown(settings: Settings) -> None:
    manager = Manager(
        application(1, ALIVE),
        application(2, ENDED),
        application(3, GONE),
        application(4, None),
        application(5, ENDED, state="KILLED"),
        application(6, ("a_bob", "2", "fit", -1), user="bob"),
    )
    lost_orphans = lost(settings, manager, Airflow([ALIVE], dags=["a_alice"]))
    assert lost_orphans == {
        "0002": "no active task of a_alice owns it",
        "0003": "Airflow has no DAG 'old_alice'",
    }


def test_the_application_of_a_task_that_one_request_misses_is_not_an_orphan(settings: Settings) -> None:
    assert lost(settings, Manager(application(1, ALIVE)), Airflow([], [ALIVE])) == {}


def test_an_application_that_ends_meanwhile_is_not_an_orphan(settings: Settings) -> None:
    manager = Manager(application(1, ENDED))

    class Slow(Airflow):
        def live_instances(self) -> Iterator[Instance]:
            manager.known = [application(1, ENDED, state="FINISHED")]
            return iter(())

    assert lost(settings, manager, Slow([])) == {}


def test_without_an_answer_of_airflow_nothing_is_an_orphan(settings: Settings) -> None:
    class Silent(Airflow):
        def live_instances(self) -> Iterator[Instance]:
            raise Unreachable("Airflow does not answer")

    with pytest.raises(Unreachable):
        lost(settings, Manager(application(1, ENDED)), Silent([]))


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), min_size=1, max_size=250)


@given(NAMES, NAMES)
def test_tags_are_such_that_yarn_takes_them_and_keep_names_apart(one: str, other: str) -> None:
    tags = Namespace("alice").task_tags(one, other, one, 3)
    assert len(tags) <= 10
    assert all(tag.isascii() and tag.isprintable() and len(tag) <= 100 and "," not in tag for tag in tags)
    assert all(tag == tag.lower() for tag in tags)
    assert (yarn_tag("dag", one) == yarn_tag("dag", other)) == (one == other)
    assert (instance_tag(one, "r", "t", 0) == instance_tag(other, "r", "t", 0)) == (one == other)
    assert instance_tag(one, other, "t", 0) != instance_tag(one, other, "t", 1)
