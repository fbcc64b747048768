"""Where the embedded engine computes the same as RePlay, the numbers are equal."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.sql import DataFrame

from dags.model_parameters import MODEL_PARAMETERS
from dags.workloads.context import StepError
from dags.workloads.engines.spark import SparkEngine
from dags.workloads.metrics import measure
from dags.workloads.models import ItemSimilarities, fits, replay_fits, scorer
from dags.workloads.models.workers import SparkWorkers, Threads

from ..conftest import sample_rows
from .conftest import cut

POSITIVES = sorted({(user - 1, item - 1) for user, item, rating, _ in sample_rows() if rating >= 4})
SHAPE = (max(user for user, _ in POSITIVES) + 1, max(item for _, item in POSITIVES) + 1)
TOP = 20


@pytest.fixture(scope="module")
def frame(spark_engine: SparkEngine) -> DataFrame:
    rows = [(user, item, 1.0, number) for number, (user, item) in enumerate(POSITIVES)]
    schema = "query_id int, item_id int, rating double, timestamp long"
    return spark_engine.session.createDataFrame(rows, schema).cache()


@pytest.fixture(scope="module")
def interactions() -> fits.Interactions:
    query, item = (np.array(column, np.int32) for column in zip(*POSITIVES, strict=True))
    return fits.Interactions(query, item, np.ones(len(query)), np.arange(len(query)), SHAPE)


def proposed(model: Any, interactions: fits.Interactions) -> dict[tuple[int, int], tuple[int, float]]:
    queries = np.unique(interactions.query)
    tables = scorer.propose(model, interactions.seen(), queries, TOP, threads=2)
    return {
        (row["query_id"], row["item_id"]): (row["rank"], row["score"]) for table in tables for row in table.to_pylist()
    }


@pytest.mark.parametrize(
    ("class_path", "kwargs"),
    [
        ("replay.models.PopRec", {}),
        ("replay.models.PopRec", {"use_rating": True}),
        ("replay.models.ItemKNN", {"num_neighbours": 10}),
        ("replay.models.ItemKNN", {"num_neighbours": 100, "shrink": 7.0, "weighting": "tf_idf"}),
        ("replay.models.ItemKNN", {"num_neighbours": 30, "weighting": "bm25", "use_rating": True}),
    ],
)
def test_scores_are_replays(
    frame: DataFrame, interactions: fits.Interactions, class_path: str, kwargs: dict[str, Any]
) -> None:
    """The fit in threads and by Spark's workers, what RePlay's fit has learnt, and RePlay's own predict."""
    mine = proposed(fits.fit(class_path, kwargs, interactions, Threads(2)), interactions)
    session = frame.sparkSession
    on_spark = fits.fit(class_path, kwargs, interactions, SparkWorkers(session, 2))
    queries = np.unique(interactions.query)
    by_workers = replay_fits.propose(session, on_spark, interactions.seen(), queries, TOP).collect()
    assert {(row.query_id, row.item_id): (row["rank"], row.score) for row in by_workers} == mine

    model = replay_fits.make(class_path, kwargs)
    data = replay_fits.dataset(frame)
    model.fit(data)
    learnt = replay_fits.learnt(model, SHAPE)
    assert learnt is not None
    by_learnt = proposed(learnt, interactions)
    own = replay_fits.ReplayModel(model, data).propose(session, queries, TOP).collect()
    scores = {(row.query_id, row.item_id): row.score for row in own}
    assert by_learnt.keys() == mine.keys()
    for pair, (_, score) in mine.items():
        assert by_learnt[pair][1] == pytest.approx(score, abs=1e-9)
    # Which of equal scores are the last of the list is RePlay's chance; the scores themselves are not.
    for pair in mine.keys() & scores.keys():
        assert mine[pair][1] == pytest.approx(scores[pair], abs=1e-9)
    by_query = {query: sorted((s for (q, _), (_, s) in mine.items() if q == query)) for query, _ in mine}
    for query, values in by_query.items():
        assert values == pytest.approx(sorted(s for (q, _), s in scores.items() if q == query), abs=1e-9)


