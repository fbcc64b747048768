"""Fits on the embedded engine: each model, in its own environment, the same for any number of threads."""

from collections.abc import Mapping

import numpy as np
import pytest

from dags.dag_entities import EMBEDDED_MODELS, FIRST_LEVEL_MODELS, FirstLevelModel
from dags.workloads.context import StepError
from dags.workloads.models import fits, scorer
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


@pytest.mark.parametrize("kwargs", [{"beta": -1.0}, {"lambda_": 0.0}])
def test_slim_refuses_what_replay_refuses(interactions: fits.Interactions, kwargs: dict[str, float]) -> None:
    with pytest.raises(StepError, match="SLIM requires"):
        fits.fit("replay.models.SLIM", kwargs, interactions, Threads(1))
