"""Split: raw interactions → training rows of both levels and test rows, with dense ids.

Every choice depends only on the rows' own keys: (time, hash of seed, query and item, item). So the result is the same
for any engine, partitioning and order of the rows, including ties in time.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ibis
import pyarrow.compute as pc

from ..artifacts import Artifact
from ..raw_files import RAW_FILES, raw_record, raw_state
from . import raw, tables
from .context import StepContext, StepError

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from .engines import Engine

PARTS = ("first_level_train", "second_level_train", "test")
# Shares are computed in integers: 0.29 of 100 rows must be 29, without rounding errors of binary fractions.
_MILLION = 1_000_000
# Measured peak of the embedded engine's process: bytes per row of the raw data, plus a constant.
_BYTES_PER_ROW = 150


def run(context: StepContext, output: Artifact) -> dict[str, Any]:
    """Writes first_level_train (A), second_level_train (B), test, queries and items; returns counts and checksum.

    Rows are query_id, item_id (dense, from 0), rating (1.0) and timestamp. Raises StepError for cells that cannot be
    read, for data that differ from what the data set declares, and when a part would be empty.
    """
    parameters = context.parameters
    path = Path(context.data_root) / parameters["log_path"]
    log_format = raw.LogFormat(
        parameters["file_format"], parameters["columns"], parameters["delimiter"], parameters["timestamp_unit"]
    )
    state = raw_state(path)
    imported = raw.import_log(path, log_format, int(parameters["split"]["seed"]), context.scratch)
    output.add(RAW_FILES, raw_record(path, state))
    if raw_state(path) != state:
        raise StepError(
            f"the raw data at {path} have changed while they were read: run the DAG again when nobody writes them"
        )
    warnings = _check(imported, parameters["dataset"], context.document.get("expected_checksum"))
    if context.document["engine"] == "embedded":
        _refuse_what_does_not_fit(imported.rows, context.memory_gib)
    engine = context.engine
    names = {key: engine.file(context.scratch / file) for key, file in (("query", raw.QUERIES), ("item", raw.ITEMS))}
    events = engine.file(context.scratch / raw.EVENTS)
    parts = engine.keep(
        assign_parts(latest_positives(events, float(parameters["positive_threshold"])), parameters["split"], engine)
    )
    train = parts.filter(parts.part != "test")
    ids = {key: engine.keep(dense_ids(train, key, table)) for key, table in names.items()}
    encoded = engine.keep(_encoded(parts, ids))
    for part in PARTS:
        warm = encoded.query_id.notnull() & encoded.item_id.notnull()
        engine.write(encoded.filter((encoded.part == part) & warm).drop("part"), output, part)
    engine.write(ids["query"].select("query", "query_id"), output, "queries")
    engine.write(ids["item"].select("item", "item_id"), output, "items")
    counts = _counts(engine, encoded, output)
    empty = [part for part in PARTS if not counts[part]]
    if empty:
        rows = {"raw": imported.rows, "positive": counts["positives"], **{part: counts[part] for part in PARTS}}
        numbers = ", ".join(f"{name}: {count}" for name, count in rows.items())
        raise StepError(
            f"the split leaves no rows in {empty[0]} ({numbers}); "
            "use more data, lower positive_threshold, or raise the shares of `split` in its DatasetInfo"
        )
    return {"raw_rows": imported.rows, "checksum": imported.checksum, **counts, "warnings": warnings}


def _check(imported: raw.RawLog, dataset: Mapping[str, Any], expected: str | None) -> list[str]:
    """Raises StepError if the data are not the declared or the expected ones; returns warnings.

    `expected` is the checksum of the rows of the artifact that is replaced because its raw files are other ones.
    """
    if imported.rows == 0:
        raise StepError(f"data set {dataset['name']} is empty")
    declared = dataset["checksum"]
    if declared is not None and declared != imported.checksum:
        raise StepError(
            f"the data of {dataset['name']} {dataset['version']} have changed: the declared checksum is {declared}, "
            f"and the file's is {imported.checksum}. New data need a new version: set version and "
            f'checksum="{imported.checksum}" in its DatasetInfo'
        )
    if expected is not None and expected != imported.checksum:
        raise StepError(
            f"the data of {dataset['name']} {dataset['version']} have changed since its results were computed: the "
            f"checksum of their rows was {expected}, and is {imported.checksum}. New data need a new version: set "
            "version in its DatasetInfo. To replace all results of this version, run the DAG with --force all"
        )
    if declared is None:
        return [
            f"data set {dataset['name']} declares no checksum, by which every machine could check its rows: "
            f'set checksum="{imported.checksum}" in its DatasetInfo'
        ]
    return []


def _refuse_what_does_not_fit(rows: int, memory_gib: int) -> None:
    """Raises StepError if the experiment's steps would need more memory than they may use."""
    needed = rows * _BYTES_PER_ROW / 2**30
    if needed > memory_gib:
        raise StepError(
            f"{rows} rows need about {needed:.0f} GiB of memory on the embedded engine, and a step has {memory_gib} "
            "GiB: run it with `replayctl run EXPERIMENT --engine spark`, or give steps more memory (in the local "
            "profile local.task_memory_gib)"
        )


