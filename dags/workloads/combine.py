"""Combine: the union of all models' candidates as rows for the second level, with features and labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import ibis
import pyarrow.compute as pc

from ..artifacts import Artifact
from . import tables
from .context import StepContext, StepError

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from .engines import Engine

_PAIR = ("query_id", "item_id")


def run(context: StepContext, output: Artifact) -> dict[str, Any]:
    """Writes train (with target) and predict: pairs with score_<column>, rank_<column>, n_models and counts.

    <column> is each model's `Input.column`.

    If a model did not propose a pair, its score and rank are null. Positives that no model proposed are not added, but
    counted. Queries without a positive among their candidates cannot be learnt from and are not in train.
    """
    if context.parameters["mode"] != "union":
        raise StepError(f"unknown mode {context.parameters['mode']!r}; known: union")
    # If two names stand for the same artifact, one is enough.
    models = {entry.column: entry.artifact for entry in context.inputs if entry.workload == "first_level"}
    if not models:
        raise StepError("there are no first-level models to combine")
    engine = context.engine
    split = context.input("split").artifact
    first, second = (engine.table(split, name) for name in ("first_level_train", "second_level_train"))

    def union(table: str) -> ir.Table:
        return union_of_candidates({column: engine.table(artifact, table) for column, artifact in models.items()})

    labelled = engine.keep(with_labels(union("train_candidates"), second))
    train = sample_negatives(labelled, int(context.parameters["negatives_per_query"]), int(context.parameters["seed"]))
    engine.write(with_counts(train, first), output, "train")
    both = first.select(*_PAIR).union(second.select(*_PAIR))
    engine.write(with_counts(union("candidates"), both), output, "predict")
    results = _counts(engine, labelled, output)
    positives = tables.rows(split, "second_level_train")
    missed = positives - results.pop("positives_proposed")
    return {
        "positives": positives,
        "positives_outside_candidates": missed,
        "positives_outside_candidates_share": round(missed / positives, 6) if positives else 0.0,
        **results,
        "predict_rows": tables.rows(output, "predict"),
    }


def union_of_candidates(candidates: Mapping[str, ir.Table]) -> ir.Table:
    """One row per pair that any model proposed: its score and rank by each model (null where not), and n_models."""
    together = ibis.union(*(table.mutate(model=ibis.literal(column)) for column, table in candidates.items()))
    columns = {}
    for column in candidates:
        for value in ("score", "rank"):
            columns[f"{value}_{column}"] = together[value].max(where=together.model == column)
    return together.group_by(_PAIR).agg(**columns, n_models=together.count().cast("int32"))


def with_labels(pairs: ir.Table, positives: ir.Table) -> ir.Table:
    """Adds target: 1 where the pair is among the positives, else 0."""
    labels = positives.select(*_PAIR).mutate(target=ibis.literal(1, "int32"))
    joined = pairs.left_join(labels, list(_PAIR)).drop("query_id_right", "item_id_right")
    return joined.mutate(target=joined.target.fill_null(ibis.literal(0, "int32")))


def with_counts(pairs: ir.Table, interactions: ir.Table) -> ir.Table:
    """Adds query_count and item_count: the interactions of each in the rows that the candidates' models saw."""
    for key, name in zip(_PAIR, ("query_count", "item_count"), strict=True):
        counted = interactions.group_by(key).agg(**{name: interactions.count().cast("int32")})
        joined = pairs.left_join(counted, key).drop(f"{key}_right")
        pairs = joined.mutate(**{name: joined[name].fill_null(ibis.literal(0, "int32"))})
    return pairs


def sample_negatives(labelled: ir.Table, per_query: int, seed: int) -> ir.Table:
    """All positives, and at most `per_query` negatives of each query that has positives: those with the smallest hash.

    The hash is SHA-256 over seed, query and item.
    """
    text = ibis.literal(f"{seed}:") + labelled.query_id.cast("string") + ":" + labelled.item_id.cast("string")
    hashed = labelled.mutate(shuffled=text.hexdigest("sha256"))
    marked = hashed.mutate(
        place=ibis.row_number().over(
            ibis.window(group_by=[hashed.query_id, hashed.target], order_by=[hashed.shuffled, hashed.item_id])
        ),
        positives=hashed.target.sum().over(ibis.window(group_by=hashed.query_id)),
    )
    kept = (marked.positives > 0) & ((marked.target == 1) | (marked.place < per_query))
    return marked.filter(kept).drop("place", "positives", "shuffled")


def _counts(engine: Engine, labelled: ir.Table, output: Artifact) -> dict[str, int]:
    (every,) = engine.values(
        labelled.agg(rows=labelled.count(), positives=labelled.target.sum(), queries=labelled.query_id.nunique())
    )
    train = tables.read(output, "train", ["query_id", "target"])
    queries = int(pc.count_distinct(train.column("query_id")).as_py())
    return {
        "candidates": int(str(every["rows"])),
        "positives_proposed": int(str(every["positives"] or 0)),
        "train_rows": train.num_rows,
        "train_positives": int(pc.sum(train.column("target")).as_py() or 0),
        "train_queries": queries,
        "queries_without_positives": int(str(every["queries"])) - queries,
    }
