"""Brings evaluations to MLflow that could not be recorded there when they were computed, each once."""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

from replayctl.clients.mlflow import DeletedExperiment, MlflowApi, MlflowRun
from replayctl.console.events import Reporter
from replayctl.errors import NotFound, OperationFailed, ReplayctlError

# Tags written by dags/workloads/tracking.py.
_EVALUATION, _LEVEL, _DATASET = "replayctl.evaluation", "replayctl.level", "replayctl.dataset"
_PARENT = "mlflow.parentRunId"
_EXPERIMENT_LEVEL = "experiment"
_MAX_RUNS = 1000
_MAX_TEXT = 10_000


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """One run as the evaluation wrote it down."""

    name: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What one evaluation has for MLflow: the run of the experiment, and below it one per model."""

    identity: str
    experiment: str
    server: str
    recorded_unix_ms: int
    parent: PlannedRun
    models: tuple[PlannedRun, ...]


@dataclass(frozen=True, slots=True)
class Synced:
    """What became of an evaluation: `present`, `recorded`, `missing` (dry run), `deleted` in MLflow, or `failed`."""

    evaluation: str
    experiment: str
    server: str
    dataset: str
    models: int
    evaluated: datetime.datetime
    state: str
    mlflow_run: str | None = None
    error: str | None = None


def parse_evaluation(identity: str, text: str) -> Evaluation:
    """An evaluation from its `mlflow.json`. Raises OperationFailed when it is not one of that identity."""
    try:
        document = json.loads(text)
        parent, *models = [_planned(row) for row in document["runs"][:_MAX_RUNS]]
        evaluation = Evaluation(
            identity=_text(document["evaluation"]),
            experiment=_text(document["experiment"]),
            server=_text(document.get("server") or ""),
            recorded_unix_ms=int(document["recorded_unix_ms"]),
            parent=parent,
            models=tuple(models),
        )
        datetime.datetime.fromtimestamp(evaluation.recorded_unix_ms / 1000, tz=datetime.UTC)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError, OSError) as error:
        raise OperationFailed(f"mlflow.json of evaluation {identity} cannot be read") from error
    tagged = {run.tags.get(_EVALUATION) for run in (parent, *models)}
    if evaluation.identity != identity or tagged != {identity} or parent.tags.get(_LEVEL) != _EXPERIMENT_LEVEL:
        raise OperationFailed(f"mlflow.json of evaluation {identity} is that of another evaluation")
    return evaluation


def sync(
    evaluations: Iterable[Evaluation],
    open_server: Callable[[str], AbstractContextManager[MlflowApi]],
    reporter: Reporter,
    *,
    dry_run: bool = False,
) -> list[Synced]:
    """Records those evaluations that MLflow does not have, oldest first, and reads back that it has them.

    One that was deleted in MLflow, or whose experiment was, stays deleted. One that a server refuses is `failed`, with
    the error; when the server does not answer, so is the rest of its evaluations. Other servers are asked all the same.
    """
    results: list[Synced] = []
    by_server: dict[str, list[Evaluation]] = {}
    for evaluation in sorted(evaluations, key=lambda evaluation: evaluation.recorded_unix_ms):
        by_server.setdefault(evaluation.server, []).append(evaluation)
    for server, rows in by_server.items():
        done: list[Synced] = []
        try:
            with open_server(server) as api:
                for evaluation in rows:
                    done.append(_synced_or_failed(evaluation, api, dry_run=dry_run))
                    if done[-1].state == "recorded":
                        reporter.step(f"recorded evaluation {evaluation.identity} in {evaluation.experiment}")
        except ReplayctlError as error:
            done += [replace(_result(row, "failed"), error=str(error)) for row in rows[len(done) :]]
        results += done
    return results


def _synced_or_failed(evaluation: Evaluation, api: MlflowApi, *, dry_run: bool) -> Synced:
    try:
        return _synced(evaluation, api, dry_run=dry_run)
    except OperationFailed as error:
        return replace(_result(evaluation, "failed"), error=str(error))


def _synced(evaluation: Evaluation, api: MlflowApi, *, dry_run: bool) -> Synced:
    try:
        experiment_id = api.experiment_id(evaluation.experiment)
    except DeletedExperiment:
        return _result(evaluation, "deleted")
    except NotFound:
        if dry_run:
            return _result(evaluation, "missing")
        experiment_id = _created(api, evaluation.experiment)
    complete = _complete(_runs(api, experiment_id, evaluation), evaluation)
    if complete and all(run.is_deleted for run in complete):
        return _result(evaluation, "deleted")
    if complete:
        # A recording that was cut off at its end may have left runs.
        kept = _first(complete) if dry_run else _leave_one(evaluation, api, experiment_id)
        return _result(evaluation, "present", kept)
    if dry_run:
        return _result(evaluation, "missing")
    try:
        _record(evaluation, api, experiment_id)
    except OperationFailed:
        # Of two writers the one that has finished first deletes the runs of the other.
        if not _complete(_runs(api, experiment_id, evaluation), evaluation):
            raise
    return _result(evaluation, "recorded", _leave_one(evaluation, api, experiment_id))


def _created(api: MlflowApi, experiment: str) -> str:
    try:
        return api.create_experiment(experiment)
    except OperationFailed as error:
        # A task or another sync may have created it just now.
        try:
            return api.experiment_id(experiment)
        except NotFound:
            raise error from None


def _record(evaluation: Evaluation, api: MlflowApi, experiment_id: str) -> None:
    """The experiment's run is finished last: until then the recording does not count."""

    def record(run: PlannedRun, tags: Mapping[str, str]) -> str:
        return api.record(
            experiment_id,
            name=run.name,
            start_unix_ms=evaluation.recorded_unix_ms,
            tags={**run.tags, **tags},
            params=run.params,
            metrics=run.metrics,
        )

    parent = record(evaluation.parent, {})
    for model in evaluation.models:
        api.finish(record(model, {_PARENT: parent}), evaluation.recorded_unix_ms)
    api.finish(parent, evaluation.recorded_unix_ms)


