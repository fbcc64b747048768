"""Candidates, features, reranking and metrics on a sample of the real data."""

import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from dags.workloads import combine, evaluate, first_level, runner, second_level
from dags.workloads.context import StepContext

from .conftest import Pipeline

pytestmark = pytest.mark.spark
MODELS = ("poprec", "itemknn")


def rows(spark: SparkSession, path: Path, table: str) -> list[Any]:
    return spark.read.parquet(f"{path}/{table}").collect()


def pairs(spark: SparkSession, path: Path, table: str) -> set[tuple[int, int]]:
    return {(row.query_id, row.item_id) for row in rows(spark, path, table)}


@pytest.mark.parametrize("model", MODELS)
def test_candidates_are_unseen_and_ranked_from_one(spark: SparkSession, pipeline: Pipeline, model: str) -> None:
    split = pipeline.path("split")
    first, second = (pairs(spark, split, name) for name in ("first_level_train", "second_level_train"))
    for table, seen, asked in (
        ("train_candidates", first, {query for query, _ in second}),
        ("candidates", first | second, {query for query, _ in pairs(spark, split, "test")}),
    ):
        by_query = defaultdict(list)
        for row in rows(spark, pipeline.path(f"first_level_{model}"), table):
            by_query[row.query_id].append(row)
        assert set(by_query) == asked
        for found in by_query.values():
            found.sort(key=lambda row: row["rank"])
            assert [row["rank"] for row in found] == list(range(1, len(found) + 1))
            assert len(found) <= 100
            assert [row.item_id for row in found] == [
                row.item_id for row in sorted(found, key=lambda row: (-row.score, row.item_id))
            ]
            assert not seen & {(row.query_id, row.item_id) for row in found}


