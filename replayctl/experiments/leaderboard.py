"""The leaderboard: every model of an experiment with its metrics, from the runs that the evaluate step recorded."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from replayctl.clients.mlflow import DeletedExperiment, MlflowApi, MlflowRun
from replayctl.errors import NotFound, OperationFailed, Unreachable, UsageProblem
from replayctl.experiments.finding import nearest, plain_name
from replayctl.settings.namespace import Namespace

# Tags written by dags/workloads/tracking.py.
_EVALUATION, _LEVEL, _ROW = "replayctl.evaluation", "replayctl.level", "replayctl.row"
_ENGINE, _IMPLEMENTATION = "replayctl.engine", "replayctl.implementation"
_DATASET, _RELEASE, _SECONDS = "replayctl.dataset", "replayctl.release", "replayctl.seconds"
_PARENT = "mlflow.parentRunId"
_DAG, _RUN = "replayctl.dag_id", "replayctl.run_id"
SHOWN_METRICS = ("NDCG", "MAP", "HitRate", "Recall")


@dataclass(frozen=True, slots=True)
class Row:
    """The results of one model; `level` is `first` or `second`, `seconds` the duration of its step, if known.

    Metrics are named as in the table, `NDCG@10`. `release` has computed the model's rows; `dag_id` and `run_id` are of
    the run that evaluated them. `implementation` is set for models that differ between engines.
    """

    model: str
    level: str
    metrics: Mapping[str, float]
    parameters: Mapping[str, str]
    evaluation: str
    release: str
    seconds: float | None
    engine: str
    implementation: str
    recorded: datetime.datetime
    dag_id: str
    run_id: str
    mlflow_run: str


@dataclass(frozen=True, slots=True)
class Leaderboard:
    """Rows from best to worst by one metric. All rows of an evaluation are measured on the same test queries."""

    experiment: str
    dataset: str
    metric: str
    rows: tuple[Row, ...]

    def differing(self, row: Row) -> dict[str, str]:
        """The parameters in which a row differs from others of the same model."""
        same = [other.parameters for other in self.rows if other.model == row.model]
        names = sorted({name for parameters in same for name in parameters})
        return {
            name: row.parameters.get(name, "unset")
            for name in names
            if len({parameters.get(name) for parameters in same}) > 1
        }


def find_leaderboard(
    open_server: Callable[[str], AbstractContextManager[MlflowApi]],
    namespace: Namespace,
    experiment: str,
    *,
    server: str = "",
    others: Iterable[str] = (),
    metric: str = "NDCG@10",
    every: bool = False,
) -> Leaderboard:
    """The leaderboard from the server of that name, `""` for the profile's first.

    Raises what `read_leaderboard` raises; the hint of NotFound names those of the `others` that have the experiment.
    """
    try:
        with open_server(server) as api:
            return read_leaderboard(api, namespace, experiment, metric=metric, every=every)
    except NotFound as error:
        servers = [other for other in others if _has_experiment(open_server, other, namespace, experiment)]
        if servers:
            error.hint = (
                f"its DAG has chosen another server: pass {' or '.join(f'--server {name}' for name in servers)}"
            )
        raise


def _has_experiment(
    open_server: Callable[[str], AbstractContextManager[MlflowApi]], server: str, namespace: Namespace, experiment: str
) -> bool:
    try:
        with open_server(server) as api:
            api.experiment_id(namespace.mlflow_experiment(plain_name(namespace, experiment)))
    except (NotFound, OperationFailed, Unreachable):
        return False
    return True


def read_leaderboard(
    api: MlflowApi, namespace: Namespace, experiment: str, *, metric: str = "NDCG@10", every: bool = False
) -> Leaderboard:
    """The results of the newest evaluation of an experiment, or of all evaluations with `every`.

    Raises NotFound if nothing is recorded, UsageProblem for a metric that no row has.
    """
    plain = plain_name(namespace, experiment)
    name = namespace.mlflow_experiment(plain)
    try:
        experiment_id = api.experiment_id(name)
    except DeletedExperiment as error:
        error.hint = f"run `replayctl run {experiment} --wait --force evaluate` to restore it and its runs"
        raise
    except NotFound as error:
        raise NotFound(f"MLflow at {api.url} has no experiment {name!r}", hint=_hint(api, namespace, plain)) from error
    runs = _recorded_whole(list(api.runs(experiment_id)))
    if not runs:
        raise NotFound(f"experiment {name!r} has no finished evaluation", hint=_how_to_record(plain))
    if not every:
        newest = max(runs, key=lambda run: run.start_unix_ms).tags.get(_EVALUATION)
        runs = [run for run in runs if run.tags.get(_EVALUATION) == newest]
    key = _shown(metric)
    rows = sorted((_row(run) for run in runs), key=lambda row: (-_comparable(row.metrics.get(key)), row.model))
    if all(key not in row.metrics for row in rows):
        known = ", ".join(sorted(rows[0].metrics))
        raise UsageProblem(f"metric {metric!r} does not exist", hint=f"use one of: {known}")
    return Leaderboard(name, runs[0].tags.get(_DATASET, ""), key, tuple(rows))


def _recorded_whole(finished: Sequence[MlflowRun]) -> list[MlflowRun]:
    """The models' runs whose experiment's run is finished: of a recording that was cut off it is not."""
    whole = {run.run_id for run in finished if run.tags.get(_LEVEL) == "experiment"}
    levels = ("first", "second")
    return [run for run in finished if run.tags.get(_LEVEL) in levels and run.tags.get(_PARENT) in whole]


def _comparable(metric: float | None) -> float:
    """Without a value, and with NaN, which is neither better nor worse than another, a model is the last."""
    return -math.inf if metric is None or math.isnan(metric) else metric


def _shown(metric: str) -> str:
    """`NDCG@10` for `NDCG.10`, since MLflow does not allow `@` in names."""
    return metric.replace(".", "@")


def _hint(api: MlflowApi, namespace: Namespace, plain: str) -> str:
    suffix = namespace.suffix
    names = [name.removesuffix(suffix) for name in api.experiment_names() if suffix and name.endswith(suffix)]
    close = nearest(plain, names)
    return f"did you mean {' or '.join(close)}?" if close else _how_to_record(plain)


def _how_to_record(plain: str) -> str:
    return f"run `replayctl run {plain} --wait`; its evaluate step records the results"


def _seconds(text: str | None) -> float | None:
    """A duration as the evaluation wrote it; None for what anybody may have written there since."""
    try:
        seconds = float(text or "")
    except ValueError:
        return None
    return seconds if 0 <= seconds < datetime.timedelta.max.total_seconds() else None


def _row(run: MlflowRun) -> Row:
    return Row(
        model=run.tags.get(_ROW, run.name),
        level=run.tags[_LEVEL],
        metrics={_shown(name): value for name, value in run.metrics.items()},
        parameters=run.params,
        evaluation=run.tags.get(_EVALUATION, ""),
        release=run.tags.get(_RELEASE, ""),
        seconds=_seconds(run.tags.get(_SECONDS)),
        engine=run.tags.get(_ENGINE, ""),
        implementation=run.tags.get(_IMPLEMENTATION, ""),
        recorded=datetime.datetime.fromtimestamp(run.start_unix_ms / 1000, tz=datetime.UTC),
        dag_id=run.tags.get(_DAG, ""),
        run_id=run.tags.get(_RUN, ""),
        mlflow_run=run.run_id,
    )
