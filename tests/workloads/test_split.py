"""The split: from the rows' own keys alone, in time, without leaks."""

import itertools
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from dags.workloads import runner, split

from .conftest import Pipeline, sample_rows, write_log

pytestmark = pytest.mark.spark
SCHEMA = "query string, item string, timestamp long"
SPLIT = {"strategy": "query_time", "test_share": 0.2, "second_level_share": 0.25, "seed": 42}


def parts(spark: SparkSession, rows: list[tuple[str, str, int]], partitions: int = 3, **changed: Any) -> dict:
    frame = spark.createDataFrame(rows, SCHEMA).repartition(partitions)
    found = split.assign_parts(frame, {**SPLIT, **changed}).collect()
    return {(row.query, row.item): row.part for row in found}


def sample(seed: int = 1) -> list[tuple[str, str, int]]:
    rows = [(str(u), str(i), t) for u, i, _, t in sample_rows() if u <= 40]
    random.Random(seed).shuffle(rows)
    return rows


@pytest.mark.parametrize("strategy", ["query_time", "query_random", "global_time"])
def test_the_same_rows_give_the_same_parts_in_any_order_and_partitioning(spark: SparkSession, strategy: str) -> None:
    one = parts(spark, sample(1), 1, strategy=strategy)
    assert set(one.values()) == {"first_level_train", "second_level_train", "test"}
    assert one == parts(spark, sample(2), 2, strategy=strategy) == parts(spark, sample(3), 7, strategy=strategy)


def test_the_seed_decides_only_where_time_does_not(spark: SparkSession) -> None:
    assert parts(spark, sample(), strategy="query_random") != parts(spark, sample(), strategy="query_random", seed=43)
    distinct = [("q", str(n), n) for n in range(20)]
    assert parts(spark, distinct) == parts(spark, distinct, seed=43)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.tuples(st.sampled_from("abc"), st.sampled_from([str(n) for n in range(12)])), st.integers(0, 4), min_size=1
    ),
    st.sampled_from([0.0, 0.2, 0.5, 0.9]),
    st.sampled_from([0.0, 0.25, 0.9]),
)
def test_shares_round_down_time_is_kept_and_nobody_is_left_without_training(
    spark: SparkSession, rows: dict, test_share: float, second_share: float
) -> None:
    given_rows = [(query, item, timestamp) for (query, item), timestamp in rows.items()]
    found = parts(spark, given_rows, test_share=test_share, second_level_share=second_share)
    assert set(found) == set(rows)
    for query in {query for query, _ in rows}:
        mine = {item: part for (each, item), part in found.items() if each == query}
        count = {part: list(mine.values()).count(part) for part in set(mine.values())}
        test = int(len(mine) * test_share + 1e-9)
        assert count.get("test", 0) == test
        assert count.get("second_level_train", 0) == int((len(mine) - test) * second_share + 1e-9)
        assert count.get("first_level_train", 0) >= 1
        times = {part: [rows[query, item] for item in mine if mine[item] == part] for part in count}
        order = [times[part] for part in ("first_level_train", "second_level_train", "test") if part in times]
        for earlier, later in itertools.pairwise(order):
            assert max(earlier) <= min(later)


