"""The fits on Spark, by RePlay; what each has learnt is then taken out of it for the one scorer."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_matrix

from ..context import StepError
from . import Factors, ItemScores, ItemSimilarities, Model
from .scorer import BLOCK, CANDIDATES, best

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyspark.sql import DataFrame

# Blocks decide in which order ALS sums, and so its factors; files and partitions must not.
ALS_BLOCKS = 4
_CANDIDATES = "query_id int, item_id int, score double, rank int"


def make(class_path: str, kwargs: Mapping[str, Any]) -> Any:
    """A fresh model of RePlay; StepError when RePlay has no such class or keyword argument."""
    from pyspark.sql import SparkSession
    from replay.utils.session_handler import State

    # RePlay would otherwise build a session of its own, with 70 % of the machine's memory and a jar from the internet.
    State(SparkSession.builder.getOrCreate())
    module, _, name = class_path.rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise StepError(f"RePlay has no model {class_path!r}: {error}") from error
    if name == "ALSWrap":
        kwargs = {"num_item_blocks": ALS_BLOCKS, "num_query_blocks": ALS_BLOCKS, **kwargs}
    try:
        return kind(**kwargs)
    except TypeError as error:
        raise StepError(f"{class_path} does not take {dict(kwargs)}: {error}") from error


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
    """What a fitted model of RePlay has learnt; None for a kind that only its own `predict` can use."""
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


def propose(model: Model, interactions: DataFrame, queries: DataFrame, items: int, top: int) -> DataFrame:
    """Candidates of the given queries: the model is sent to the workers, blocks of histories go through it."""
    from pyspark.sql import functions as F

    broadcast = interactions.sparkSession.sparkContext.broadcast(model)
    histories = queries.join(interactions.select("query_id", "item_id"), "query_id", "left")
    one = histories.groupBy("query_id").agg(F.sort_array(F.collect_list("item_id")).alias("items"))
    blocks = one.groupBy((F.col("query_id") / BLOCK).cast("int").alias("block")).agg(
        F.sort_array(F.collect_list(F.struct("query_id", "items"))).alias("histories")
    )

    def apply(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for block in batch.column(1):
                if len(block.values):
                    yield from _block(broadcast.value, block.values, items, top).to_batches()

    return blocks.mapInArrow(apply, _CANDIDATES)


def _block(model: Model, histories: pa.StructArray, items: int, top: int) -> pa.Table:
    queries = histories.field("query_id").to_numpy(zero_copy_only=False).astype(np.int32)
    lists = histories.field("items")
    lengths = lists.value_lengths().to_numpy(zero_copy_only=False)
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    indices = lists.flatten().to_numpy(zero_copy_only=False)
    seen = csr_matrix((np.ones(len(indices)), indices, indptr), shape=(len(queries), items))
    return best(model, queries, seen, top).cast(CANDIDATES)


def propose_by_replay(model: Any, data: Any, queries: DataFrame, top: int) -> DataFrame:
    """Candidates by the model's own `predict`, for kinds whose knowledge is not small."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    proposed = model.predict(data, k=top, queries=queries, filter_seen_items=True)
    order = Window.partitionBy("query_id").orderBy(F.col("rating").desc(), F.col("item_id"))
    ranked = proposed.withColumn("rank", F.row_number().over(order)).where(F.col("rank") <= top)
    return ranked.select(
        F.col("query_id").cast("int").alias("query_id"),
        F.col("item_id").cast("int").alias("item_id"),
        F.col("rating").cast("double").alias("score"),
        "rank",
    )


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
