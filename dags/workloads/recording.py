"""Records an evaluation in MLflow: once, however often the task is tried.

The artifact is published first and keeps the runs (`mlflow.json`), so nothing is computed again if the server is down.
A recording counts if the experiment's run, which is finished last, and one run for each model are finished. `replayctl
mlflow-sync` follows the same rules.

The experiment's run also has a tag for each DAG, which names the newest run that ended with the evaluation: a run that
reuses one records nothing else. Standard library only, because the Airflow worker sets that tag for an artifact that is
recorded already.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from ..artifacts import Artifact
from ..evaluations import RUNS_FILE, mark_name
from ..webhdfs import HdfsError
from .context import StepError, log
from .mlflow_server import MlflowAway, MlflowRefused, MlflowServer, ServerRun

_MAX_BYTES = 16 << 20
_PARENT = "mlflow.parentRunId"
# `replayctl leaderboard` reads these; the value has the whole id of the DAG.
_USED = "replayctl.used."
_MAX_TAG = 250
# How MLflow refuses to change a run that was deleted, or that it does not have.
_NO_SUCH_RUN = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")


def record(artifact: Artifact, document: Mapping[str, Any]) -> None:
    """Records the runs of an evaluation on its DAG's server as used by this run, and marks the artifact.

    Raises StepError without a tracking server, if the server rejects a request, or if it is down and
    `tracking_required`.
    """
    planned = json.loads(artifact.read(RUNS_FILE, _MAX_BYTES))
    server = _server(document)
    log.info("recording %s in MLflow at %s", artifact, server.url)
    try:
        run_id = _recorded(server, document["mlflow_experiment"], planned)
        _set_used(server, run_id, document)
    except MlflowAway as error:
        message = f"{error}; the metrics are kept with {artifact}"
        if document["tracking_required"]:
            raise MlflowAway(f"{message}: clear this task to record them, or run `replayctl mlflow-sync`") from error
        log.warning("%s; to record them later, run `replayctl mlflow-sync`", message)
        return
    except (KeyError, TypeError) as error:
        raise StepError(f"{server.url} does not answer as MLflow does ({error!r})") from error
    mark = {"mlflow_run": run_id, "experiment": document["mlflow_experiment"], "server": document["mlflow_server"]}
    try:
        artifact.add(mark_name(document), json.dumps(mark).encode())
    except (OSError, HdfsError) as error:
        # The next try finds the runs on the server.
        log.warning("cannot mark %s as recorded: %s", artifact, error)


def mark_as_used(artifact: Artifact, document: Mapping[str, Any]) -> str | None:
    """Marks the recorded runs of an evaluation as used by the run of `document`; nothing for any other artifact.

    Returns a warning if that is not possible. Raises StepError as `record` does.
    """
    try:
        run_id = json.loads(artifact.read(mark_name(document), _MAX_BYTES))["mlflow_run"]
    except FileNotFoundError:
        return None
    except (OSError, HdfsError, ValueError, KeyError, TypeError) as error:
        return f"cannot read where {artifact} is recorded, so the leaderboard may show an older run: {error}"
    server = _server(document)
    try:
        is_marked = _set_used(server, run_id, document)
    except MlflowAway as error:
        message = f"{error}; the leaderboard may show another run than this one"
        if document["tracking_required"]:
            raise MlflowAway(f"{message}: clear this task when MLflow answers") from error
        return f"{message} until the DAG runs again"
    if is_marked:
        return None
    return f"MLflow no longer has the runs of this evaluation: pass `--force {document['step']}` to record it again"


def _server(document: Mapping[str, Any]) -> MlflowServer:
    uri = document["tracking_uri"] or os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        raise StepError("no tracking server is set, neither in the deployment nor in MLFLOW_TRACKING_URI")
    return MlflowServer(uri)


def _set_used(server: MlflowServer, run_id: str, document: Mapping[str, Any]) -> bool:
    """Whether the experiment's run has the tag now; False if the server no longer has that run."""
    run = document.get("run", {})
    use = {key: str(run.get(key, "")) for key in ("dag_id", "run_id")}
    use["at"] = datetime.datetime.now(tz=datetime.UTC).isoformat(timespec="milliseconds")
    try:
        server.set_tag(run_id, f"{_USED}{use['dag_id']}"[:_MAX_TAG], json.dumps(use))
    except MlflowRefused as refused:
        if refused.code not in _NO_SUCH_RUN:
            raise
        return False
    return True


