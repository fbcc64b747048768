"""The leaderboard: every model of an experiment with its metrics, from the runs that the evaluate step recorded."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass

from replayctl.clients.mlflow import MlflowApi, MlflowRun
from replayctl.errors import NotFound, UsageProblem
from replayctl.settings.namespace import Namespace

# Tags written by dags/workloads/tracking.py.
_EVALUATION, _LEVEL, _ROW = "replayctl.evaluation", "replayctl.level", "replayctl.row"
_DATASET, _RELEASE, _SECONDS = "replayctl.dataset", "replayctl.release", "replayctl.seconds"
SHOWN_METRICS = ("NDCG", "MAP", "HitRate", "Recall")


@dataclass(frozen=True, slots=True)
class Row:
    """One model's results; `level` is `first` or `second`, `seconds` what its step took where that is known."""

    model: str
    level: str
    metrics: Mapping[str, float]
    evaluation: str
    release: str
    seconds: float | None
    recorded: datetime.datetime
    mlflow_run: str


@dataclass(frozen=True, slots=True)
class Leaderboard:
    """Rows from best to worst by one metric. All rows of one evaluation are measured on the same test queries."""

    experiment: str
    dataset: str
    metric: str
    rows: tuple[Row, ...]


def read_leaderboard(
    api: MlflowApi, namespace: Namespace, experiment: str, *, metric: str = "NDCG@10", every: bool = False
) -> Leaderboard:
    """The results of the newest evaluation of an experiment, or of all of them with `every`.

    Raises NotFound when nothing is recorded, UsageProblem for a metric that no row has.
    """
    name = namespace.mlflow_experiment(experiment)
    try:
        experiment_id = api.experiment_id(name)
    except NotFound as error:
        raise NotFound(
            f"MLflow at {api.url} has no experiment {name!r}", hint=f"run it first: replayctl run {experiment} --wait"
        ) from error
    runs = [run for run in api.runs(experiment_id) if run.tags.get(_LEVEL) in ("first", "second")]
    if not runs:
        raise NotFound(
            f"experiment {name!r} has no finished evaluation", hint=f"run it: replayctl run {experiment} --wait"
        )
    if not every:
        newest = max(runs, key=lambda run: run.start_unix_ms).tags.get(_EVALUATION)
        runs = [run for run in runs if run.tags.get(_EVALUATION) == newest]
    key = metric.replace("@", ".")
    rows = sorted((_row(run) for run in runs), key=lambda row: (-row.metrics.get(key, -1.0), row.model))
    if all(key not in row.metrics for row in rows):
        known = ", ".join(sorted(name.replace(".", "@") for name in rows[0].metrics))
        raise UsageProblem(f"no row has the metric {metric!r}", hint=f"there are: {known}")
    return Leaderboard(name, runs[0].tags.get(_DATASET, ""), key.replace(".", "@"), tuple(rows))


def _row(run: MlflowRun) -> Row:
    seconds = run.tags.get(_SECONDS)
    return Row(
        model=run.tags.get(_ROW, run.name),
        level=run.tags[_LEVEL],
        metrics=run.metrics,
        evaluation=run.tags.get(_EVALUATION, ""),
        release=run.tags.get(_RELEASE, ""),
        seconds=float(seconds) if seconds else None,
        recorded=datetime.datetime.fromtimestamp(run.start_unix_ms / 1000, tz=datetime.UTC),
        mlflow_run=run.run_id,
    )
