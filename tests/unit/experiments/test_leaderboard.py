"""The leaderboard shows only evaluations that are recorded completely."""

from collections.abc import Iterator

import pytest

from dags.dag_entities import Namespace
from replayctl.clients.mlflow import MlflowApi, MlflowRun
from replayctl.errors import NotFound
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
