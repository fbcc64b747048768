"""Evaluations are recorded in MLflow once, whatever happens on the way."""

import contextlib
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replayctl.clients.mlflow import DeletedExperiment, MlflowApi, MlflowRun
from replayctl.errors import NotFound, OperationFailed, Unreachable
from replayctl.experiments.mlflow_sync import Evaluation, Synced, parse_evaluation, sync
from tests.reporters import RecordingReporter

IDENTITY = "0123456789abcdef"


class FakeMlflow(MlflowApi):
    """Experiments and runs in memory; the call with the number `fails_at` does its work, or not, and raises."""

    def __init__(self) -> None:
        super().__init__("http://mlflow")
        self.experiments: dict[str, str] = {}
        self.binned: set[str] = set()
        self.all: dict[str, MlflowRun] = {}
        self.calls = 0
        self.fails_at: tuple[int, bool] | None = None
        self._ids = (f"{number:032x}" for number in itertools.count(1))

    @contextlib.contextmanager
    def call(self) -> Iterator[bool]:
        """Whether the call does its work."""
        self.calls += 1
        if self.fails_at is None or self.fails_at[0] != self.calls:
            yield True
            return
        yield self.fails_at[1]
        raise Unreachable("MLflow does not answer")

    def experiment_id(self, name: str) -> str:
        with self.call():
            pass
        if name in self.binned:
            raise DeletedExperiment(name)
        if name not in self.experiments:
            raise NotFound(name)
        return self.experiments[name]

    def create_experiment(self, name: str) -> str:
        with self.call() as works:
            if works:
                self.experiments[name] = f"e{len(self.experiments)}"
        return self.experiments[name]

    def all_runs(self, experiment_id: str, filter_string: str) -> Iterator[MlflowRun]:
        with self.call():
            pass
        identity = filter_string.rpartition("= '")[2].rstrip("'")
        return iter([run for run in self.all.values() if run.tags["replayctl.evaluation"] == identity])

    def record(
        self,
        experiment_id: str,
        *,
        name: str,
        start_unix_ms: int,
        tags: Mapping[str, str],
        params: Mapping[str, str],
        metrics: Mapping[str, float],
    ) -> str:
        run_id = next(self._ids)
        with self.call() as works:
            if works:
                self.all[run_id] = MlflowRun(run_id, name, start_unix_ms, metrics, params, tags, is_finished=False)
        return run_id

    def finish(self, run_id: str, end_unix_ms: int) -> None:
        with self.call() as works:
            if works:
                self.all[run_id] = replace(self.all[run_id], is_finished=True)

    def delete_run(self, run_id: str) -> None:
        with self.call() as works:
            if works:
                self.all[run_id] = replace(self.all[run_id], is_deleted=True)

    def restore_run(self, run_id: str) -> None:
        with self.call() as works:
            if works:
                self.all[run_id] = replace(self.all[run_id], is_deleted=False)

    def active(self) -> list[MlflowRun]:
        return [run for run in self.all.values() if not run.is_deleted]


def document(identity: str = IDENTITY, server: str = "", at: int = 1795650000000) -> dict[str, Any]:
    def run(name: str, level: str) -> dict[str, Any]:
        tags = {"replayctl.evaluation": identity, "replayctl.level": level, "replayctl.dataset": "ml100k"}
        return {"name": name, "tags": tags, "params": {"rank": "8"}, "metrics": {"NDCG.10": 0.25}}

    runs = [run("ml100k", "experiment"), run("als", "first"), run("lightgbm", "second")]
    return {"evaluation": identity, "experiment": "e_alice", "server": server, "recorded_unix_ms": at, "runs": runs}


def evaluation(identity: str = IDENTITY, server: str = "", at: int = 1795650000000) -> Evaluation:
    return parse_evaluation(identity, json.dumps(document(identity, server, at)))


