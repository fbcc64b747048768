"""The leaderboard: every model of an experiment with its metrics, from the runs that the evaluate step recorded."""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from replayctl.clients.mlflow import MlflowApi, MlflowRun
from replayctl.errors import NotFound, OperationFailed, Unreachable, UsageProblem
from replayctl.experiments.finding import nearest
from replayctl.experiments.recordings import Recorded, Recording, find_recorded
from replayctl.settings.namespace import Namespace

# Tags written by dags/workloads/tracking.py.
_EVALUATION, _LEVEL, _ROW = "replayctl.evaluation", "replayctl.level", "replayctl.row"
_ENGINE, _IMPLEMENTATION = "replayctl.engine", "replayctl.implementation"
_DATASET, _RELEASE, _SECONDS = "replayctl.dataset", "replayctl.release", "replayctl.seconds"
_SPLIT, _IDENTITY = "replayctl.split", "replayctl.dataset_identity"
# Parameters of the experiment's run that are not those of its test data.
_NOT_DATA = ("dataset", "rows")
_SHORT = 8
SHOWN_METRICS = ("NDCG", "MAP", "HitRate", "Recall")


@dataclass(frozen=True, slots=True)
class Row:
    """The results of one model; `level` is `first` or `second`, `seconds` the duration of its step, if known.

    Metrics are named as in the table, `NDCG@10`. `split` is the test set on which they are measured. `release` has
    computed the model's rows. `recorded` is the time of the evaluation; `dag_id` and `run_id` are of the newest run
    that ended with it, at `used`. `implementation` is set for models that differ between engines.

    `differing` are the parameters in which it differs from other rows of the same model on the same test set. For a
    second-level model, those of the first-level models in its evaluation count as well, as `als.rank`.
    """

    model: str
    level: str
    metrics: Mapping[str, float]
    parameters: Mapping[str, str]
    differing: Mapping[str, str]
    split: str
    evaluation: str
    release: str
    seconds: float | None
    engine: str
    implementation: str
    recorded: datetime.datetime
    used: datetime.datetime
    dag_id: str
    run_id: str
    mlflow_run: str


@dataclass(frozen=True, slots=True)
class TestSet:
    """The test queries of some rows: the split that has made them, its parameters and those of its data set.

    `differing` are the parameters that tell it from the other test sets of a leaderboard.
    """

    split: str
    dataset: str
    parameters: Mapping[str, str]
    differing: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Leaderboard:
    """Rows by test set, and within a test set from best to worst by one metric.

    Only rows of the same test set are comparable. The first one is that of the newest run; `dataset` is its data set.
    """

    experiment: str
    dataset: str
    metric: str
    test_sets: tuple[TestSet, ...]
    rows: tuple[Row, ...]


def find_leaderboard(
    open_server: Callable[[str], AbstractContextManager[MlflowApi]],
    namespace: Namespace,
    name: str,
    *,
    server: str = "",
    others: Iterable[str] = (),
    metric: str = "NDCG@10",
    every: bool = False,
) -> Leaderboard:
    """The leaderboard from the server of that name, `""` for the profile's first.

    Raises what `read_leaderboard` raises; the hint of NotFound names those of the `others` that have evaluations.
    """
    try:
        with open_server(server) as api:
            return read_leaderboard(api, namespace, name, metric=metric, every=every)
    except NotFound as error:
        servers = [other for other in others if _has_evaluations(open_server, other, namespace, name)]
        if servers:
            error.hint = (
                f"its DAG has chosen another server: pass {' or '.join(f'--server {name}' for name in servers)}"
            )
        raise


def _has_evaluations(
    open_server: Callable[[str], AbstractContextManager[MlflowApi]], server: str, namespace: Namespace, name: str
) -> bool:
    try:
        with open_server(server) as api:
            find_recorded(api, namespace, name)
    except (NotFound, OperationFailed, Unreachable):
        return False
    return True


def read_leaderboard(
    api: MlflowApi, namespace: Namespace, name: str, *, metric: str = "NDCG@10", every: bool = False
) -> Leaderboard:
    """The evaluation that the newest run of a DAG ended with, or all of its experiment with `every`.

    `name` is that of the DAG or of the experiment; see `find_recorded`. Raises NotFound if nothing is recorded,
    UsageProblem for a metric that no row has.
    """
    recorded = find_recorded(api, namespace, name)
    newest = recorded.newest()
    recordings = recorded.recordings if every else (newest,)
    rows = _rows(recorded, recordings)
    key = _metric(metric, {known for row in rows for known in row.metrics})
    test_sets = _test_sets((newest, *(recording for recording in recordings if recording is not newest)))
    order = {test_set.split: number for number, test_set in enumerate(test_sets)}
    rows.sort(key=lambda row: (order[row.split], -_comparable(row.metrics.get(key)), row.model))
    return Leaderboard(recorded.experiment, test_sets[0].dataset, key, test_sets, tuple(rows))