def _recorded(server: MlflowServer, experiment: str, planned: Mapping[str, Any]) -> str:
    """The id of the experiment's run; that of an earlier try or another writer if there is one."""
    experiment_id = server.experiment_id(experiment)
    complete = _complete(_runs(server, experiment_id, planned), planned)
    if complete and all(run.is_deleted for run in complete):
        log.warning("the runs of this evaluation were deleted in MLflow and stay so; --force evaluates again")
        return _first(complete).run_id
    if not complete:
        try:
            _create(server, experiment_id, planned)
        except MlflowRefused:
            # Of two writers, the one that has finished first deletes the runs of the other.
            if not _complete(_runs(server, experiment_id, planned), planned):
                raise
    return _leave_one(server, experiment_id, planned)


def _leave_one(server: MlflowServer, experiment_id: str, planned: Mapping[str, Any]) -> str:
    """Deletes unfinished runs, and those of older evaluations and of other writers; returns the run that is kept."""
    runs = _runs(server, experiment_id, planned)
    complete = _complete(runs, planned)
    if not complete:
        raise MlflowAway(f"MLflow at {server.url} does not show the runs that were just recorded")
    kept = _first(complete).run_id
    for run in runs:
        if not run.is_deleted and kept not in (run.run_id, run.tags.get(_PARENT)):
            server.delete_run(run.run_id)
    # Another writer may have done the same, and have taken our runs for unfinished ones.
    runs = _runs(server, experiment_id, planned)
    complete = _complete(runs, planned)
    if all(run.is_deleted for run in complete):
        kept = _first(complete).run_id
        for run in runs:
            if kept in (run.run_id, run.tags.get(_PARENT)):
                server.restore_run(run.run_id)
    return kept


def _create(server: MlflowServer, experiment_id: str, planned: Mapping[str, Any]) -> None:
    parent, *below = planned["runs"]
    started = planned["recorded_unix_ms"]
    parent_id = server.create_run(experiment_id, parent["name"], parent["tags"], started)
    open_runs = [parent_id]
    try:
        for run in below:
            tags = {**run["tags"], _PARENT: parent_id}
            open_runs.append(server.create_run(experiment_id, run["name"], tags, started))
            server.log(open_runs[-1], run["params"], run["metrics"])
            server.end_run(open_runs.pop(), "FINISHED")
        server.log(parent_id, parent["params"], parent["metrics"])
        server.end_run(open_runs.pop(), "FINISHED")
    finally:
        for run_id in open_runs:
            # If the server is down or has deleted them, another error reports that.
            with contextlib.suppress(MlflowAway, MlflowRefused):
                server.end_run(run_id, "FAILED")


def _runs(server: MlflowServer, experiment_id: str, planned: Mapping[str, Any]) -> list[ServerRun]:
    return server.runs(experiment_id, f"tags.`replayctl.evaluation` = '{planned['evaluation']}'")


def _complete(runs: Sequence[ServerRun], planned: Mapping[str, Any]) -> list[ServerRun]:
    """The experiment's runs of this evaluation, or of a newer one, that are finished and have a run for each model."""
    models = len(planned["runs"]) - 1
    finished = [run for run in runs if run.is_finished and run.started_unix_ms >= planned["recorded_unix_ms"]]
    below = [run.tags.get(_PARENT) for run in finished]
    return [run for run in finished if _PARENT not in run.tags and below.count(run.run_id) >= models]


def _first(complete: Sequence[ServerRun]) -> ServerRun:
    """The run that every writer selects; a deleted one only if all are deleted."""
    return min(complete, key=lambda run: (run.is_deleted, run.run_id))
