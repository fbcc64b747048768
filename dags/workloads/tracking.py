"""Records an evaluation in MLflow: one run for the experiment, and below it one run per model.

Runs are named by model and parameters, each parameter is one of MLflow's, and each run names the release that has made
what it is about.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from ..reuse import flat_parameters, parameters_text
from .context import Input, StepContext, StepError
from .mlflow_server import MlflowServer

_MAX_PARAM = 500
_MAX_NAME = 200


def record(context: StepContext, rows: Sequence[Input], measured: Mapping[str, Mapping[str, float]]) -> str:
    """The id of the experiment's run. Runs of an earlier, cut-off try of the same evaluation are deleted first.

    Raises StepError without a tracking URI, and when the server does not answer or refuses.
    """
    uri = context.document["tracking_uri"] or os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        raise StepError("no tracking server: neither the deployment nor MLFLOW_TRACKING_URI names one")
    server = MlflowServer(uri)
    experiment_id = server.experiment_id(context.document["mlflow_experiment"])
    evaluation = context.document["identity"]
    for old in server.run_ids(experiment_id, f"tags.`replayctl.evaluation` = '{evaluation}'"):
        server.delete_run(old)
    split = context.input("split")
    manifests = {entry.identity: entry.artifact.manifest() for entry in context.inputs}
    tags = _common_tags(context, split)
    releases = {context.document["package"], *(str(manifest["release"]) for manifest in manifests.values())}
    parent = server.create_run(
        experiment_id,
        f"{context.dataset}: {', '.join(entry.label for entry in rows)}"[:_MAX_NAME],
        {
            **tags,
            "replayctl.level": "experiment",
            "replayctl.artifact": evaluation,
            "replayctl.release": context.document["package"],
            "replayctl.releases": ",".join(sorted(releases)),
        },
    )
    open_runs = [parent]
    try:
        server.log(parent, _params({"dataset": context.dataset, "split": split.parameters["split"]}), {})
        for entry in rows:
            own = {**tags, **_row_tags(entry, manifests[entry.identity]), "mlflow.parentRunId": parent}
            name = f"{entry.label} {parameters_text(entry.parameters)}".strip()[:_MAX_NAME]
            open_runs.append(server.create_run(experiment_id, name, own))
            server.log(open_runs[-1], _params(entry.parameters), measured[entry.label])
            server.end_run(open_runs.pop(), "FINISHED")
        best = max(measured.values(), key=lambda metrics: metrics.get("NDCG.10", 0.0))
        server.log(parent, {"rows": ",".join(measured)}, best)
        server.end_run(open_runs.pop(), "FINISHED")
    finally:
        for run_id in open_runs:
            server.end_run(run_id, "FAILED")
    return parent


def _row_tags(entry: Input, manifest: Mapping[str, object]) -> dict[str, str]:
    tags = {
        "replayctl.level": entry.workload.partition("_")[0],
        "replayctl.row": entry.label,
        "replayctl.artifact": entry.identity,
        "replayctl.release": str(manifest["release"]),
        "replayctl.engine": str(manifest["engine"]),
        "replayctl.implementation": str(entry.parameters.get("implementation", "")),
    }
    seconds = manifest.get("seconds")
    return tags | ({"replayctl.seconds": str(seconds)} if seconds is not None else {})


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


def _params(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: _text(value)[:_MAX_PARAM] for name, value in flat_parameters(values)}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
