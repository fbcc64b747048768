"""First level: one RePlay model proposes candidates, for the second level's training and for the test queries."""

from __future__ import annotations

import importlib
import time
from collections.abc import Mapping
from typing import Any

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from ..artifacts import Artifact
from .context import StepContext


def run(context: StepContext, output: Artifact) -> dict[str, Any]:
    """Writes train_candidates (model fitted on A, unseen there) and candidates (refitted on A and B, unseen there).

    Both are query_id, item_id, score, rank (from 1). Returns counts, seconds, and the share of B's rows that the
    train candidates hold. Raises ValueError for a class or keyword arguments that RePlay does not have.
    """
    split = context.input("split")
    first = context.read(split, "first_level_train").cache()
    second = context.read(split, "second_level_train").cache()
    test = context.read(split, "test")
    seconds: dict[str, float] = {}
    top = int(context.parameters["candidates"])
    _propose(context, first, second, top, output.table("train_candidates"), "train", seconds)
    both = first.unionByName(second).cache()
    _propose(context, both, test, top, output.table("candidates"), "refit", seconds)
    train_candidates = context.spark.read.parquet(output.table("train_candidates"))
    hits = train_candidates.join(second, ["query_id", "item_id"]).count()
    positives = second.count()
    results = {
        "train_candidates": train_candidates.count(),
        "candidates": context.spark.read.parquet(output.table("candidates")).count(),
        "second_level_positives": positives,
        "second_level_positives_proposed": hits,
        "second_level_recall": round(hits / positives, 6) if positives else 0.0,
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
    }
    for frame in (both, second, first):
        frame.unpersist()
    return results


def make_model(parameters: Mapping[str, Any]) -> Any:
    """A fresh model by its class path and keyword arguments; ValueError when RePlay has no such class or argument."""
    module, _, name = parameters["class_path"].rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"RePlay has no model {parameters['class_path']!r}: {error}") from error
    try:
        return kind(**parameters["kwargs"])
    except TypeError as error:
        raise ValueError(f"{parameters['class_path']} does not take {dict(parameters['kwargs'])}: {error}") from error


def replay_dataset(interactions: DataFrame) -> Any:
    """Interactions in the form that RePlay's models take."""
    from replay.data import Dataset, FeatureHint, FeatureInfo, FeatureSchema, FeatureType

    schema = FeatureSchema(
        [
            FeatureInfo("query_id", FeatureType.CATEGORICAL, FeatureHint.QUERY_ID),
            FeatureInfo("item_id", FeatureType.CATEGORICAL, FeatureHint.ITEM_ID),
            FeatureInfo("rating", FeatureType.NUMERICAL, FeatureHint.RATING),
            FeatureInfo("timestamp", FeatureType.NUMERICAL, FeatureHint.TIMESTAMP),
        ]
    )
    return Dataset(schema, interactions, categorical_encoded=False, check_consistency=False)


def _propose(
    context: StepContext,
    interactions: DataFrame,
    asked: DataFrame,
    top: int,
    path: str,
    name: str,
    seconds: dict[str, float],
) -> None:
    """Fits a fresh model and writes the `top` unseen items of every query that has rows in `asked`."""
    context.spark.sparkContext.setJobDescription(f"{context.document['step']}: {name}")
    model = make_model(context.parameters)
    dataset = replay_dataset(interactions)
    started = time.monotonic()
    model.fit(dataset)
    seconds[f"{name}_fit"] = time.monotonic() - started
    started = time.monotonic()
    queries = asked.select("query_id").distinct()
    proposed = model.predict(dataset, k=top, queries=queries, filter_seen_items=True)
    order = Window.partitionBy("query_id").orderBy(F.col("rating").desc(), F.col("item_id"))
    ranked = proposed.withColumn("rank", F.row_number().over(order)).where(F.col("rank") <= top)
    ranked.select(
        F.col("query_id").cast("int").alias("query_id"),
        F.col("item_id").cast("int").alias("item_id"),
        F.col("rating").cast("double").alias("score"),
        "rank",
    ).write.parquet(path)
    seconds[f"{name}_predict"] = time.monotonic() - started
