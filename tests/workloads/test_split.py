"""The split depends only on the rows' own keys, respects time, and does not leak."""

import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dags.artifacts import Artifact
from dags.raw_files import changed_data
from dags.workloads import runner, split
from dags.workloads.context import StepError
from dags.workloads.engines.embedded import EmbeddedEngine

from .conftest import Pipeline, pairs, rows, sample_rows, write_log

SPLIT = {"strategy": "query_time", "test_share": 0.2, "second_level_share": 0.25, "seed": 42}


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[EmbeddedEngine]:
    engine = EmbeddedEngine(cores=2, memory_gib=1, scratch=tmp_path)
    yield engine
    engine.close()


def parts(engine: EmbeddedEngine, rows: list[tuple[int, int, int]], folder: Path, **changed: Any) -> dict:
    """(query, item) → part, of rows of query, item and timestamp; `shuffle` follows from the pair and the seed."""
    seed = changed.get("seed", 42)
    schema = pa.schema(
        [("query", pa.int32()), ("item", pa.int32()), ("timestamp", pa.int64()), ("shuffle", pa.int64())]
    )
    full = [(query, item, time, random.Random(f"{seed}:{query}:{item}").getrandbits(63)) for query, item, time in rows]
    path = folder / f"positives-{len(list(folder.iterdir()))}.parquet"
    pq.write_table(pa.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in full], schema), path)
    values = engine.values(split.assign_parts(engine.file(path), {**SPLIT, **changed}, engine))
    return {(row["query"], row["item"]): row["part"] for row in values}


def sample(seed: int = 1) -> list[tuple[int, int, int]]:
    rows = [(u, i, t) for u, i, _, t in sample_rows() if u <= 40]
    random.Random(seed).shuffle(rows)
    return rows


@pytest.mark.parametrize("strategy", ["query_time", "query_random", "global_time"])
def test_the_same_rows_give_the_same_parts_in_any_order(engine: EmbeddedEngine, tmp_path: Path, strategy: str) -> None:
    one = parts(engine, sample(1), tmp_path, strategy=strategy)
    assert set(one.values()) == {"first_level_train", "second_level_train", "test"}
    assert one == parts(engine, sample(2), tmp_path, strategy=strategy)


def test_the_seed_decides_only_where_time_does_not(engine: EmbeddedEngine, tmp_path: Path) -> None:
    by_chance = parts(engine, sample(), tmp_path, strategy="query_random")
    assert by_chance != parts(engine, sample(), tmp_path, strategy="query_random", seed=43)
    distinct = [(1, n, n) for n in range(20)]
    assert parts(engine, distinct, tmp_path) == parts(engine, distinct, tmp_path, seed=43)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.tuples(st.integers(0, 2), st.integers(0, 11)), st.integers(0, 4), min_size=1),
    st.sampled_from([0.0, 0.2, 0.29, 0.5, 0.9]),
    st.sampled_from([0.0, 0.25, 0.9]),
)
def test_shares_round_down_time_is_kept_and_nobody_is_left_without_training(
    engine: EmbeddedEngine, tmp_path: Path, rows: dict, test_share: float, second_share: float
) -> None:
    given_rows = [(query, item, timestamp) for (query, item), timestamp in rows.items()]
    assigned = parts(engine, given_rows, tmp_path, test_share=test_share, second_level_share=second_share)
    assert set(assigned) == set(rows)
    for query in {query for query, _ in rows}:
        mine = {item: part for (owner, item), part in assigned.items() if owner == query}
        count = {part: list(mine.values()).count(part) for part in set(mine.values())}
        test = int(len(mine) * test_share + 1e-9)
        assert count.get("test", 0) == test
        assert count.get("second_level_train", 0) == int((len(mine) - test) * second_share + 1e-9)
        assert count.get("first_level_train", 0) >= 1
        times = {part: [rows[query, item] for item in mine if mine[item] == part] for part in count}
        order = [times[part] for part in ("first_level_train", "second_level_train", "test") if part in times]
        for earlier, later in itertools.pairwise(order):
            assert max(earlier) <= min(later)


