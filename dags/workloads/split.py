"""Split: raw interactions → training rows of both levels and test rows, with dense ids.

Every choice follows from the rows' own keys: (time, hash of seed, query and item, item). So the result is the same for
any partitioning and any order of the rows, ties in time included.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from ..artifacts import Artifact
from .context import StepContext, log

KEYS = ("query", "item", "rating", "timestamp")
# Shares such as 0.29 of 100 rows must not lose a row to binary fractions.
_ROUNDING = 1e-9


def run(context: StepContext, output: Artifact) -> dict[str, Any]:
    """Writes first_level_train (A), second_level_train (B), test, queries and items; returns counts and checksum.

    Rows are query_id, item_id (dense, from 0), rating (1.0) and timestamp. Raises ValueError for unparsable cells,
    for data that differ from what the data set declares, and when a part would be empty.
    """
    parameters = context.parameters
    raw = read_interactions(context)
    checksum, rows = _checked(raw, parameters["dataset"])
    latest = raw.groupBy("query", "item").agg(F.max(F.struct("timestamp", "rating")).alias("last"))
    positives = latest.where(F.col("last.rating") >= parameters["positive_threshold"]).select(
        "query", "item", F.col("last.timestamp").alias("timestamp")
    )
    parts = assign_parts(positives, parameters["split"]).cache()
    train = parts.where(F.col("part") != "test")
    queries = _dense(train, "query", "query_id")
    items = _dense(train, "item", "item_id")
    encoded = (
        parts.join(queries, "query", "left")
        .join(items, "item", "left")
        .select("part", "query_id", "item_id", F.lit(1.0).alias("rating"), "timestamp")
        .cache()
    )
    counts = _counts(encoded)
    for part in ("first_level_train", "second_level_train", "test"):
        if not counts[part]:
            raise ValueError(f"the split leaves no rows in {part}: {counts}")
        warm = F.col("query_id").isNotNull() & F.col("item_id").isNotNull()
        rows_of_part = encoded.where((F.col("part") == part) & warm).drop("part")
        rows_of_part.write.parquet(output.table(part))
    queries.write.parquet(output.table("queries"))
    items.write.parquet(output.table("items"))
    for frame in (encoded, parts, raw):
        frame.unpersist()
    return {"raw_rows": rows, "checksum": checksum, **counts}


def read_interactions(context: StepContext) -> DataFrame:
    """The raw log as (query string, item string, rating double, timestamp long), cached.

    Without a rating column every rating is infinite (each row is a positive), without timestamps all are 0.
    """
    parameters = context.parameters
    path = f"file://{context.data_root}/{parameters['log_path']}"
    reader = context.spark.read
    raw = reader.csv(path, header=True) if parameters["file_format"] == "csv" else reader.parquet(path)
    columns: Mapping[str, str | None] = parameters["columns"]
    missing = [name for name in columns.values() if name is not None and name not in raw.columns]
    if missing:
        raise ValueError(f"{path} has no column {', '.join(missing)}; it has {', '.join(raw.columns)}")

    def given(key: str, kind: str, otherwise: Column) -> Column:
        name = columns[key]
        return otherwise.alias(key) if name is None else F.col(name).cast(kind).alias(key)

    return raw.select(
        given("query", "string", F.lit(None)),
        given("item", "string", F.lit(None)),
        given("rating", "double", F.lit(float("inf"))),
        given("timestamp", "long", F.lit(0).cast("long")),
    ).cache()


def content_checksum(interactions: DataFrame) -> tuple[str, int, dict[str, int]]:
    """`<rows>-<16 hex digits>` of canonical interactions, the number of rows, and the null cells of each column.

    The digits are the sum, modulo 2^64, of XXH64 (https://xxhash.com) over each row's four values: equal for any
    order and file format of the same rows. It finds accidents, not forgeries.
    """
    hashes = F.xxhash64(*KEYS).cast("decimal(20,0)")
    nulls = [F.sum(F.col(key).isNull().cast("long")).alias(key) for key in KEYS]
    found = interactions.agg(F.count(F.lit(1)).alias("rows"), F.sum(hashes).alias("total"), *nulls).first()
    assert found is not None
    rows = int(found["rows"])
    digits = int(found["total"] or 0) % 2**64
    return f"{rows}-{digits:016x}", rows, {key: int(found[key] or 0) for key in KEYS}


def _checked(raw: DataFrame, dataset: Mapping[str, Any]) -> tuple[str, int]:
    checksum, rows, nulls = content_checksum(raw)
    if rows == 0:
        raise ValueError(f"data set {dataset['name']} is empty")
    bad = [f"{count} in {key}" for key, count in nulls.items() if count]
    if bad:
        raise ValueError(f"data set {dataset['name']} has empty or unparsable cells: {', '.join(bad)} (of {rows} rows)")
    declared = dataset["checksum"]
    if declared is None:
        log.warning("data set %s declares no checksum; its content is %s", dataset["name"], checksum)
    elif declared != checksum:
        raise ValueError(
            f"the data of {dataset['name']} {dataset['version']} have changed: declared checksum {declared}, found "
            f"{checksum}. New data need a new version: set version and checksum in dag_entities.DATASETS"
        )
    return checksum, rows


def assign_parts(positives: DataFrame, split: Mapping[str, Any]) -> DataFrame:
    """Adds `part` (first_level_train, second_level_train or test) to unique rows of (query, item, timestamp).

    Per query, floor(test_share · n) rows go to test and floor(second_level_share · rest) to the second level, the
    latest ones (`query_time`) or those with the greatest hash (`query_random`); so every query keeps a row for the
    first level. `global_time` cuts at two moments instead: a part begins with the row at its share, and rows of one
    moment stay together.
    """
    test_share, second_share = split["test_share"], split["second_level_share"]
    if split["strategy"] == "global_time":
        return _parts_by_moment(positives, test_share, second_share)
    shuffled = F.xxhash64(F.lit(int(split["seed"])), F.col("query"), F.col("item"))
    order = [F.col("timestamp")] if split["strategy"] == "query_time" else []
    latest_first = [column.desc() for column in (*order, shuffled, F.col("item"))]
    count = F.count(F.lit(1)).over(Window.partitionBy("query"))
    place = F.row_number().over(Window.partitionBy("query").orderBy(*latest_first))
    test_rows = F.floor(F.col("n") * test_share + _ROUNDING)
    second_rows = F.floor((F.col("n") - F.col("test_rows")) * second_share + _ROUNDING)
    part = (
        F.when(F.col("place") <= F.col("test_rows"), "test")
        .when(F.col("place") <= F.col("test_rows") + second_rows, "second_level_train")
        .otherwise("first_level_train")
    )
    counted = positives.withColumns({"n": count, "place": place}).withColumn("test_rows", test_rows)
    return counted.withColumn("part", part).select("query", "item", "timestamp", "part")


def _parts_by_moment(positives: DataFrame, test_share: float, second_share: float) -> DataFrame:
    def border(frame: DataFrame, share: float) -> int:
        found = frame.agg(F.expr(f"percentile_disc({1 - share}) within group (order by timestamp)")).first()
        if found is None or found[0] is None:
            raise ValueError("no rows to split by time")
        return int(found[0])

    test_from = border(positives, test_share)
    second_from = border(positives.where(F.col("timestamp") < test_from), second_share)
    part = (
        F.when(F.col("timestamp") >= test_from, "test")
        .when(F.col("timestamp") >= second_from, "second_level_train")
        .otherwise("first_level_train")
    )
    return positives.withColumn("part", part).select("query", "item", "timestamp", "part")


def _dense(train: DataFrame, key: str, name: str) -> DataFrame:
    """Ids 0 … n-1 in the order of the original ones."""
    numbered = F.row_number().over(Window.orderBy(key)) - 1
    return train.select(key).distinct().withColumn(name, numbered.cast("int")).cache()


def _counts(encoded: DataFrame) -> dict[str, int]:
    warm = F.col("query_id").isNotNull() & F.col("item_id").isNotNull()
    rows = encoded.groupBy("part").agg(
        F.count(F.lit(1)).alias("rows"),
        F.sum(warm.cast("long")).alias("warm"),
        F.countDistinct(F.when(warm, F.col("query_id"))).alias("queries"),
    )
    found = {row["part"]: row for row in rows.collect()}
    totals = encoded.agg(F.max("query_id"), F.max("item_id")).first()
    assert totals is not None
    counts = {part: int(row["warm"]) for part, row in found.items()}
    for part in ("first_level_train", "second_level_train", "test"):
        counts.setdefault(part, 0)
    test = found.get("test")
    first_items = encoded.where(F.col("part") == "first_level_train").select("item_id").distinct().count()
    return {
        **counts,
        "positives": sum(int(row["rows"]) for row in found.values()),
        "queries": int(totals[0] + 1) if totals[0] is not None else 0,
        "items": int(totals[1] + 1) if totals[1] is not None else 0,
        "items_first_level": first_items,
        "test_queries": int(test["queries"]) if test else 0,
        "test_cold_rows_dropped": int(test["rows"] - test["warm"]) if test else 0,
    }