def _leave_one(evaluation: Evaluation, api: MlflowApi, experiment_id: str) -> MlflowRun:
    """Deletes the runs of recordings that were cut off, older or of another writer; returns the run that stays."""
    runs = _runs(api, experiment_id, evaluation)
    complete = _complete(runs, evaluation)
    if not complete:
        raise OperationFailed(f"MLflow at {api.url} does not show evaluation {evaluation.identity}, just recorded")
    kept = _first(complete)
    for run in runs:
        if not run.is_deleted and kept.run_id not in (run.run_id, run.tags.get(_PARENT)):
            api.delete_run(run.run_id)
    # Another writer may have done the same, with ours among the runs that it took for cut off.
    runs = _runs(api, experiment_id, evaluation)
    complete = _complete(runs, evaluation)
    if all(run.is_deleted for run in complete):
        kept = _first(complete)
        for run in runs:
            if kept.run_id in (run.run_id, run.tags.get(_PARENT)):
                api.restore_run(run.run_id)
    return kept


def _runs(api: MlflowApi, experiment_id: str, evaluation: Evaluation) -> list[MlflowRun]:
    return list(api.all_runs(experiment_id, f"tags.`{_EVALUATION}` = '{evaluation.identity}'"))


def _complete(runs: Sequence[MlflowRun], evaluation: Evaluation) -> list[MlflowRun]:
    """The experiment's runs of this evaluation, or of a newer one, that are finished with a run for each model."""
    finished = [run for run in runs if run.is_finished and run.start_unix_ms >= evaluation.recorded_unix_ms]
    below: dict[str, int] = {}
    for run in finished:
        parent = run.tags.get(_PARENT, "")
        below[parent] = below.get(parent, 0) + 1
    return [
        run
        for run in finished
        if run.tags.get(_LEVEL) == _EXPERIMENT_LEVEL and below.get(run.run_id, 0) >= len(evaluation.models)
    ]


def _first(complete: Sequence[MlflowRun]) -> MlflowRun:
    """The one that every writer chooses, as dags/workloads/recording.py does; a deleted one only when all are."""
    return min(complete, key=lambda run: (run.is_deleted, run.run_id))


def _result(evaluation: Evaluation, state: str, run: MlflowRun | None = None) -> Synced:
    return Synced(
        evaluation=evaluation.identity,
        experiment=evaluation.experiment,
        server=evaluation.server,
        dataset=evaluation.parent.tags.get(_DATASET, ""),
        models=len(evaluation.models),
        evaluated=datetime.datetime.fromtimestamp(evaluation.recorded_unix_ms / 1000, tz=datetime.UTC),
        state=state,
        mlflow_run=run.run_id if run else None,
    )


def _planned(row: Any) -> PlannedRun:
    metrics = {_text(name): float(value) for name, value in row["metrics"].items()}
    if not all(math.isfinite(value) for value in metrics.values()):
        raise ValueError("a metric is not a number")
    return PlannedRun(_text(row["name"]), _texts(row["tags"]), _texts(row["params"]), metrics)


def _texts(values: Any) -> dict[str, str]:
    if not all(isinstance(value, str) and len(value) <= _MAX_TEXT for pair in values.items() for value in pair):
        raise ValueError("not a text")
    return dict(values)


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > _MAX_TEXT or not value.isprintable():
        raise ValueError("not a line of text")
    return value