def test_slim_makes_replays_regressions(spark_engine: SparkEngine) -> None:
    kwargs = {"beta": 0.2, "lambda_": 0.001, "seed": 7}
    # RePlay starts a call of Python for each item.
    rows = [(user, item, 1.0, 0) for user, item in POSITIVES if item < 60]
    query, item = (np.array(column, np.int32) for column in list(zip(*rows, strict=True))[:2])
    few = fits.Interactions(query, item, np.ones(len(rows)), np.zeros(len(rows), np.int64), SHAPE)
    mine = fits.fit("replay.models.SLIM", kwargs, few, Threads(2))
    on_spark = fits.fit("replay.models.SLIM", kwargs, few, SparkWorkers(spark_engine.session, 2))
    model = replay_fits.make("replay.models.SLIM", kwargs)
    schema = "query_id int, item_id int, rating double, timestamp long"
    model.fit(replay_fits.dataset(spark_engine.session.createDataFrame(rows, schema)))
    learnt = replay_fits.learnt(model, SHAPE)
    for other in (on_spark, learnt):
        assert isinstance(other, ItemSimilarities)
        assert isinstance(mine, ItemSimilarities)
        assert other.matrix.nnz == mine.matrix.nnz > 100
        assert abs(other.matrix - mine.matrix).max() < 1e-12


def test_als_gives_the_same_factors_for_any_number_of_files_and_partitions(
    spark_engine: SparkEngine, frame: DataFrame, tmp_path: Path
) -> None:
    factors = []
    for files, partitions in ((1, 1), (3, 7), (8, 200)):
        frame.repartition(files).write.parquet(f"file://{tmp_path}/{files}")
        with cut(spark_engine, partitions):
            rows = spark_engine.session.read.parquet(f"file://{tmp_path}/{files}")
            factors.append(replay_fits.fit("replay.models.ALSWrap", {"rank": 8, "seed": 42}, rows, SHAPE))
    for other in factors[1:]:
        np.testing.assert_array_equal(factors[0].queries, other.queries)
        np.testing.assert_array_equal(factors[0].items, other.items)


def test_metrics_are_replays(tmp_path: Path) -> None:
    import pandas as pd
    from replay.metrics import MAP, NDCG, HitRate, OfflineMetrics, Recall

    chance = np.random.default_rng(5)
    lists = [(query, item, place + 1) for query in range(40) for place, item in enumerate(chance.permutation(60)[:25])]
    truth = sorted({(int(query), int(item)) for query, item in chance.integers(0, (50, 60), (300, 2))})
    ks = [1, 5, 10, 25]
    recommended = pd.DataFrame(lists, columns=["query_id", "item_id", "rank"]).assign(score=lambda t: -t["rank"] * 1.0)
    metrics = OfflineMetrics(
        [NDCG(ks), MAP(ks), HitRate(ks), Recall(ks)],
        query_column="query_id",
        item_column="item_id",
        rating_column="score",
    )
    theirs = metrics(recommended.drop(columns="rank"), pd.DataFrame(truth, columns=["query_id", "item_id"]))
    columns = tuple(np.array(column) for column in zip(*lists, strict=True))
    pairs = tuple(np.array(column) for column in zip(*truth, strict=True))
    assert measure(columns, pairs, ks) == pytest.approx(
        {name.replace("@", "."): value for name, value in theirs.items()}, abs=1e-9
    )


def test_a_value_that_spark_would_refuse_is_named_before_it_gets_there(spark_engine: SparkEngine) -> None:
    with pytest.raises(StepError, match=r"^parameter rank of replay.models.Word2VecRec must be a whole number"):
        replay_fits.make("replay.models.Word2VecRec", {"rank": 0})


def test_a_parameter_that_replay_does_not_have_is_named(spark_engine: SparkEngine) -> None:
    known = ", ".join(MODEL_PARAMETERS["replay.models.ALSWrap"])
    with pytest.raises(StepError, match=rf"no parameter 'ranks' \(did you mean rank\?\); known: {known}$"):
        replay_fits.make("replay.models.ALSWrap", {"ranks": 3})