def _metric(name: str, known: Iterable[str]) -> str:
    """The name of a metric as it is recorded, for one in any case and in MLflow's form (`NDCG.10`)."""
    by_lower = {metric.lower(): metric for metric in sorted(known)}
    lower = _shown(name).lower()
    if lower in by_lower:
        return by_lower[lower]
    close = [by_lower[metric] for metric in nearest(lower, by_lower)]
    hint = f"did you mean {' or '.join(close)}?" if close else f"use one of: {', '.join(sorted(by_lower.values()))}"
    raise UsageProblem(f"metric {name!r} does not exist", hint=hint)


def _comparable(metric: float | None) -> float:
    """Without a value, and with NaN, which is neither better nor worse than another, a model is the last."""
    return -math.inf if metric is None or math.isnan(metric) else metric


def _shown(metric: str) -> str:
    """`NDCG@10` for `NDCG.10`, since MLflow does not allow `@` in names."""
    return metric.replace(".", "@")


def _test_sets(recordings: Sequence[Recording]) -> tuple[TestSet, ...]:
    runs: dict[str, MlflowRun] = {}
    for recording in recordings:
        runs.setdefault(_split(recording), recording.experiment_run)
    parameters = {split: _data_parameters(run) for split, run in runs.items()}
    # Older recordings have fewer parameters, which does not make them different.
    common = set.intersection(*(set(values) for values in parameters.values()))
    names = [name for name in _differing_names(list(parameters.values())) if name in common]
    differing = {split: _selected(values, names) for split, values in parameters.items()}
    alike = list(differing.values())
    return tuple(
        TestSet(
            split,
            run.tags.get(_DATASET, ""),
            parameters[split],
            # If they are the same, the code of the split differs, or a parameter that is not recorded.
            differing[split] | ({"split": split[:_SHORT]} if alike.count(differing[split]) > 1 else {}),
        )
        for split, run in runs.items()
    )


def _data_parameters(run: MlflowRun) -> dict[str, str]:
    """The recorded parameters of the split, with the data set's name, version and checksum."""
    try:
        identity = dict(json.loads(run.tags.get(_IDENTITY, "{}")))
    except (ValueError, TypeError, RecursionError):
        identity = {}
    return {
        **{name: value for name, value in run.params.items() if name not in _NOT_DATA},
        **{f"dataset.{name}": "unset" if value is None else str(value) for name, value in identity.items()},
    }


def _rows(recorded: Recorded, recordings: Iterable[Recording]) -> list[Row]:
    compared = [(run, recording, _compared(run, recording)) for recording in recordings for run in recording.models]
    alike: dict[tuple[str, str], list[Mapping[str, str]]] = {}
    for run, recording, parameters in compared:
        alike.setdefault((_model(run), _split(recording)), []).append(parameters)
    names = {key: _differing_names(rows) for key, rows in alike.items()}
    return [
        _row(run, recording, recorded.dag_id, _selected(parameters, names[_model(run), _split(recording)]))
        for run, recording, parameters in compared
    ]


def _compared(run: MlflowRun, recording: Recording) -> Mapping[str, str]:
    if run.tags[_LEVEL] == "first":
        return run.params
    first = (other for other in recording.models if other.tags[_LEVEL] == "first")
    return {**run.params, **{f"{_model(other)}.{name}": text for other in first for name, text in other.params.items()}}


def _differing_names(rows: Sequence[Mapping[str, str]]) -> list[str]:
    names = sorted({name for row in rows for name in row})
    return [name for name in names if len({row.get(name) for row in rows}) > 1]


def _selected(parameters: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    return {name: parameters.get(name, "unset") for name in names}


def _model(run: MlflowRun) -> str:
    return run.tags.get(_ROW, run.name)


def _split(recording: Recording) -> str:
    return recording.experiment_run.tags.get(_SPLIT, "")


def _seconds(text: str | None) -> float | None:
    """A duration as the evaluation wrote it; None for what anybody may have written there since."""
    try:
        seconds = float(text or "")
    except ValueError:
        return None
    return seconds if 0 <= seconds < datetime.timedelta.max.total_seconds() else None


def _row(run: MlflowRun, recording: Recording, dag_id: str, differing: Mapping[str, str]) -> Row:
    use = recording.last_use(dag_id)
    return Row(
        model=_model(run),
        level=run.tags[_LEVEL],
        metrics={_shown(name): value for name, value in run.metrics.items()},
        parameters=run.params,
        differing=differing,
        split=_split(recording),
        evaluation=run.tags.get(_EVALUATION, ""),
        release=run.tags.get(_RELEASE, ""),
        seconds=_seconds(run.tags.get(_SECONDS)),
        engine=run.tags.get(_ENGINE, ""),
        implementation=run.tags.get(_IMPLEMENTATION, ""),
        recorded=recording.experiment_run.started,
        used=use.at,
        dag_id=use.dag_id,
        run_id=use.run_id,
        mlflow_run=run.run_id,
    )