def test_global_time_cuts_between_moments(engine: EmbeddedEngine, tmp_path: Path) -> None:
    rows = [(n % 3, n, n // 4) for n in range(40)]
    assigned = parts(engine, rows, tmp_path, strategy="global_time")
    for moment in range(10):
        assert len({assigned[query, item] for query, item, time in rows if time == moment}) == 1
    by_item = {item: part for (_, item), part in assigned.items()}
    assert [by_item[item] for item in (0, 31, 39)] == ["first_level_train", "test", "test"] or by_item[39] == "test"


def test_the_parts_of_the_real_sample_do_not_touch(pipeline: Pipeline) -> None:
    tables = {name: pairs(pipeline.path("split"), name) for name in ("first_level_train", "second_level_train", "test")}
    first, second, test = tables.values()
    assert not first & second
    assert not (first | second) & test
    results = pipeline.manifest("split")["results"]
    assert {name: len(rows) for name, rows in tables.items()} == {name: results[name] for name in tables}
    assert results["raw_rows"] == len(sample_rows())
    assert sum(results[name] for name in tables) + results["test_cold_rows_dropped"] == results["positives"]


def test_ids_are_dense_and_lead_back_to_the_original_ones(pipeline: Pipeline) -> None:
    for table, key, original in (("queries", "query_id", "query"), ("items", "item_id", "item")):
        ids = sorted(rows(pipeline.path("split"), table), key=lambda row: row[key])
        assert [row[key] for row in ids] == list(range(len(ids)))
        assert [row[original] for row in ids] == sorted(row[original] for row in ids)


def own(tmp_path: Path, rows: list[tuple[Any, ...]], checksum: str | None = None) -> dict[str, Any]:
    write_log(tmp_path / "data" / "replay" / "ml100k_ratings.csv", rows)
    document = Pipeline(tmp_path).document("split")
    dataset = {"name": "s", "version": "1", "checksum": checksum}
    document["parameters"] = {**document["parameters"], "dataset": dataset, "timestamp_unit": None}
    return document


@pytest.mark.parametrize(
    ("rows", "checksum", "message"),
    [
        (
            sample_rows()[:50],
            "50-0000000000000000",
            "have changed: the declared checksum is 50-0000000000000000, and the file's is 50-",
        ),
        ([(1, 2, "bad", 3)], None, "row 2, column 'rating': rating 'bad' is not a number"),
        ([], None, "is empty"),
        (
            [(1, 2, 5, 3)],
            None,
            r"second_level_train \(raw: 1, positive: 1, first_level_train: 1, second_level_train: 0,",
        ),
    ],
)
def test_data_that_cannot_be_trusted_are_refused(
    tmp_path: Path, rows: list, checksum: str | None, message: str
) -> None:
    document = own(tmp_path, rows, checksum)
    with pytest.raises(StepError, match=message):
        runner.run(document)
    assert not Path(document["output"]).exists()
    assert list(Path(document["output"]).parent.iterdir()) == []


def test_a_checksum_that_nobody_has_declared_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    document = own(tmp_path, sample_rows())
    runner.run(document)
    manifest = Artifact(document["output"]).manifest()
    (warning,) = manifest["warnings"]
    assert f'set checksum="{manifest["results"]["checksum"]}" in its DatasetInfo' in warning
    assert warning in caplog.messages
    other = own(tmp_path / "declared", sample_rows(), manifest["results"]["checksum"])
    runner.run(other)
    assert Artifact(other["output"]).manifest()["warnings"] == []


def test_other_files_must_have_the_rows_of_the_split_that_they_replace(tmp_path: Path) -> None:
    document = own(tmp_path, sample_rows())
    runner.run(document)
    artifact = Artifact(document["output"])
    before = artifact.manifest()
    own(tmp_path, sample_rows()[::-1])
    assert changed_data(artifact, document)
    again = {**document, "force": True, "expected_checksum": before["results"]["checksum"]}
    runner.run(again)
    assert artifact.manifest()["results"] == before["results"]
    assert changed_data(artifact, document) == ""
    own(tmp_path, sample_rows()[:-1])
    with pytest.raises(StepError, match=rf"have changed .* was {before['results']['checksum']}, and is "):
        runner.run(again)
    assert artifact.manifest()["results"] == before["results"]
    runner.run({**document, "force": True})
    assert artifact.manifest()["results"] != before["results"]


def test_data_that_do_not_fit_into_the_step_s_memory_are_refused_with_the_other_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(split, "_BYTES_PER_ROW", 10**9)
    with pytest.raises(StepError, match=r"50 rows need about 47 GiB of memory .* has 3 GiB: .*--engine spark"):
        runner.run(own(tmp_path, sample_rows()[:50]))


def test_of_a_pair_seen_twice_the_latest_rating_decides(tmp_path: Path) -> None:
    log = [(user, item, 5, user * item) for user in (-1, 1) for item in range(20)]
    log += [(user, 3, 1, 100) for user in (-1, 1)] + [(user, 4, 1, -100) for user in (-1, 1)]
    # Of two at the same moment the higher one.
    log += [(user, 5, 1, user * 5) for user in (-1, 1)]
    runner.run(document := own(tmp_path, log))
    items = {row["item"] for row in rows(Path(document["output"]), "items")}
    assert "3" not in items
    assert {"4", "5"} <= items
