"""The runs of an evaluation for MLflow: one for the experiment, and below it one per model.

Runs are named by model and parameters, each parameter is one of MLflow's, and each run names the release that has
computed its artifact. They are kept in the artifact, and `recording` sends them to the server.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ..reuse import flat_parameters, parameters_text
from .context import Input, StepContext

_MAX_PARAM = 500
_MAX_NAME = 200


def plan(context: StepContext, rows: Sequence[Input], measured: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """The runs of an evaluation as JSON values: the experiment's first, then those below it, one per model.

    They may be recorded later, by another try of the task or by `replayctl mlflow-sync`.
    """
    evaluation = context.document["identity"]
    split = context.input("split")
    manifests = {entry.identity: entry.artifact.manifest() for entry in context.inputs}
    tags = _common_tags(context, split)
    releases = {context.document["package"], *(str(manifest["release"]) for manifest in manifests.values())}
    parent = {
        "name": f"{context.dataset}: {', '.join(entry.label for entry in rows)}"[:_MAX_NAME],
        "tags": {
            **tags,
            "replayctl.level": "experiment",
            "replayctl.artifact": evaluation,
            "replayctl.release": context.document["package"],
            "replayctl.releases": ",".join(sorted(releases)),
        },
        "params": {
            # Only evaluations with the same test data are comparable.
            **_params(split.parameters),
            "dataset": context.dataset,
            "rows": ",".join(measured),
        },
        "metrics": max(measured.values(), key=lambda metrics: metrics.get("NDCG.10", 0.0)),
    }
    below = [
        {
            "name": f"{entry.label} {parameters_text(entry.parameters)}".strip()[:_MAX_NAME],
            "tags": {**tags, **_row_tags(entry, manifests[entry.identity])},
            "params": _params(entry.parameters),
            "metrics": measured[entry.label],
        }
        for entry in rows
    ]
    return {
        "evaluation": evaluation,
        "experiment": context.document["mlflow_experiment"],
        "server": context.document["mlflow_server"],
        "recorded_unix_ms": int(time.time() * 1000),
        "runs": [parent, *below],
    }


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
