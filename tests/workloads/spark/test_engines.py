"""The steps' own expressions give the same rows on both engines, whatever the partitioning."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dags.workloads import combine, raw, split
from dags.workloads.context import StepError
from dags.workloads.engines.embedded import EmbeddedEngine
from dags.workloads.engines.spark import SparkEngine
from dags.workloads.metrics import measure

from ..conftest import Pipeline, rows, sample_rows, write_log
from .conftest import cut

# Each is in an example of its own: a pass takes seconds, and 200 partitions take the longest.
PARTITIONS = st.sampled_from([1, 2, 7])
COLUMNS: dict[str, str | None] = {"query": "user_id", "item": "item_id", "rating": "rating", "timestamp": "timestamp"}
# Names that sort differently by letters, code points and UTF-8 bytes, few moments, gaps in the ids.
NAMES = st.sampled_from(["1", "10", "9", "ü", "u", "Z", "a b", "\U0001f600", "￿", 'q"'])
LOGS = st.lists(
    st.tuples(
        NAMES, st.sampled_from([str(n) for n in (*range(9), 400)]), st.sampled_from([1, 3, 5]), st.integers(0, 3)
    ),
    min_size=1,
    max_size=60,
)
STRATEGIES = st.sampled_from(["query_time", "query_random", "global_time"])
# Ties in time, a pair that comes again, an item with nothing but its letters, a user with one row.
LOG = [(name, str(n % 7), 3 + n % 3, n % 4) for name in ("1", "ü", "u", "\U0001f600") for n in range(9)]
LOG += [("10", "400", 5, 2), ("1", "0", 1, 9), ("Z", "8", 5, 0)]


def values(engine: Any, table: Any) -> list[tuple[Any, ...]]:
    return sorted(
        (tuple(row[name] for name in sorted(row)) for row in engine.values(table)),
        key=lambda row: tuple((value is not None, value) for value in row),
    )


def split_tables(engine: Any, folder: Path, strategy: str) -> list[list[tuple[Any, ...]]] | str:
    """All tables of the split; the message where the rows are too few for it."""
    try:
        return made_tables(engine, folder, strategy)
    except StepError as error:
        return str(error)


def made_tables(engine: Any, folder: Path, strategy: str) -> list[list[tuple[Any, ...]]]:
    shares = {"strategy": strategy, "test_share": 0.29, "second_level_share": 0.25, "seed": 42}
    positives = split.latest_positives(engine.file(folder / raw.EVENTS), 3.0)
    parts = engine.keep(split.assign_parts(positives, shares, engine))
    train = parts.filter(parts.part != "test")
    names = {"query": raw.QUERIES, "item": raw.ITEMS}
    ids = {key: split.dense_ids(train, key, engine.file(folder / file)) for key, file in names.items()}
    tables = (positives, parts, *ids.values(), split._encoded(parts, ids))
    return [values(engine, table) for table in tables]


@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
@given(LOGS, STRATEGIES, PARTITIONS)
@example(LOG, "query_time", 1)
@example(LOG, "global_time", 2)
@example(LOG, "query_random", 7)
@example(LOG, "query_time", 200)
def test_the_split_is_the_same_on_both_engines(
    spark_engine: SparkEngine,
    tmp_path_factory: pytest.TempPathFactory,
    log: list[tuple[Any, ...]],
    strategy: str,
    partitions: int,
) -> None:
    if not any(rating >= 3 for _, _, rating, _ in log):
        return
    folder = tmp_path_factory.mktemp("split")
    with (folder / "log.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("user_id", "item_id", "rating", "timestamp"), *log])
    raw.import_log(folder / "log.csv", raw.LogFormat("csv", COLUMNS), 42, folder)
    embedded = EmbeddedEngine(cores=2, memory_gib=1, scratch=folder)
    expected = split_tables(embedded, folder, strategy)
    embedded.close()
    with cut(spark_engine, partitions):
        assert split_tables(spark_engine, folder, strategy) == expected


PAIRS = st.dictionaries(
    st.tuples(st.integers(0, 4), st.integers(0, 9)), st.sampled_from([0.1, 1 / 3, 2.0, -1e-9]), max_size=40
)
# Both models' candidates, what was seen and what is liked: each with pairs that others do not have.
SCORES = [{(n % 5, n % 10): 1 / (n + 1) for n in range(start, start + 24)} for start in (0, 7, 3, 11)]


def combine_tables(engine: Any, folder: Path) -> list[list[tuple[Any, ...]]]:
    candidates = {name: engine.file(folder / f"{name}.parquet") for name in ("a", "b")}
    seen, positives = (engine.file(folder / f"{name}.parquet") for name in ("seen", "positives"))
    union = combine.union_of_candidates(candidates)
    labelled = engine.keep(combine.with_labels(union, positives))
    sampled = combine.with_counts(combine.sample_negatives(labelled, 2, 42), seen)
    return [values(engine, table) for table in (union, labelled, sampled)]


@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
@given(PAIRS, PAIRS, PAIRS, PAIRS, PARTITIONS)
@example(*SCORES, 1)
@example(*SCORES, 2)
@example(*SCORES, 7)
@example(*SCORES, 200)
def test_features_labels_and_negatives_are_the_same_on_both_engines(
    spark_engine: SparkEngine,
    tmp_path_factory: pytest.TempPathFactory,
    a: dict,
    b: dict,
    seen: dict,
    positives: dict,
    partitions: int,
) -> None:
    folder = tmp_path_factory.mktemp("combine")
    for name, scores in (("a", a), ("b", b), ("seen", seen), ("positives", positives)):
        table = pa.table(
            {
                "query_id": pa.array([query for query, _ in scores], pa.int32()),
                "item_id": pa.array([item for _, item in scores], pa.int32()),
                "score": pa.array(list(scores.values()), pa.float64()),
                "rank": pa.array(range(1, len(scores) + 1), pa.int32()),
            }
        )
        pq.write_table(table, folder / f"{name}.parquet")
    embedded = EmbeddedEngine(cores=2, memory_gib=1, scratch=folder)
    expected = combine_tables(embedded, folder)
    embedded.close()
    with cut(spark_engine, partitions):
        assert combine_tables(spark_engine, folder) == expected


def test_a_pipeline_on_spark_makes_the_same_artifacts(spark_engine: SparkEngine, tmp_path: Path) -> None:
    """The same identities, schemas and rows; folders with letters that are patterns to Spark and DuckDB."""
    pipelines = {}
    for engine in ("embedded", "spark"):
        root = tmp_path / f"{engine} [a]{{b}}"
        write_log(root / "data" / "replay" / "ml100k_ratings.csv", sample_rows())
        pipelines[engine] = Pipeline(root, engine=engine)
        pipelines[engine].run("split", "first_level_poprec", "first_level_itemknn", "combine", "second_level_lightgbm")
    embedded, spark = pipelines["embedded"], pipelines["spark"]
    for step, tables in {
        "split": ("first_level_train", "second_level_train", "test", "queries", "items"),
        "first_level_poprec": ("train_candidates", "candidates"),
        "first_level_itemknn": ("train_candidates", "candidates"),
        "combine": ("train", "predict"),
        "second_level_lightgbm": ("recommendations",),
    }.items():
        assert embedded.step(step).identity == spark.step(step).identity
        for table in tables:
            mine, theirs = (sorted_rows(pipeline.path(step), table) for pipeline in (embedded, spark))
            assert [list(row) for row in mine[:1]] == [list(row) for row in theirs[:1]]
            assert len(mine) == len(theirs)
            assert mine == theirs, (step, table)
        kinds = [types(pipeline.path(step), tables[0]) for pipeline in (embedded, spark)]
        assert kinds[0] == kinds[1]
        assert counts(embedded.manifest(step)) == counts(spark.manifest(step))
    for step in ("first_level_poprec", "first_level_itemknn", "second_level_lightgbm"):
        assert measured(embedded, step) == measured(spark, step)
    assert spark.manifest("split")["engine"] == "spark"
    assert spark.manifest("second_level_lightgbm")["engine"] == "embedded"


def counts(manifest: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in manifest["results"].items() if name != "seconds"}


def measured(pipeline: Pipeline, step: str) -> dict[str, float]:
    """What the leaderboard would show of a model."""

    def columns(name: str, table: str, *keys: str) -> tuple[np.ndarray, ...]:
        whole = rows(pipeline.path(name), table)
        return tuple(np.array([row[key] for row in whole]) for key in keys)

    table = "recommendations" if step.startswith("second") else "candidates"
    recommended = columns(step, table, "query_id", "item_id", "rank")
    return measure(recommended, columns("split", "test", "query_id", "item_id"), [5, 10, 100])


def sorted_rows(path: Path, table: str) -> list[dict[str, Any]]:
    return sorted(rows(path, table), key=lambda row: [str(row[name]) for name in row if not name.startswith("score")])


def types(path: Path, table: str) -> list[tuple[str, str]]:
    schema = pq.ParquetFile(next(iter(sorted((path / table).glob("*.parquet"))))).schema_arrow
    return [(field.name, str(field.type)) for field in schema]
