"""Evaluate: RePlay's metrics of every model on the same test queries, as an artifact and in MLflow."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from ..artifacts import Artifact
from . import tracking
from .context import Input, StepContext, log

METRICS_FILE = "metrics.json"
# Up to so many rows a frame is collected: RePlay is then many times faster than on Spark.
_COLLECT_ROWS = 5_000_000
_TABLES = {"first_level": "candidates", "second_level": "recommendations"}


def run(context: StepContext, output: Artifact) -> dict[str, Any]:
    """Writes metrics.json and the table metrics (row, level, metric, k, value), and records the runs in MLflow.

    A test query for which a model recommends nothing counts as 0.
    """
    rows = [entry for entry in context.inputs if entry.workload in _TABLES]
    if not rows:
        raise ValueError("there is no model to evaluate")
    ks = [int(k) for k in context.parameters["k"]]
    truth = context.read(context.input("split"), "test").select("query_id", "item_id").cache()
    measured: dict[str, dict[str, float]] = {}
    for entry in rows:
        # By rank: equal scores would be ordered anew, and differently, wherever they are sorted.
        recommended = context.read(entry, _TABLES[entry.workload]).select(
            "query_id", "item_id", (-F.col("rank")).cast("double").alias("score")
        )
        measured[entry.label] = measure(recommended, truth, ks)
        log.info("%s: %s", entry.label, {name: round(value, 4) for name, value in measured[entry.label].items()})
    test_queries = truth.select("query_id").distinct().count()
    long = [
        (entry.label, level(entry), name.rpartition(".")[0], int(name.rpartition(".")[2]), value)
        for entry in rows
        for name, value in measured[entry.label].items()
    ]
    frame = context.spark.createDataFrame(long, "row string, level string, metric string, k int, value double")
    frame.coalesce(1).write.parquet(output.table("metrics"))
    (output.path / METRICS_FILE).write_text(json.dumps(measured, indent=2, sort_keys=True), encoding="utf-8")
    truth.unpersist()
    run_id = tracking.record(context, rows, measured)
    return {"test_queries": test_queries, "metrics": measured, "mlflow_run": run_id}


def level(entry: Input) -> str:
    """`first` or `second`."""
    return entry.workload.partition("_")[0]


def measure(
    recommended: DataFrame, truth: DataFrame, ks: Sequence[int], *, collect_rows: int = _COLLECT_ROWS
) -> dict[str, float]:
    """NDCG, MAP, HitRate and Recall at each k, averaged over the queries of `truth`, by replay.metrics.

    `recommended` has query_id, item_id, score; `truth` has query_id, item_id. Keys look like `NDCG.10`.
    """
    from replay.metrics import MAP, NDCG, HitRate, OfflineMetrics, Recall

    metrics = OfflineMetrics(
        [NDCG(list(ks)), MAP(list(ks)), HitRate(list(ks)), Recall(list(ks))],
        query_column="query_id",
        item_column="item_id",
        rating_column="score",
    )
    small = recommended.count() <= collect_rows
    found = metrics(recommended.toPandas(), truth.toPandas()) if small else metrics(recommended, truth)
    return {name.replace("@", "."): float(value) for name, value in found.items()}