def latest_positives(events: ir.Table, threshold: float) -> ir.Table:
    """The latest row of each pair of query and item, if it is positive: query, item, timestamp, shuffle.

    If a pair has several ratings at its last moment, the highest counts.
    """
    pairs = events.group_by(["query", "item"]).agg(
        timestamp=events.timestamp.max(),
        liked=events.timestamp.max(where=events.rating >= threshold),
        shuffle=events.shuffle.max(),
    )
    return pairs.filter(pairs.liked == pairs.timestamp).drop("liked")


def assign_parts(positives: ir.Table, split: Mapping[str, Any], engine: Engine) -> ir.Table:
    """Adds `part` (first_level_train, second_level_train or test) to unique rows of (query, item, timestamp, shuffle).

    Per query, floor(test_share · n) rows go to test and floor(second_level_share · rest) to the second level, the
    latest ones (`query_time`) or those with the greatest hash (`query_random`); so every query keeps a row for the
    first level. `global_time` cuts at two moments instead: a part begins with the row at its share, and rows of one
    moment stay together.
    """
    test_share, second_share = (round(split[key] * _MILLION) for key in ("test_share", "second_level_share"))
    if split["strategy"] == "global_time":
        return _parts_by_moment(positives, test_share, second_share, engine)
    order = [positives.timestamp] if split["strategy"] == "query_time" else []
    latest_first = [column.desc() for column in (*order, positives.shuffle, positives.item)]
    placed = positives.mutate(
        n=positives.count().over(ibis.window(group_by=positives.query)),
        place=ibis.row_number().over(ibis.window(group_by=positives.query, order_by=latest_first)),
    )
    placed = placed.mutate(test_rows=placed.n * test_share // _MILLION)
    second_rows = (placed.n - placed.test_rows) * second_share // _MILLION
    part = ibis.cases(
        (placed.place < placed.test_rows, "test"),
        (placed.place < placed.test_rows + second_rows, "second_level_train"),
        else_="first_level_train",
    )
    return placed.mutate(part=part).select("query", "item", "timestamp", "part")


def _parts_by_moment(positives: ir.Table, test_share: int, second_share: int, engine: Engine) -> ir.Table:
    moments = engine.keep(positives.group_by("timestamp").agg(rows=positives.count()))
    test_from = _border(engine, moments, test_share)
    second_from = _border(engine, moments.filter(moments.timestamp < test_from), second_share)
    part = ibis.cases(
        (positives.timestamp >= test_from, "test"),
        (positives.timestamp >= second_from, "second_level_train"),
        else_="first_level_train",
    )
    return positives.mutate(part=part).select("query", "item", "timestamp", "part")


def _border(engine: Engine, moments: ir.Table, share: int) -> int:
    """The first moment up to which (1 - share) of the rows are."""
    rows = moments.rows.sum().over(ibis.window(order_by=moments.timestamp, preceding=(None, 0)))
    so_far = moments.mutate(so_far=rows, total=moments.rows.sum().over(ibis.window()))
    reached = so_far.filter(so_far.so_far * _MILLION >= so_far.total * (_MILLION - share))
    (row,) = engine.values(reached.agg(moment=reached.timestamp.min()))
    if row["moment"] is None:
        raise StepError("no rows to split by time")
    return int(str(row["moment"]))


def dense_ids(train: ir.Table, key: str, names: ir.Table) -> ir.Table:
    """position, `<key>` (the name) and `<key>_id`: 0 … n-1 in the order of the names, for those in `train`."""
    used = names.semi_join(train, names.position == train[key])
    number = ibis.row_number().over(ibis.window(order_by=used.position)).cast("int32")
    return used.mutate(**{f"{key}_id": number}).rename({key: "name"})


def _encoded(parts: ir.Table, ids: Mapping[str, ir.Table]) -> ir.Table:
    for key, table in ids.items():
        numbers = table.select("position", f"{key}_id")
        parts = parts.left_join(numbers, parts[key] == numbers.position).drop("position")
    # Not a literal 1.0, which is a decimal to Spark.
    rating = ibis.literal(1, "int8").cast("float64")
    return parts.mutate(rating=rating).select("part", "query_id", "item_id", "rating", "timestamp")


def _counts(engine: Engine, encoded: ir.Table, output: Artifact) -> dict[str, int]:
    """Counts from the written files, because an engine would compute the tables again."""
    rows = engine.values(encoded.group_by("part").agg(rows=encoded.count()))
    positives = {str(row["part"]): int(str(row["rows"])) for row in rows}
    written = {part: tables.rows(output, part) for part in PARTS}

    def distinct(part: str, column: str) -> int:
        return int(pc.count_distinct(tables.read(output, part, [column]).column(column)).as_py())

    return {
        **written,
        "positives": sum(positives.values()),
        "queries": tables.rows(output, "queries"),
        "items": tables.rows(output, "items"),
        "items_first_level": distinct("first_level_train", "item_id"),
        "test_queries": distinct("test", "query_id"),
        "test_cold_rows_dropped": positives.get("test", 0) - written["test"],
    }