def test_recall_of_the_second_levels_positives_is_reported(spark: SparkSession, pipeline: Pipeline) -> None:
    second = pairs(spark, pipeline.path("split"), "second_level_train")
    for model in MODELS:
        results = pipeline.manifest(f"first_level_{model}")["results"]
        hits = len(second & pairs(spark, pipeline.path(f"first_level_{model}"), "train_candidates"))
        assert (results["second_level_positives"], results["second_level_positives_proposed"]) == (len(second), hits)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"class_path": "replay.models.NoSuchModel"}, "no model 'replay.models.NoSuchModel'"),
        ({"class_path": "nonsense"}, "no model"),
        ({"kwargs": {"ranks": 3}}, "does not take .*ranks"),
    ],
)
def test_models_that_replay_does_not_have_are_named(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        first_level.make_model({"class_path": "replay.models.PopRec", "kwargs": {}, **changed})


def test_the_union_keeps_every_proposal_with_its_scores(spark: SparkSession, pipeline: Pipeline) -> None:
    proposed: dict[tuple[int, int], dict[str, Any]] = defaultdict(dict)
    columns = {entry.label: entry.column for entry in StepContext(pipeline.document("combine")).inputs}
    for model in MODELS:
        column = columns[model]
        for row in rows(spark, pipeline.path(f"first_level_{model}"), "candidates"):
            proposed[row.query_id, row.item_id] |= {f"score_{column}": row.score, f"rank_{column}": row["rank"]}
    found = rows(spark, pipeline.path("combine"), "predict")
    assert len(found) == len(proposed)
    for row in found:
        expected = proposed[row.query_id, row.item_id]
        assert {name: row[name] for name in expected} == expected
        assert row.n_models == len(expected) // 2
        assert sum(row[f"rank_{columns[model]}"] is not None for model in MODELS) == row.n_models


def test_counts_are_those_that_the_models_saw(spark: SparkSession, pipeline: Pipeline) -> None:
    split = pipeline.path("split")
    first, second = (pairs(spark, split, name) for name in ("first_level_train", "second_level_train"))
    for table, seen in (("train", first), ("predict", first | second)):
        by_item: dict[int, int] = defaultdict(int)
        for _, item in seen:
            by_item[item] += 1
        assert all(row.item_count == by_item[row.item_id] for row in rows(spark, pipeline.path("combine"), table))


def test_labels_come_from_the_second_part_and_what_was_missed_is_counted(
    spark: SparkSession, pipeline: Pipeline
) -> None:
    second = pairs(spark, pipeline.path("split"), "second_level_train")
    candidates = set().union(*(pairs(spark, pipeline.path(f"first_level_{m}"), "train_candidates") for m in MODELS))
    train = rows(spark, pipeline.path("combine"), "train")
    assert {(row.query_id, row.item_id) for row in train if row.target} == second & candidates
    results = pipeline.manifest("combine")["results"]
    assert results["positives_outside_candidates"] == len(second - candidates)
    negatives: dict[int, int] = defaultdict(int)
    for row in train:
        negatives[row.query_id] += row.target == 0
    assert max(negatives.values()) <= 30
    assert {row.query_id for row in train} == {query for query, _ in second & candidates}


def test_negatives_are_chosen_by_their_keys(spark: SparkSession) -> None:
    labelled = spark.range(400).select(
        (F.col("id") % 4).cast("int").alias("query_id"),
        (F.col("id") / 4).cast("int").alias("item_id"),
        F.lit(0).alias("target"),
    )
    labelled = labelled.withColumn("target", ((F.col("item_id") < 3) & (F.col("query_id") > 0)).cast("int"))

    def chosen(partitions: int, seed: int = 1) -> set[tuple[int, int, int]]:
        sampled = combine.sample_negatives(labelled.repartition(partitions), 10, seed)
        return {tuple(row) for row in sampled.collect()}

    one = chosen(1)
    assert one == chosen(7)
    assert one != chosen(1, seed=2)
    assert {query for query, _, _ in one} == {1, 2, 3}
    assert len(one) == 3 * 13


def test_the_reranker_is_the_same_for_any_order_of_its_rows(spark: SparkSession, pipeline: Pipeline) -> None:
    parameters = pipeline.step("second_level_lightgbm").parameters
    train = spark.read.parquet(f"{pipeline.path('combine')}/train").toPandas()
    one = second_level.fit(train, parameters, cores=2)
    other = second_level.fit(train.sample(frac=1, random_state=3), parameters, cores=2)
    assert one.model_to_string() == other.model_to_string()
    assert (pipeline.path("second_level_lightgbm") / "model.txt").read_text() == one.model_to_string()


def test_recommendations_are_the_reranked_candidates(spark: SparkSession, pipeline: Pipeline) -> None:
    path = pipeline.path("second_level_lightgbm")
    found = rows(spark, path, "recommendations")
    assert {(row.query_id, row.item_id) for row in found} <= pairs(spark, pipeline.path("combine"), "predict")
    by_query = defaultdict(list)
    for row in found:
        by_query[row.query_id].append(row)
    for mine in by_query.values():
        assert sorted(row["rank"] for row in mine) == list(range(1, len(mine) + 1))
        assert len(mine) <= 100
    assert set(by_query) == {query for query, _ in pairs(spark, pipeline.path("split"), "test")}


def by_hand(recommended: dict[int, list[int]], truth: dict[int, set[int]], k: int) -> dict[str, float]:
    """The four metrics by their definitions, averaged over the queries of the truth."""
    sums: dict[str, float] = defaultdict(float)
    for query, relevant in truth.items():
        hits = [item in relevant for item in recommended.get(query, [])[:k]]
        ideal = sum(1 / math.log2(place + 2) for place in range(min(k, len(relevant))))
        sums["NDCG"] += sum(hit / math.log2(place + 2) for place, hit in enumerate(hits)) / ideal
        precisions = [sum(hits[: place + 1]) / (place + 1) for place, hit in enumerate(hits) if hit]
        sums["MAP"] += sum(precisions) / min(k, len(relevant))
        sums["HitRate"] += float(any(hits))
        sums["Recall"] += sum(hits) / len(relevant)
    return {f"{name}.{k}": total / len(truth) for name, total in sums.items()}


def test_metrics_are_those_of_the_definitions_on_spark_and_collected(spark: SparkSession) -> None:
    truth = {0: {1, 2, 3}, 1: {4}, 2: {5, 6}, 3: {1}}
    recommended = {0: [1, 9, 3, 8], 1: [7, 4], 3: [8, 9]}
    frame = spark.createDataFrame(
        [(query, item, 1.0 / (place + 1)) for query, items in recommended.items() for place, item in enumerate(items)],
        "query_id int, item_id int, score double",
    )
    wanted = spark.createDataFrame(
        [(query, item) for query, items in truth.items() for item in items], "query_id int, item_id int"
    )
    expected = by_hand(recommended, truth, 2) | by_hand(recommended, truth, 4)
    for rows_limit in (0, 100):
        found = evaluate.measure(frame, wanted, [2, 4], collect_rows=rows_limit)
        assert found == pytest.approx(expected, abs=1e-9)


def test_the_pipelines_metrics_are_those_of_the_definitions(spark: SparkSession, pipeline: Pipeline) -> None:
    truth: dict[int, set[int]] = defaultdict(set)
    for query, item in pairs(spark, pipeline.path("split"), "test"):
        truth[query].add(item)
    measured = json.loads((pipeline.path("evaluate") / "metrics.json").read_text())
    assert set(measured) == {"poprec", "itemknn", "lightgbm"}
    sources = {model: (f"first_level_{model}", "candidates") for model in MODELS}
    sources["lightgbm"] = ("second_level_lightgbm", "recommendations")
    for label, (step, table) in sources.items():
        ordered = sorted(rows(spark, pipeline.path(step), table), key=lambda row: row["rank"])
        recommended: dict[int, list[int]] = defaultdict(list)
        for row in ordered:
            recommended[row.query_id].append(row.item_id)
        expected = by_hand(recommended, truth, 10)
        assert {name: measured[label][name] for name in expected} == pytest.approx(expected, abs=1e-9)
        assert len(measured[label]) == 4 * 5


def mlflow_runs(pipeline: Pipeline) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=pipeline.deployment.tracking_uri)
    experiment = client.get_experiment_by_name("two_stage_sample_alice")
    return list(client.search_runs([experiment.experiment_id]))


