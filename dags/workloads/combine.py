"""Combine: the union of all models' candidates as rows for the second level, with features and labels."""

from __future__ import annotations

from functools import reduce
from typing import Any

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from ..artifacts import Artifact
from .context import Input, StepContext

_PAIR = ["query_id", "item_id"]


def run(context: StepContext, output: Artifact) -> dict[str, Any]:
    """Writes train (with target) and predict: pairs with score_<column>, rank_<column>, n_models and counts.

    <column> is each model's `Input.column`.

    A model that did not propose a pair leaves its score and rank null. Positives that no model proposed are not
    added, but counted. Queries without a positive among their candidates teach nothing and are left out of train.
    """
    if context.parameters["mode"] != "union":
        raise ValueError(f"unknown mode {context.parameters['mode']!r}; known: union")
    # Of two names for the same artifact one is enough.
    models = list({entry.identity: entry for entry in context.inputs if entry.workload == "first_level"}.values())
    if not models:
        raise ValueError("there is no first-level model to combine")
    split = context.input("split")
    first = context.read(split, "first_level_train")
    second = context.read(split, "second_level_train")
    labels = second.select(*_PAIR, F.lit(1).alias("target"))
    pairs = union_of_candidates(context, models, "train_candidates")
    labelled = with_counts(pairs, first).join(labels, _PAIR, "left").fillna(0, ["target"]).cache()
    train = sample_negatives(
        labelled, int(context.parameters["negatives_per_query"]), int(context.parameters["seed"])
    ).cache()
    train.write.parquet(output.table("train"))
    predict = with_counts(union_of_candidates(context, models, "candidates"), first.unionByName(second))
    predict.write.parquet(output.table("predict"))
    results = _counts(labelled, train, second)
    results["predict_rows"] = context.spark.read.parquet(output.table("predict")).count()
    train.unpersist()
    labelled.unpersist()
    return results


def union_of_candidates(context: StepContext, models: list[Input], table: str) -> DataFrame:
    """One row per pair that any model proposed: its score and rank by each model (null where not), and n_models."""
    frames = [context.read(entry, table).withColumn("model", F.lit(entry.column)) for entry in models]
    together = reduce(DataFrame.unionByName, frames)
    columns = []
    for entry in models:
        for value in ("score", "rank"):
            chosen = F.when(F.col("model") == entry.column, F.col(value))
            columns.append(F.max(chosen).alias(f"{value}_{entry.column}"))
    return together.groupBy(*_PAIR).agg(*columns, F.count(F.lit(1)).cast("int").alias("n_models"))


def with_counts(pairs: DataFrame, interactions: DataFrame) -> DataFrame:
    """Adds query_count and item_count: how many interactions each has in the rows that the candidates' models saw."""
    for key, name in (("query_id", "query_count"), ("item_id", "item_count")):
        counted = interactions.groupBy(key).agg(F.count(F.lit(1)).cast("int").alias(name))
        pairs = pairs.join(counted, key, "left")
    return pairs.fillna(0, ["query_count", "item_count"])


def sample_negatives(labelled: DataFrame, per_query: int, seed: int) -> DataFrame:
    """All positives, and of each query with one at most `per_query` negatives: those with the smallest hash."""
    by_query = Window.partitionBy("query_id")
    shuffled = F.xxhash64(F.lit(seed), F.col("query_id"), F.col("item_id"))
    place = F.row_number().over(Window.partitionBy("query_id", "target").orderBy(shuffled, "item_id"))
    marked = labelled.withColumns({"place": place, "positives": F.sum("target").over(by_query)})
    kept = (F.col("positives") > 0) & ((F.col("target") == 1) | (F.col("place") <= per_query))
    return marked.where(kept).drop("place", "positives")


def _counts(labelled: DataFrame, train: DataFrame, second: DataFrame) -> dict[str, Any]:
    all_rows = labelled.agg(F.count(F.lit(1)), F.sum("target"), F.countDistinct("query_id")).first()
    kept = train.agg(F.count(F.lit(1)), F.sum("target"), F.countDistinct("query_id")).first()
    assert all_rows is not None
    assert kept is not None
    positives = second.count()
    proposed = int(all_rows[1] or 0)
    return {
        "candidates": int(all_rows[0]),
        "positives": positives,
        "positives_outside_candidates": positives - proposed,
        "positives_outside_candidates_share": round((positives - proposed) / positives, 6) if positives else 0.0,
        "train_rows": int(kept[0]),
        "train_positives": int(kept[1] or 0),
        "train_queries": int(kept[2]),
        "queries_without_positives": int(all_rows[2]) - int(kept[2]),
    }
