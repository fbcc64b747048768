"""What an evaluation keeps for MLflow in its artifact, and the mark that it has been recorded there.

Standard library only: asked by the Airflow worker before anything starts, and by the step's own process.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from .artifacts import Artifact

# Known to `replayctl mlflow-sync`, too.
RUNS_FILE = "mlflow.json"


def has_unrecorded_runs(artifact: Artifact, document: Mapping[str, Any]) -> bool:
    """Whether the artifact has runs that were not recorded where the DAG of this step document wants them."""
    names = artifact.folder.entries()
    return RUNS_FILE in names and mark_name(document) not in names


def mark_name(document: Mapping[str, Any]) -> str:
    """The file in the artifact that says its runs are in the DAG's experiment, on the server that the DAG has chosen.

    An artifact that several DAGs share has one for each of their experiments.
    """
    place = json.dumps([document["mlflow_server"], document["mlflow_experiment"]])
    return f"recorded-{hashlib.sha256(place.encode()).hexdigest()[:12]}.json"