def test_mlflow_has_one_run_per_model_below_the_experiments(pipeline: Pipeline) -> None:
    runs = mlflow_runs(pipeline)
    levels = sorted(run.data.tags["replayctl.level"] for run in runs)
    assert levels == ["experiment", "first", "first", "second"]
    parent = next(run for run in runs if run.data.tags["replayctl.level"] == "experiment")
    assert parent.info.run_id == pipeline.manifest("evaluate")["results"]["mlflow_run"]
    for run in runs:
        tags = run.data.tags
        assert run.info.status == "FINISHED"
        assert tags["replayctl.evaluation"] == pipeline.step("evaluate").identity
        assert json.loads(tags["replayctl.dataset_identity"])["name"] == "sample"
        assert tags["replayctl.release"] == "dags"
        if run is not parent:
            assert tags["mlflow.parentRunId"] == parent.info.run_id
            assert {f"NDCG.{k}" for k in (5, 10, 25, 50, 100)} <= set(run.data.metrics)
            assert float(tags["replayctl.seconds"]) > 0
    knn = next(run for run in runs if run.data.tags.get("replayctl.row") == "itemknn")
    assert knn.data.params["num_neighbours"] == "10"
    assert knn.info.run_name == "itemknn num_neighbours=10"
    assert parent.data.params["split.test_share"] == "0.2"
    assert parent.data.tags["replayctl.releases"] == "dags"
    assert knn.data.tags["replayctl.artifact"] == pipeline.step("first_level_itemknn").identity


def test_an_evaluation_that_is_repeated_leaves_no_doubles(pipeline: Pipeline) -> None:
    before = {run.info.run_id for run in mlflow_runs(pipeline)}
    runner.run(pipeline.document("evaluate", force=True))
    after = {run.info.run_id for run in mlflow_runs(pipeline)}
    assert len(after) == 4
    assert not before & after


def test_without_a_tracking_server_the_step_fails_and_leaves_nothing(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = pipeline.document("evaluate", tracking_uri=None, output=str(tmp_path / "evaluate"))
    with pytest.raises(ValueError, match="no tracking server"):
        runner.run(document)
    assert list(tmp_path.iterdir()) == []