def synced(api: FakeMlflow, *evaluations: Evaluation, dry_run: bool = False) -> list[Synced]:
    return sync(evaluations, lambda server: contextlib.nullcontext(api), RecordingReporter(), dry_run=dry_run)


def test_what_is_missing_is_recorded_once_with_its_own_time() -> None:
    api = FakeMlflow()
    assert [result.state for result in synced(api, evaluation(), dry_run=True)] == ["missing"]
    assert api.all == {}
    (result,) = synced(api, evaluation())
    assert (result.state, result.models, result.dataset) == ("recorded", 2, "ml100k")
    assert [result.state for result in synced(api, evaluation())] == ["present"]
    parent, *below = api.active()
    assert result.mlflow_run == parent.run_id
    assert {run.tags["mlflow.parentRunId"] for run in below} == {parent.run_id}
    assert {(run.start_unix_ms, run.is_finished, run.metrics["NDCG.10"]) for run in api.active()} == {
        (1795650000000, True, 0.25)
    }


@pytest.mark.parametrize("works", [False, True], ids=["before", "after"])
def test_cut_off_at_any_call_the_next_sync_leaves_it_recorded_once(works: bool) -> None:
    for stage in itertools.count(1):
        api = FakeMlflow()
        api.fails_at = (stage, works)
        (result,) = synced(api, evaluation())
        if api.calls < stage:
            assert result.state == "recorded"
            assert stage > 8
            break
        assert (result.state, result.error) == ("failed", "MLflow does not answer")
        api.fails_at = None
        assert synced(api, evaluation())[0].state in ("recorded", "present")
        assert len(api.active()) == 3
        assert all(run.is_finished for run in api.active())
        assert len({run.tags.get("mlflow.parentRunId") for run in api.active()} - {None}) == 1


def test_what_was_deleted_in_mlflow_stays_deleted() -> None:
    api = FakeMlflow()
    synced(api, evaluation())
    for run in list(api.all.values()):
        api.delete_run(run.run_id)
    assert [result.state for result in synced(api, evaluation())] == ["deleted"]
    assert api.active() == []
    api.binned.add("e_alice")
    assert [result.state for result in synced(api, evaluation("fedcba9876543210"))] == ["deleted"]


def test_an_evaluation_whose_first_recording_was_deleted_by_its_second_counts_as_present() -> None:
    api = FakeMlflow()
    synced(api, evaluation())
    old = list(api.all)
    recorded = FakeMlflow()
    recorded._ids = (f"{number:032x}" for number in itertools.count(100))
    synced(recorded, evaluation())
    api.all |= recorded.all
    for run_id in old:
        api.delete_run(run_id)
    assert [result.state for result in synced(api, evaluation())] == ["present"]


def test_what_was_evaluated_again_since_takes_the_place_of_the_older_runs() -> None:
    api = FakeMlflow()
    synced(api, evaluation())
    for run in api.active()[1:]:
        api.delete_run(run.run_id)
    (result,) = synced(api, evaluation(at=1795650000001))
    assert result.state == "recorded"
    assert {run.start_unix_ms for run in api.active()} == {1795650000001}
    assert len(api.active()) == 3
    # A copy of the older evaluation, such as from a backup, changes nothing.
    assert [row.state for row in synced(api, evaluation())] == ["present"]
    assert {run.start_unix_ms for run in api.active()} == {1795650000001}


def test_a_recording_that_another_writer_took_for_cut_off_comes_back() -> None:
    api = FakeMlflow()
    search, counter = api.all_runs, itertools.count(1)

    def search_and_meet(experiment_id: str, filter_string: str) -> Iterator[MlflowRun]:
        rows = list(search(experiment_id, filter_string))
        if next(counter) == 2:
            # After it has looked, the other one deletes what it had seen unfinished, and we see it too late.
            for run_id in list(api.all):
                api.all[run_id] = replace(api.all[run_id], is_deleted=True)
        return iter(rows)

    api.all_runs = search_and_meet  # type: ignore[method-assign]
    (result,) = synced(api, evaluation())
    assert (result.state, len(api.active())) == ("recorded", 3)