def test_global_time_cuts_between_moments(spark: SparkSession) -> None:
    rows = [(str(n % 3), str(n), n // 4) for n in range(40)]
    found = parts(spark, rows, strategy="global_time")
    for moment in range(10):
        assert len({found[query, item] for query, item, time in rows if time == moment}) == 1
    assert [part for (_, item), part in sorted(found.items(), key=lambda pair: int(pair[0][1]))][-1] == "test"


def test_checksum_knows_content_and_not_order(spark: SparkSession) -> None:
    schema = "query string, item string, rating double, timestamp long"
    rows = [(str(n), str(n * 7 % 11), float(n % 5), n) for n in range(50)]
    one = split.content_checksum(spark.createDataFrame(rows, schema).repartition(5))
    assert one == split.content_checksum(spark.createDataFrame(rows[::-1], schema).coalesce(1))
    assert one[0].startswith("50-")
    changed = [*rows[:-1], ("49", rows[-1][1], 4.5, 49)]
    assert split.content_checksum(spark.createDataFrame(changed, schema))[0] != one[0]
    swapped = [(item, query, rating, time) for query, item, rating, time in rows]
    assert split.content_checksum(spark.createDataFrame(swapped, schema))[0] != one[0]


def test_the_parts_of_the_real_sample_do_not_touch(spark: SparkSession, pipeline: Pipeline) -> None:
    tables = {
        name: {(row.query_id, row.item_id) for row in spark.read.parquet(f"{pipeline.path('split')}/{name}").collect()}
        for name in ("first_level_train", "second_level_train", "test")
    }
    first, second, test = tables.values()
    assert not first & second
    assert not (first | second) & test
    results = pipeline.manifest("split")["results"]
    assert {name: len(rows) for name, rows in tables.items()} == {name: results[name] for name in tables}
    assert results["raw_rows"] == len(sample_rows())
    assert sum(results[name] for name in tables) + results["test_cold_rows_dropped"] == results["positives"]


def test_ids_are_dense_and_lead_back_to_the_original_ones(spark: SparkSession, pipeline: Pipeline) -> None:
    for table, key, original in (("queries", "query_id", "query"), ("items", "item_id", "item")):
        rows = spark.read.parquet(f"{pipeline.path('split')}/{table}").collect()
        assert sorted(row[key] for row in rows) == list(range(len(rows)))
        assert [row[original] for row in sorted(rows, key=lambda row: row[key])] == sorted(
            row[original] for row in rows
        )


def own(tmp_path: Path, rows: list[tuple[Any, ...]], checksum: str | None = None) -> dict[str, Any]:
    write_log(tmp_path / "data" / "replay" / "ml100k_ratings.csv", rows)
    document = Pipeline(tmp_path).document("split")
    document["parameters"] = {**document["parameters"], "dataset": {"name": "s", "version": "1", "checksum": checksum}}
    return document


@pytest.mark.parametrize(
    ("rows", "checksum", "message"),
    [
        (sample_rows()[:50], "50-0000000000000000", "have changed: declared checksum 50-0000000000000000, found 50-"),
        ([(1, 2, "bad", 3)], None, "empty or unparsable cells: 1 in rating"),
        ([(1, 2, 3, "")], None, "1 in timestamp"),
        ([], None, "is empty"),
        ([(1, 2, 5, 3)], None, "leaves no rows in second_level_train"),
    ],
)
def test_data_that_cannot_be_trusted_are_refused(
    spark: SparkSession, tmp_path: Path, rows: list, checksum: str | None, message: str
) -> None:
    document = own(tmp_path, rows, checksum)
    with pytest.raises(ValueError, match=message):
        runner.run(document)
    assert not Path(document["output"]).exists()
    assert list(Path(document["output"]).parent.iterdir()) == []


def test_a_missing_column_is_named(spark: SparkSession, tmp_path: Path) -> None:
    document = own(tmp_path, sample_rows()[:50])
    document["parameters"] = {
        **document["parameters"],
        "columns": {**document["parameters"]["columns"], "item": "film"},
    }
    with pytest.raises(ValueError, match="has no column film; it has user_id, item_id"):
        runner.run(document)


def test_of_a_pair_seen_twice_the_latest_rating_decides(spark: SparkSession, tmp_path: Path) -> None:
    rows = [(user, item, 5, user * item) for user in (-1, 1) for item in range(20)]
    rows += [(user, 3, 1, 100) for user in (-1, 1)] + [(user, 4, 1, -100) for user in (-1, 1)]
    runner.run(document := own(tmp_path, rows))
    assert document["output"]
    items = {row.item for row in spark.read.parquet(f"{document['output']}/items").collect()}
    assert "3" not in items
    assert "4" in items
