"""Evaluate: metrics of every model on the same test queries, and the runs for MLflow."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa

from ..artifacts import Artifact
from ..evaluations import RUNS_FILE
from . import tables, tracking
from .context import Input, StepContext, StepError, log
from .metrics import measure

METRICS_FILE = "metrics.json"
_TABLES = {"first_level": "candidates", "second_level": "recommendations"}
_METRICS = pa.schema(
    [("row", pa.string()), ("level", pa.string()), ("metric", pa.string()), ("k", pa.int32()), ("value", pa.float64())]
)


def run(context: StepContext, output: Artifact) -> dict[str, Any]:
    """Writes metrics.json, the table metrics (row, level, metric, k, value), and mlflow.json: the runs to record.

    A test query without recommendations of a model counts as 0. Needs no engine: recommendations are read column by
    column, whichever engine has computed them.
    """
    rows = [entry for entry in context.inputs if entry.workload in _TABLES]
    if not rows:
        raise StepError("there are no models to evaluate")
    ks = [int(k) for k in context.parameters["k"]]
    query, item = _columns(context.input("split").artifact, "test", "query_id", "item_id")
    measured: dict[str, dict[str, float]] = {}
    for entry in rows:
        recommended = _columns(entry.artifact, _TABLES[entry.workload], "query_id", "item_id", "rank")
        measured[entry.label] = measure((recommended[0], recommended[1], recommended[2]), (query, item), ks)
        log.info("%s: %s", entry.label, {name: round(value, 4) for name, value in measured[entry.label].items()})
    long = [
        {"row": entry.label, "level": level(entry), "metric": metric, "k": int(k), "value": value}
        for entry in rows
        for metric, _, k, value in ((*name.rpartition("."), value) for name, value in measured[entry.label].items())
    ]
    tables.write(output, "metrics", _METRICS, [pa.Table.from_pylist(long, schema=_METRICS)])
    output.add(METRICS_FILE, json.dumps(measured, indent=2, sort_keys=True).encode())
    planned = tracking.plan(context, rows, measured)
    output.add(RUNS_FILE, json.dumps(planned, indent=2, sort_keys=True).encode())
    return {"test_queries": len(np.unique(query)), "metrics": measured}


def level(entry: Input) -> str:
    """`first` or `second`."""
    return entry.workload.partition("_")[0]


def _columns(artifact: Artifact, table: str, *names: str) -> list[np.ndarray]:
    whole = tables.read(artifact, table, names)
    return [whole.column(name).to_numpy() for name in names]