def test_one_that_the_server_refuses_hinders_no_other() -> None:
    api = FakeMlflow()
    record = api.record

    def record_or_refuse(experiment_id: str, **words: Any) -> str:
        if words["tags"]["replayctl.evaluation"] == "a" * 16:
            raise OperationFailed("MLflow refused it")
        return record(experiment_id, **words)

    api.record = record_or_refuse  # type: ignore[method-assign]
    results = synced(api, evaluation("a" * 16, at=1795650000000), evaluation("b" * 16, at=1795650000001))
    assert [(row.state, row.error) for row in results] == [("failed", "MLflow refused it"), ("recorded", None)]


def test_of_two_recordings_at_once_one_stays() -> None:
    api, other = FakeMlflow(), FakeMlflow()
    other._ids = (f"{number:032x}" for number in itertools.count(0x100))
    synced(other, evaluation())
    finish = api.finish

    def finish_and_meet(run_id: str, end_unix_ms: int) -> None:
        finish(run_id, end_unix_ms)
        api.all |= other.all

    api.finish = finish_and_meet  # type: ignore[method-assign]
    other_ids = set(other.all)
    (result,) = synced(api, evaluation())
    assert result.mlflow_run not in other_ids
    # The other one comes to the same decision.
    for run_id in other_ids:
        api.delete_run(run_id)
    assert len(api.active()) == 3


@pytest.mark.parametrize("created", [True, False])
def test_an_experiment_that_a_task_creates_at_the_same_time_is_used(created: bool) -> None:
    class Busy(FakeMlflow):
        def create_experiment(self, name: str) -> str:
            if created:
                super().create_experiment(name)
            raise OperationFailed("MLflow failed on experiments/create (HTTP 400)")

    (result,) = synced(api := Busy(), evaluation())
    assert (result.state, len(api.active())) == (("recorded", 3) if created else ("failed", 0))
    assert result.error == (None if created else "MLflow failed on experiments/create (HTTP 400)")


def test_each_evaluation_goes_to_its_server_and_one_that_is_away_hinders_no_other() -> None:
    second = FakeMlflow()

    @contextlib.contextmanager
    def open_server(server: str) -> Iterator[MlflowApi]:
        if not server:
            raise Unreachable("MLflow at http://first does not answer")
        yield second

    evaluations = [evaluation("a" * 16), evaluation("b" * 16, "mlflow2", 1795650000001), evaluation("c" * 16)]
    states = {row.evaluation[0]: (row.state, row.error) for row in sync(evaluations, open_server, RecordingReporter())}
    away = ("failed", "MLflow at http://first does not answer")
    assert states == {"a": away, "b": ("recorded", None), "c": away}


@pytest.mark.parametrize(
    "change",
    [
        {"evaluation": "ffff"},
        {"runs": []},
        {"runs": None},
        {"experiment": 5},
        {"experiment": "a\nb"},
        {"recorded_unix_ms": 10**30},
        {"recorded_unix_ms": "soon"},
        {"runs": [{**document()["runs"][0], "metrics": {"NDCG.10": float("nan")}}]},
        {"runs": [{**document()["runs"][0], "tags": {"replayctl.evaluation": "other"}}]},
        {"runs": document()["runs"][1:]},
    ],
)
def test_a_file_that_is_not_the_evaluations_own_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(OperationFailed, match=f"mlflow.json of evaluation {IDENTITY} "):
        parse_evaluation(IDENTITY, json.dumps({**document(), **change}))


@given(st.text() | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps))
def test_whatever_is_in_a_file_it_is_refused_and_nothing_else(text: str) -> None:
    with pytest.raises(OperationFailed):
        parse_evaluation(IDENTITY, text)
