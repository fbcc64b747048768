"""Fits on the embedded engine: each model, in its own environment, the same for any number of threads."""

import inspect
from collections.abc import Mapping

import numpy as np
import pytest

from dags.dag_entities import EMBEDDED_MODELS, FIRST_LEVEL_MODELS, FirstLevelModel
from dags.model_parameters import MODEL_PARAMETERS
from dags.workloads.context import StepError
from dags.workloads.models import fits, scorer
from dags.workloads.models.bounds import check_parameters
from dags.workloads.models.workers import Threads

SHAPE = (60, 150)
MODELS = [model for model in FIRST_LEVEL_MODELS.values() if model.class_path in EMBEDDED_MODELS]


@pytest.fixture(scope="module")
def interactions() -> fits.Interactions:
    chance = np.random.default_rng(3)
    pairs = np.unique(chance.integers(0, (50, 140), (1200, 2)), axis=0).astype(np.int32)
    return fits.Interactions(pairs[:, 0], pairs[:, 1], np.ones(len(pairs)), np.arange(len(pairs)), SHAPE)


def proposed(model: FirstLevelModel, interactions: fits.Interactions, threads: int) -> list[tuple]:
    kwargs: Mapping = {**model.parameters, **({"rank": 8} if "rank" in model.parameters else {})}
    fitted = fits.fit(model.class_path, kwargs, interactions, Threads(threads))
    queries = np.arange(SHAPE[0], dtype=np.int32)
    tables = scorer.propose(fitted, interactions.seen(), queries, 10, threads=threads)
    return [tuple(row.values()) for table in tables for row in table.to_pylist()]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.class_path)
def test_a_model_proposes_unseen_items_whatever_the_threads(
    interactions: fits.Interactions, model: FirstLevelModel
) -> None:
    rows = proposed(model, interactions, 1)
    assert len({query for query, *_ in rows}) >= 50
    seen = set(zip(interactions.query.tolist(), interactions.item.tolist(), strict=True))
    assert not seen & {(query, item) for query, item, *_ in rows}
    again = proposed(model, interactions, 3)
    assert [row[:2] for row in again] == [row[:2] for row in rows]
    np.testing.assert_allclose([row[2] for row in again], [row[2] for row in rows], atol=1e-6)


@pytest.mark.parametrize("name", ["word2vec", "ucb"])
def test_models_of_spark_alone_are_refused_with_the_way_to_run_them(interactions: fits.Interactions, name: str) -> None:
    model = FIRST_LEVEL_MODELS[name]
    assert model.engines == ("spark",)
    with pytest.raises(StepError, match=r"has no model 'replay.models.*--engine spark"):
        fits.fit(model.class_path, model.parameters, interactions, Threads(1))


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        (
            "ItemKNN",
            {"num_neighbours": 0},
            "num_neighbours of replay.models.ItemKNN must be a whole number of at least 1",
        ),
        ("ItemKNN", {"num_neighbours": 9.5}, "num_neighbours of .* must be a whole number of at least 1, not 9.5"),
        ("ItemKNN", {"shrink": -1}, "shrink of .* must be a number of at least 0, not -1"),
        ("ItemKNN", {"weighting": "bm26"}, "weighting of .* must be tf_idf, bm25 or None, not 'bm26'"),
        ("ItemKNN", {"use_rating": "yes"}, "use_rating of .* must be True or False, not 'yes'"),
        ("PopRec", {"use_rating": 1}, "use_rating of .* must be True or False, not 1"),
        ("ALSWrap", {"rank": -4}, "rank of replay.models.ALSWrap must be a whole number of at least 1, not -4"),
        ("ALSWrap", {"rank": True}, "rank of .* must be a whole number of at least 1, not True"),
        ("ALSWrap", {"rank": "32"}, "rank of .* must be a whole number of at least 1, not '32'"),
        ("ALSWrap", {"seed": -1}, "seed of .* must be a whole number from 0 to 4294967295 or None, not -1"),
        ("SLIM", {"beta": -1.0}, "beta of .* must be a number of at least 0, not -1.0"),
        ("SLIM", {"lambda_": 0.0}, "lambda_ of .* must be a number greater than 0, not 0.0"),
        ("SLIM", {"lambda_": float("nan")}, "lambda_ of .* must be a number greater than 0, not nan"),
    ],
)
def test_a_value_out_of_bounds_is_named_with_its_bounds(
    interactions: fits.Interactions, name: str, kwargs: dict[str, object], message: str
) -> None:
    with pytest.raises(StepError, match=f"^parameter {message}"):
        fits.fit(f"replay.models.{name}", kwargs, interactions, Threads(1))


@pytest.mark.parametrize("model", FIRST_LEVEL_MODELS.values(), ids=lambda model: model.class_path)
def test_the_shipped_values_are_within_the_bounds(model: FirstLevelModel) -> None:
    check_parameters(model.class_path, model.parameters)
    with pytest.raises(StepError, match="^parameter "):
        check_parameters(model.class_path, {name: -1.5 for name in (*model.parameters, "use_rating")})


def test_a_dag_may_set_what_a_model_of_either_engine_has() -> None:
    """ALS on Spark has two parameters more: its blocks."""
    known = {path: set(names) for path, names in MODEL_PARAMETERS.items()}
    known["replay.models.ALSWrap"] -= {"num_item_blocks", "num_query_blocks"}
    assert known == {
        path: {
            argument.name
            for argument in inspect.signature(compute).parameters.values()
            if argument.kind is inspect.Parameter.KEYWORD_ONLY
        }
        for path, compute in fits.FITS.items()
    }
