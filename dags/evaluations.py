"""The data of an evaluation for MLflow, kept in its artifact, and the mark that they have been recorded.

Standard library only, because the Airflow worker imports it before anything starts, and so does the step's own process.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from .artifacts import Artifact

# `replayctl mlflow-sync` uses the same names.
RUNS_FILE = "mlflow.json"


def has_unrecorded_runs(artifact: Artifact, document: Mapping[str, Any]) -> bool:
    """Whether the artifact has runs that were not recorded for the DAG of this step document."""
    names = artifact.folder.entries()
    return RUNS_FILE in names and mark_name(document) not in names


def mark_name(document: Mapping[str, Any]) -> str:
    """The file in the artifact that marks its runs as recorded in the DAG's experiment, on the DAG's server.

    An artifact that several DAGs share has one for each of their experiments.
    """
    place = json.dumps([document["mlflow_server"], document["mlflow_experiment"]])
    return f"recorded-{hashlib.sha256(place.encode()).hexdigest()[:12]}.json"
