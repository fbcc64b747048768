"""The evaluations that MLflow has, and the runs that ended with them."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from replayctl.clients.mlflow import DeletedExperiment, MlflowApi, MlflowRun
from replayctl.errors import NotFound
from replayctl.experiments.finding import nearest, plain_name
from replayctl.settings.namespace import Namespace

# Tags written by dags/workloads/tracking.py and recording.py.
_LEVEL, _PARENT = "replayctl.level", "mlflow.parentRunId"
_DAG, _RUN, _USED = "replayctl.dag_id", "replayctl.run_id", "replayctl.used."
_NAMES_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Use:
    """The end of a run with an evaluation, which it has computed or reused."""

    at: datetime.datetime
    dag_id: str
    run_id: str


@dataclass(frozen=True, slots=True)
class Recording:
    """An evaluation: the experiment's run and those of its models; `uses` are the newest of each DAG."""

    experiment_run: MlflowRun
    models: tuple[MlflowRun, ...]
    uses: tuple[Use, ...]

    def last_use(self, dag_id: str | None = None) -> Use:
        """The newest use, if there are any by this DAG the newest of those."""
        own = [use for use in self.uses if use.dag_id == dag_id]
        return max(own or self.uses, key=lambda use: use.at)


@dataclass(frozen=True, slots=True)
class Recorded:
    """The evaluations of an experiment, with its name in MLflow; `dag_id` is the DAG that was asked for."""

    experiment: str
    dag_id: str
    recordings: tuple[Recording, ...]

    def newest(self) -> Recording:
        """The evaluation that the newest run of the DAG ended with; of any DAG if it has none here."""
        own = [recording for recording in self.recordings if self.dag_id in _dags(recording.uses)]
        return max(own or self.recordings, key=lambda recording: recording.last_use(self.dag_id).at)


def find_recorded(api: MlflowApi, namespace: Namespace, name: str) -> Recorded:
    """The evaluations of the experiment of that name, or of the one in which the DAG of that name was evaluated last.

    Raises NotFound, with similar names, if there are none, DeletedExperiment if the experiment was deleted.
    """
    plain = plain_name(namespace, name)
    experiment, dag_id = namespace.mlflow_experiment(plain), namespace.dag_id(plain)
    try:
        recordings = _recordings(api, api.experiment_id(experiment))
        missing = f"experiment {experiment!r} has no finished evaluation"
    except DeletedExperiment as error:
        error.hint = f"run `replayctl run {name} --wait --force evaluate` to restore it and its runs"
        raise
    except NotFound:
        recordings = ()
        missing = f"MLflow at {api.url} has no experiment {experiment!r}, and no evaluation of a DAG of that name"
    if recordings:
        return Recorded(experiment, dag_id, recordings)
    suffix = namespace.suffix
    names = {key: known for known, key in api.experiments() if known.endswith(suffix)}
    runs = list(api.runs(*names, filter_string=f"tags.`{_LEVEL}` = 'experiment'")) if names else []
    uses = {run.run_id: _uses(run) for run in runs}
    own = [run for run in runs if dag_id in _dags(uses[run.run_id])]
    if not own:
        dags = {dag for row in uses.values() for dag in _dags(row)}
        others = {known.removesuffix(suffix) for known in {*names.values(), *dags} if known.endswith(suffix)}
        raise NotFound(missing, hint=_hint(plain, others if suffix else ()))
    newest = max(own, key=lambda run: max(use.at for use in uses[run.run_id] if use.dag_id == dag_id))
    return Recorded(names[newest.experiment_id], dag_id, _recordings(api, newest.experiment_id))


def _hint(plain: str, known: Iterable[str]) -> str:
    others = sorted(set(known) - {plain, ""})
    if close := nearest(plain, others):
        return f"did you mean {' or '.join(close)}?"
    more = f" and {len(others) - _NAMES_SHOWN} more" if len(others) > _NAMES_SHOWN else ""
    listed = f", or use one of: {', '.join(others[:_NAMES_SHOWN])}{more}" if others else ""
    return f"run `replayctl run {plain} --wait`: a DAG with an evaluate step records its results{listed}"


def _recordings(api: MlflowApi, experiment_id: str) -> tuple[Recording, ...]:
    """Those whose experiment's run is finished: it is not if the recording was cut off."""
    finished = list(api.runs(experiment_id))
    models: dict[str, list[MlflowRun]] = {}
    for run in finished:
        if run.tags.get(_LEVEL) in ("first", "second"):
            models.setdefault(run.tags.get(_PARENT, ""), []).append(run)
    return tuple(
        Recording(run, tuple(models[run.run_id]), _uses(run))
        for run in finished
        if run.tags.get(_LEVEL) == "experiment" and run.run_id in models
    )


def _uses(run: MlflowRun) -> tuple[Use, ...]:
    """The use by the run that computed the evaluation, then those that tasks have marked since."""
    computed = Use(run.started, run.tags.get(_DAG, ""), run.tags.get(_RUN, ""))
    marked = (_parse_use(text) for tag, text in run.tags.items() if tag.startswith(_USED))
    newest: dict[str, Use] = {computed.dag_id: computed}
    for use in filter(None, marked):
        known = newest.get(use.dag_id)
        newest[use.dag_id] = use if known is None else max(known, use, key=lambda use: use.at)
    return tuple(newest.values())


def _parse_use(text: str) -> Use | None:
    """None for a tag that somebody has changed by hand into something else."""
    try:
        document: Mapping[str, object] = json.loads(text)
        at = datetime.datetime.fromisoformat(str(document["at"]))
        return Use(at.astimezone(datetime.UTC), str(document["dag_id"]), str(document["run_id"]))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def _dags(uses: Sequence[Use]) -> set[str]:
    return {use.dag_id for use in uses}
