"""Candidates, features, reranking and metrics on a sample of the real data."""

import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dags.artifacts import Artifact
from dags.workloads import runner, second_level, tables
from dags.workloads.context import StepContext, StepError
from dags.workloads.metrics import measure
from dags.workloads.models import ItemScores, fits
from tests.mlflow_servers import Mlflow

from .conftest import Pipeline, pairs, rows

MODELS = ("poprec", "itemknn")


@pytest.mark.parametrize("model", MODELS)
def test_candidates_are_unseen_and_ranked_from_one(pipeline: Pipeline, model: str) -> None:
    split = pipeline.path("split")
    first, second = (pairs(split, name) for name in ("first_level_train", "second_level_train"))
    for table, seen, queries in (
        ("train_candidates", first, {query for query, _ in second}),
        ("candidates", first | second, {query for query, _ in pairs(split, "test")}),
    ):
        by_query = defaultdict(list)
        for row in rows(pipeline.path(f"first_level_{model}"), table):
            by_query[row["query_id"]].append(row)
        assert set(by_query) == queries
        for items in by_query.values():
            items.sort(key=lambda row: row["rank"])
            assert [row["rank"] for row in items] == list(range(1, len(items) + 1))
            assert len(items) <= 100
            assert [row["item_id"] for row in items] == [
                row["item_id"] for row in sorted(items, key=lambda row: (-row["score"], row["item_id"]))
            ]
            assert not seen & {(row["query_id"], row["item_id"]) for row in items}


def test_recall_of_the_second_levels_positives_is_reported(pipeline: Pipeline) -> None:
    second = pairs(pipeline.path("split"), "second_level_train")
    for model in MODELS:
        results = pipeline.manifest(f"first_level_{model}")["results"]
        hits = len(second & pairs(pipeline.path(f"first_level_{model}"), "train_candidates"))
        assert (results["second_level_positives"], results["second_level_positives_proposed"]) == (len(second), hits)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"class_path": "replay.models.NoSuchModel"}, r"no model 'replay.models.NoSuchModel' .*--engine spark"),
        (
            {"kwargs": {"use_ratings": 1}},
            r"PopRec has no parameter 'use_ratings' \(did you mean use_rating\?\); known: use",
        ),
    ],
)
def test_models_that_the_engine_does_not_have_are_named(
    pipeline: Pipeline, tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    document = pipeline.document("first_level_poprec", output=str(tmp_path / "made"))
    document["parameters"] = {**document["parameters"], **changed}
    with pytest.raises(StepError, match=message):
        runner.run(document)
    assert list(tmp_path.iterdir()) == []


def test_the_union_keeps_every_proposal_with_its_scores(pipeline: Pipeline, tmp_path: Path) -> None:
    proposed: dict[tuple[int, int], dict[str, Any]] = defaultdict(dict)
    columns = {entry.label: entry.column for entry in StepContext(pipeline.document("combine"), tmp_path).inputs}
    for model in MODELS:
        column = columns[model]
        for row in rows(pipeline.path(f"first_level_{model}"), "candidates"):
            proposed[row["query_id"], row["item_id"]] |= {
                f"score_{column}": row["score"],
                f"rank_{column}": row["rank"],
            }
    union = rows(pipeline.path("combine"), "predict")
    assert len(union) == len(proposed)
    for row in union:
        expected = proposed[row["query_id"], row["item_id"]]
        assert {name: row[name] for name in expected} == expected
        assert row["n_models"] == len(expected) // 2
        assert sum(row[f"rank_{columns[model]}"] is not None for model in MODELS) == row["n_models"]


def test_counts_are_those_that_the_models_saw(pipeline: Pipeline) -> None:
    split = pipeline.path("split")
    first, second = (pairs(split, name) for name in ("first_level_train", "second_level_train"))
    for table, seen in (("train", first), ("predict", first | second)):
        by_item: dict[int, int] = defaultdict(int)
        for _, item in seen:
            by_item[item] += 1
        assert all(row["item_count"] == by_item[row["item_id"]] for row in rows(pipeline.path("combine"), table))


def test_a_model_that_proposes_nothing_is_a_warning(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    def fit_nothing(interactions: fits.Interactions, workers: object, *, num_neighbours: int) -> ItemScores:
        return ItemScores(np.full(interactions.shape[1], -np.inf))

    monkeypatch.setitem(fits.FITS, "replay.models.ItemKNN", fit_nothing)
    other = Pipeline(pipeline.root, itemknn={"num_neighbours": 21})
    other.run("first_level_itemknn")
    train, test = other.manifest("first_level_itemknn")["warnings"]
    assert "proposes nothing to any of the 120 queries of the test part: check its parameters" in test
    assert "queries of the second_level_train part" in train
    assert pipeline.manifest("first_level_itemknn")["warnings"] == []


def test_labels_come_from_the_second_part_and_what_was_missed_is_counted(pipeline: Pipeline) -> None:
    second = pairs(pipeline.path("split"), "second_level_train")
    candidates = set().union(*(pairs(pipeline.path(f"first_level_{m}"), "train_candidates") for m in MODELS))
    train = rows(pipeline.path("combine"), "train")
    assert {(row["query_id"], row["item_id"]) for row in train if row["target"]} == second & candidates
    results = pipeline.manifest("combine")["results"]
    assert results["positives_outside_candidates"] == len(second - candidates)
    negatives: dict[int, int] = defaultdict(int)
    for row in train:
        negatives[row["query_id"]] += row["target"] == 0
    assert max(negatives.values()) <= 30
    assert {row["query_id"] for row in train} == {query for query, _ in second & candidates}


def test_the_reranker_is_the_same_for_any_order_of_its_rows_and_number_of_threads(pipeline: Pipeline) -> None:
    parameters = pipeline.step("second_level_lightgbm").parameters
    train = tables.read(Artifact(str(pipeline.path("combine"))), "train")
    one = second_level.text_of(second_level.fit(train, parameters, threads=2))
    shuffled = train.take(pa.array(sorted(range(train.num_rows), key=lambda place: place * 7919 % train.num_rows)))
    assert one == second_level.text_of(second_level.fit(shuffled, parameters, threads=2))
    for threads in (1, 3, 5):
        assert one == second_level.text_of(second_level.fit(train, parameters, threads=threads))
    assert (pipeline.path("second_level_lightgbm") / "model.txt").read_text() == one


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_boost_round": 0}, "parameter num_boost_round of lightgbm must be a whole number of at least 1, not 0"),
        ({"learning_rate": -1}, "LightGBM failed with the parameters of this step: .*learning_rate"),
        ({"objective": "luck"}, "LightGBM failed with the parameters of this step: .*luck"),
    ],
)
def test_parameters_that_the_reranker_cannot_have_are_named(
    pipeline: Pipeline, change: dict[str, object], message: str
) -> None:
    train = tables.read(Artifact(str(pipeline.path("combine"))), "train")
    with pytest.raises(StepError, match=message):
        second_level.fit(train, {**pipeline.step("second_level_lightgbm").parameters, **change}, threads=2)


