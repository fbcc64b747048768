"""Fits by RePlay on Spark; what each has learnt is extracted for the scorer.

`propose` is the scorer on Spark.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy.sparse import csr_matrix

from ...model_parameters import unknown_parameters
from ..context import StepError
from . import Factors, Ids, ItemScores, ItemSimilarities, Model, scorer
from .bounds import check_parameters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyspark.sql import DataFrame, SparkSession

# Blocks determine the order in which ALS sums, and so its factors; files and partitions must not.
ALS_BLOCKS = 4
_MAX_SLICES = 200
_CANDIDATES = "query_id int, item_id int, score double, rank int"


@dataclass(frozen=True, slots=True)
class ReplayModel:
    """A fitted RePlay model that has no small form: only its own `predict` can use it."""

    model: Any
    data: Any

    def propose(self, session: SparkSession, queries: Ids, top: int) -> DataFrame:
        """Candidates of the given queries."""
        from pyspark.sql import Window
        from pyspark.sql import functions as F

        frame = session.createDataFrame(pd.DataFrame({"query_id": queries}))
        proposed = self.model.predict(self.data, k=top, queries=frame, filter_seen_items=True)
        order = Window.partitionBy("query_id").orderBy(F.col("rating").desc(), F.col("item_id"))
        ranked = proposed.withColumn("rank", F.row_number().over(order)).where(F.col("rank") <= top)
        return ranked.select(
            F.col("query_id").cast("int").alias("query_id"),
            F.col("item_id").cast("int").alias("item_id"),
            F.col("rating").cast("double").alias("score"),
            "rank",
        )


def fit(
    class_path: str, kwargs: Mapping[str, Any], interactions: DataFrame, shape: tuple[int, int]
) -> Model | ReplayModel:
    """A model by RePlay's class path and keyword arguments; StepError if RePlay has no such class or argument."""
    model = make(class_path, kwargs)
    data = dataset(interactions.cache())
    model.fit(data)
    learnt_model = learnt(model, shape)
    return ReplayModel(model, data) if learnt_model is None else learnt_model


def make(class_path: str, kwargs: Mapping[str, Any]) -> Any:
    """A new RePlay model; StepError if RePlay has no such class or keyword argument, or for a value out of bounds."""
    check_parameters(class_path, kwargs)
    from pyspark.sql import SparkSession
    from replay.utils.session_handler import State

    # RePlay would otherwise create a session of its own, with 70 % of the machine's memory and a jar from the internet.
    State(SparkSession.builder.getOrCreate())
    module, _, name = class_path.rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise StepError(f"RePlay has no model {class_path!r}: {error}") from error
    if name == "ALSWrap":
        kwargs = {"num_item_blocks": ALS_BLOCKS, "num_query_blocks": ALS_BLOCKS, **kwargs}
    arguments = inspect.signature(kind).parameters
    takes_any = any(argument.kind is argument.VAR_KEYWORD for argument in arguments.values())
    if trouble := "" if takes_any else unknown_parameters(class_path, kwargs, tuple(arguments)):
        raise StepError(trouble)
    return kind(**kwargs)


def dataset(interactions: DataFrame) -> Any:
    """Interactions in the form that RePlay's models take."""
    from replay.data import Dataset, FeatureHint, FeatureInfo, FeatureSchema, FeatureType

    schema = FeatureSchema(
        [
            FeatureInfo("query_id", FeatureType.CATEGORICAL, FeatureHint.QUERY_ID),
            FeatureInfo("item_id", FeatureType.CATEGORICAL, FeatureHint.ITEM_ID),
            FeatureInfo("rating", FeatureType.NUMERICAL, FeatureHint.RATING),
            FeatureInfo("timestamp", FeatureType.NUMERICAL, FeatureHint.TIMESTAMP),
        ]
    )
    return Dataset(schema, interactions, categorical_encoded=False, check_consistency=False)


def learnt(model: Any, shape: tuple[int, int]) -> Model | None:
    """The small form of a fitted RePlay model; None for a kind that only its own `predict` can use."""
    from replay.models import ALSWrap
    from replay.models.base_neighbour_rec import NeighbourRec
    from replay.models.base_rec import NonPersonalizedRecommender

    if isinstance(model, ALSWrap):
        return Factors(_factors(model.model.userFactors, shape[0]), _factors(model.model.itemFactors, shape[1]))
    if isinstance(model, NeighbourRec):
        triples = _columns(model.similarity.select("item_idx_one", "item_idx_two", model.similarity_metric))
        return ItemSimilarities(csr_matrix((triples[2], (triples[0], triples[1])), shape=(shape[1], shape[1])))
    if isinstance(model, NonPersonalizedRecommender) and not model.sample:
        items, values = _columns(model.item_popularity.select("item_id", "rating"))
        scores = np.full(shape[1], -np.inf)
        scores[items] = values
        return ItemScores(scores)
    return None


def propose(session: SparkSession, model: Model, seen: csr_matrix, queries: Ids, top: int) -> DataFrame:
    """Candidates like those of `scorer.propose`, computed by Spark's workers, one block of queries at a time.

    The model and the histories are sent to each worker once: about five bytes per interaction.
    """
    blocks = scorer.blocks(queries)
    sent = session.sparkContext.broadcast((model, seen.astype(np.int8), blocks))

    def apply(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        model, seen, blocks = sent.value
        for batch in batches:
            for number in batch.column(0).to_pylist():
                yield from scorer.best(model, blocks[number], seen[blocks[number]], top).to_batches()

    slices = min(len(blocks), _MAX_SLICES) or 1
    return session.range(0, len(blocks), 1, slices).mapInArrow(apply, _CANDIDATES)


def _factors(frame: DataFrame, count: int) -> np.ndarray:
    ids, features = _columns(frame.select("id", "features"))
    vectors = np.stack(list(features)).astype(np.float32) if len(ids) else np.empty((0, 1), np.float32)
    factors = np.full((count, vectors.shape[1]), np.nan, np.float32)
    factors[ids] = vectors
    return factors


def _columns(frame: DataFrame) -> list[np.ndarray]:
    """The columns of a small data frame, collected."""
    pandas = frame.toPandas()
    return [pandas[name].to_numpy() for name in pandas.columns]
