"""Records an evaluation in MLflow: one run for the experiment, and below it one run per model.

Runs are named by model and parameters, each parameter is one of MLflow's, and each run names the release that has made
what it is about.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..reuse import flat_parameters, parameters_text
from .context import Input, StepContext, log

if TYPE_CHECKING:
    from mlflow import MlflowClient

_MAX_PARAM = 500
_MAX_NAME = 200


def record(context: StepContext, rows: Sequence[Input], measured: Mapping[str, Mapping[str, float]]) -> str:
    """The id of the experiment's run. Runs of an earlier, cut-off try of the same evaluation are deleted first.

    Raises ValueError without a tracking URI, and what MLflow raises when its server fails.
    """
    from mlflow import MlflowClient

    uri = context.document["tracking_uri"] or os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        raise ValueError("no tracking server: neither the deployment nor MLFLOW_TRACKING_URI names one")
    client = MlflowClient(tracking_uri=uri)
    experiment_id = _experiment(client, context.document["mlflow_experiment"])
    evaluation = context.document["identity"]
    for old in client.search_runs([experiment_id], f"tags.`replayctl.evaluation` = '{evaluation}'"):
        client.delete_run(old.info.run_id)
    split = context.input("split")
    manifests = {entry.identity: entry.artifact.manifest() for entry in context.inputs}
    tags = _common_tags(context, split)
    releases = {context.document["package"], *(str(manifest["release"]) for manifest in manifests.values())}
    parent = client.create_run(
        experiment_id,
        tags={
            **tags,
            "replayctl.level": "experiment",
            "replayctl.artifact": evaluation,
            "replayctl.release": context.document["package"],
            "replayctl.releases": ",".join(sorted(releases)),
        },
        run_name=f"{context.dataset}: {', '.join(entry.label for entry in rows)}"[:_MAX_NAME],
    ).info.run_id
    open_runs = [parent]
    try:
        _log(client, parent, {"dataset": context.dataset, "split": split.parameters["split"]}, {})
        for entry in rows:
            level = entry.workload.partition("_")[0]
            manifest = manifests[entry.identity]
            own = {
                "replayctl.level": level,
                "replayctl.row": entry.label,
                "replayctl.artifact": entry.identity,
                "replayctl.release": str(manifest["release"]),
                "mlflow.parentRunId": parent,
            }
            seconds = manifest.get("seconds")
            own |= {"replayctl.seconds": str(seconds)} if seconds is not None else {}
            words = parameters_text(entry.parameters)
            name = f"{entry.label} {words}".strip()[:_MAX_NAME]
            child = client.create_run(experiment_id, tags={**tags, **own}, run_name=name).info.run_id
            open_runs.append(child)
            _log(client, child, entry.parameters, measured[entry.label])
            client.set_terminated(open_runs.pop())
        best = max(measured.values(), key=lambda metrics: metrics.get("NDCG.10", 0.0))
        _log(client, parent, {"rows": ",".join(measured)}, best)
        client.set_terminated(open_runs.pop())
    finally:
        for run_id in open_runs:
            client.set_terminated(run_id, status="FAILED")
    return parent


def _experiment(client: MlflowClient, name: str) -> str:
    """The experiment's id; one that was deleted in MLflow's pages comes back with its runs: its name stays taken."""
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException:
            # Somebody else made it in the meantime, or the server refuses: the next line tells which.
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                raise
    if experiment.lifecycle_stage == "deleted":
        log.warning("experiment %r was deleted in MLflow: restoring it", name)
        client.restore_experiment(experiment.experiment_id)
    return str(experiment.experiment_id)


def _common_tags(context: StepContext, split: Input) -> dict[str, str]:
    document = context.document
    run = document.get("run", {})
    return {
        "replayctl.dataset": context.dataset,
        "replayctl.dataset_identity": json.dumps(split.parameters["dataset"], sort_keys=True),
        "replayctl.split": split.identity,
        "replayctl.evaluation": document["identity"],
        "replayctl.user": document["user"] or "",
        "replayctl.dag_id": str(run.get("dag_id", "")),
        "replayctl.run_id": str(run.get("run_id", "")),
    }


def _log(client: MlflowClient, run_id: str, params: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
    from mlflow.entities import Metric, Param

    now = int(time.time() * 1000)
    client.log_batch(
        run_id,
        metrics=[Metric(name, value, now, 0) for name, value in metrics.items()],
        params=[Param(name, _text(value)[:_MAX_PARAM]) for name, value in flat_parameters(params)],
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
