"""The leaderboard: evaluations that are recorded completely, the newest or all, and what differs between them."""

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest

from dags.dag_entities import Namespace
from replayctl import cli
from replayctl.clients.mlflow import MlflowApi, MlflowRun
from replayctl.errors import NotFound, UsageProblem
from replayctl.experiments.leaderboard import read_leaderboard


def run(run_id: str, level: str, at: int, parent: str = "") -> MlflowRun:
    tags = {"replayctl.level": level, "replayctl.row": run_id, "replayctl.evaluation": f"e{at}"}
    tags |= {"mlflow.parentRunId": parent} if parent else {}
    return MlflowRun(run_id, run_id, at, {"NDCG.10": 0.1}, {}, tags)


class FakeMlflow(MlflowApi):
    """Its finished runs, newest first."""

    def __init__(self, *finished: MlflowRun) -> None:
        super().__init__("http://mlflow")
        self.finished = finished

    def experiment_id(self, name: str) -> str:
        return "1"

    def runs(self, experiment_id: str, filter_string: str = "") -> Iterator[MlflowRun]:
        return iter(self.finished)


def test_a_newer_evaluation_that_was_recorded_half_is_left_out() -> None:
    whole = (run("als", "first", 1, "p1"), run("p1", "experiment", 1))
    api = FakeMlflow(run("lightgbm", "second", 2, "p2"), *whole)
    for every in (False, True):
        board = read_leaderboard(api, Namespace("alice"), "two_stage", every=every)
        assert [row.model for row in board.rows] == ["als"]


def test_an_experiment_whose_only_evaluation_was_recorded_half_has_none() -> None:
    with pytest.raises(NotFound, match="no finished evaluation"):
        read_leaderboard(FakeMlflow(run("als", "first", 1, "p1")), Namespace("alice"), "two_stage")


@pytest.fixture
def two_evaluations() -> FakeMlflow:
    """The second one with another rank, another model and a better result."""
    old, new = run("als", "first", 1, "p1"), run("als", "first", 2, "p2")
    old = replace(old, run_id="old", params={"rank": "16", "seed": "42"})
    new = replace(new, run_id="new", params={"rank": "32", "seed": "42", "alpha": "2"}, metrics={"NDCG.10": 0.3})
    other = replace(run("slim", "first", 2, "p2"), params={"beta": "1"}, metrics={"NDCG.10": 0.2})
    return FakeMlflow(new, other, run("p2", "experiment", 2), old, run("p1", "experiment", 1))


def test_a_metric_that_is_not_a_number_is_the_last_and_mixes_up_no_others() -> None:
    values = {"als": 0.1, "ease": float("nan"), "slim": 0.3, "knn": 0.2}
    for order in itertools.permutations(values):
        rows = [replace(run(name, "first", 1, "p1"), metrics={"NDCG.10": values[name]}) for name in order]
        board = read_leaderboard(FakeMlflow(*rows, run("p1", "experiment", 1)), Namespace("alice"), "two_stage")
        assert [row.model for row in board.rows] == ["slim", "knn", "als", "ease"]


@pytest.mark.parametrize(
    ("text", "seconds"), [("4.5", 4.5), ("", None), ("soon", None), ("nan", None), ("1e300", None), ("-1", None)]
)
def test_a_duration_that_is_none_is_unknown(text: str, seconds: float | None) -> None:
    model = run("als", "first", 1, "p1")
    model = replace(model, tags={**model.tags, "replayctl.seconds": text})
    board = read_leaderboard(FakeMlflow(model, run("p1", "experiment", 1)), Namespace("alice"), "two_stage")
    assert board.rows[0].seconds == seconds


def test_the_newest_evaluation_is_shown_or_every_one(two_evaluations: FakeMlflow) -> None:
    newest = read_leaderboard(two_evaluations, Namespace("alice"), "two_stage")
    assert [(row.model, row.evaluation) for row in newest.rows] == [("als", "e2"), ("slim", "e2")]
    every = read_leaderboard(two_evaluations, Namespace("alice"), "two_stage", every=True)
    assert [row.mlflow_run for row in every.rows] == ["new", "slim", "old"]


def test_parameters_that_differ_are_those_of_the_same_model(two_evaluations: FakeMlflow) -> None:
    board = read_leaderboard(two_evaluations, Namespace("alice"), "two_stage", every=True)
    differing = {row.mlflow_run: board.differing(row) for row in board.rows}
    assert differing == {
        "new": {"alpha": "2", "rank": "32"},
        "old": {"alpha": "unset", "rank": "16"},
        # There is no other one to differ from.
        "slim": {},
    }


def test_a_metric_that_no_row_has_is_named_with_those_that_are_there(two_evaluations: FakeMlflow) -> None:
    with pytest.raises(UsageProblem, match=r"metric 'Luck@7' does not exist") as error:
        read_leaderboard(two_evaluations, Namespace("alice"), "two_stage", metric="Luck@7")
    assert error.value.hint == "use one of: NDCG@10"


@pytest.mark.parametrize("options", [(), ("--all",)])
def test_the_table_of_all_evaluations_has_what_tells_them_apart(
    two_evaluations: FakeMlflow,
    options: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    server = contextlib.nullcontext(two_evaluations)
    monkeypatch.setattr("replayctl.experiments.services.open_mlflow", lambda *_: server)
    monkeypatch.setenv("USERNAME_ON_CLUSTER", "alice")
    assert cli.run(["leaderboard", "two_stage", *options]) == 0
    head, *rows = (line.split("\t") for line in capfd.readouterr().out.splitlines())
    table = [dict(zip(head, row, strict=True)) for row in rows]
    assert [row["evaluation"] for row in table] == (["e2", "e2", "e1"] if options else ["e2", "e2"])
    if options:
        words = [row["parameters that differ"] for row in table]
        assert words == ["alpha=2, rank=32", "", "alpha=unset, rank=16"]
        assert [row["recorded"] for row in table] == ["1970-01-01T00:00:00+00:00"] * 3
    else:
        assert "parameters that differ" not in head