def test_recommendations_are_the_reranked_candidates(pipeline: Pipeline) -> None:
    path = pipeline.path("second_level_lightgbm")
    recommendations = rows(path, "recommendations")
    assert {(row["query_id"], row["item_id"]) for row in recommendations} <= pairs(pipeline.path("combine"), "predict")
    by_query = defaultdict(list)
    for row in recommendations:
        by_query[row["query_id"]].append(row)
    for mine in by_query.values():
        assert sorted(row["rank"] for row in mine) == list(range(1, len(mine) + 1))
        assert len(mine) <= 100
    assert set(by_query) == {query for query, _ in pairs(pipeline.path("split"), "test")}


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


def test_metrics_are_those_of_the_definitions() -> None:
    import numpy as np

    truth = {0: {1, 2, 3}, 1: {4}, 2: {5, 6}, 3: {1}}
    recommended = {0: [1, 9, 3, 8], 1: [7, 4], 3: [8, 9], 9: [1]}
    rows = [(query, item, place + 1) for query, items in recommended.items() for place, item in enumerate(items)]
    columns = [np.array(column) for column in zip(*reversed(rows), strict=True)]
    pairs = [np.array(column) for column in zip(*((q, i) for q, items in truth.items() for i in items), strict=True)]
    expected = by_hand(recommended, truth, 2) | by_hand(recommended, truth, 4)
    assert measure(tuple(columns), tuple(pairs), [2, 4]) == pytest.approx(expected, abs=1e-12)


def test_the_pipelines_metrics_are_those_of_the_definitions(pipeline: Pipeline) -> None:
    truth: dict[int, set[int]] = defaultdict(set)
    for query, item in pairs(pipeline.path("split"), "test"):
        truth[query].add(item)
    measured = json.loads((pipeline.path("evaluate") / "metrics.json").read_text())
    assert set(measured) == {"poprec", "itemknn", "lightgbm"}
    sources = {model: (f"first_level_{model}", "candidates") for model in MODELS}
    sources["lightgbm"] = ("second_level_lightgbm", "recommendations")
    for label, (step, table) in sources.items():
        ordered = sorted(rows(pipeline.path(step), table), key=lambda row: row["rank"])
        recommended: dict[int, list[int]] = defaultdict(list)
        for row in ordered:
            recommended[row["query_id"]].append(row["item_id"])
        expected = by_hand(recommended, truth, 10)
        assert {name: measured[label][name] for name in expected} == pytest.approx(expected, abs=1e-9)
        assert len(measured[label]) == 4 * 5


def test_mlflow_has_one_run_per_model_below_the_experiments(pipeline: Pipeline, mlflow: Mlflow) -> None:
    runs = mlflow.runs("two_stage_sample_alice")
    assert sorted(run["tags"]["replayctl.level"] for run in runs) == ["experiment", "first", "first", "second"]
    parent = next(run for run in runs if run["tags"]["replayctl.level"] == "experiment")
    for run in runs:
        tags = run["tags"]
        assert run["status"] == "FINISHED"
        assert tags["replayctl.evaluation"] == pipeline.step("evaluate").identity
        assert json.loads(tags["replayctl.dataset_identity"])["name"] == "sample"
        assert tags["replayctl.release"] == "dags"
        if run is not parent:
            assert tags["mlflow.parentRunId"] == parent["id"]
            assert tags["replayctl.engine"] == "embedded"
            assert {f"NDCG.{k}" for k in (5, 10, 25, 50, 100)} <= set(run["metrics"])
            assert float(tags["replayctl.seconds"]) > 0
    knn = next(run for run in runs if run["tags"].get("replayctl.row") == "itemknn")
    assert knn["params"]["num_neighbours"] == "10"
    assert knn["name"] == "itemknn num_neighbours=10"
    assert parent["params"]["dataset"] == "sample"
    data = ("split.test_share", "positive_threshold", "columns.rating", "dataset.version", "dataset.checksum")
    assert [parent["params"][name] for name in data] == ["0.2", "3.0", "rating", "1998-04", "null"]
    assert parent["tags"]["replayctl.releases"] == "dags"
    assert knn["tags"]["replayctl.artifact"] == pipeline.step("first_level_itemknn").identity
