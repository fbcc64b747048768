"""First level: one model proposes candidates, for the second level's training and for the test queries."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..artifacts import Artifact
from . import tables
from .context import StepContext, log

if TYPE_CHECKING:
    from .engines.spark import SparkEngine

# Which table is written by a model fitted on which parts, for the queries of which part.
_ROUNDS = (
    ("train", "train_candidates", ("first_level_train",), "second_level_train"),
    ("refit", "candidates", ("first_level_train", "second_level_train"), "test"),
)


def run(context: StepContext, output: Artifact) -> dict[str, Any]:
    """Writes train_candidates (model fitted on A, unseen there) and candidates (refitted on A and B, unseen there).

    Both are query_id, item_id, score, rank (from 1). Returns counts, seconds, and the share of B's rows that the
    train candidates hold. Raises StepError for a class or keyword arguments that the engine does not have.
    """
    split = context.input("split")
    results = split.artifact.manifest()["results"]
    assert isinstance(results, dict)
    shape = (int(results["queries"]), int(results["items"]))
    seconds: dict[str, float] = {}
    for name, table, fitted_on, query_part in _ROUNDS:
        propose = _propose_on_spark if context.document["engine"] == "spark" else _propose_embedded
        propose(context, split.artifact, fitted_on, query_part, shape, (output, table), (name, seconds))
        log.info("%s: %s rows, %s", table, tables.rows(output, table), seconds)
    positives = tables.rows(split.artifact, "second_level_train")
    proposed = _pairs_in_common(output, split.artifact, shape[1])
    return {
        "train_candidates": tables.rows(output, "train_candidates"),
        "candidates": tables.rows(output, "candidates"),
        "second_level_positives": positives,
        "second_level_positives_proposed": proposed,
        "second_level_recall": round(proposed / positives, 6) if positives else 0.0,
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
    }


def _propose_embedded(
    context: StepContext,
    split: Artifact,
    fitted_on: tuple[str, ...],
    query_part: str,
    shape: tuple[int, int],
    target: tuple[Artifact, str],
    timing: tuple[str, dict[str, float]],
) -> None:
    from .models import fits, scorer

    name, seconds = timing
    rows = pa.concat_tables([tables.read(split, part) for part in fitted_on])
    columns = {key: rows.column(key).to_numpy() for key in ("query_id", "item_id", "rating", "timestamp")}
    interactions = fits.Interactions(*columns.values(), shape)
    queries = np.sort(pc.unique(tables.read(split, query_part, ["query_id"]).column("query_id")).to_numpy())
    started = time.monotonic()
    parameters = context.parameters
    model = fits.fit(parameters["class_path"], parameters["kwargs"], interactions, threads=context.cores)
    seconds[f"{name}_fit"] = time.monotonic() - started
    started = time.monotonic()
    proposed = scorer.propose(model, interactions.seen(), queries, int(parameters["candidates"]), threads=context.cores)
    tables.write(*target, scorer.CANDIDATES, proposed)
    seconds[f"{name}_predict"] = time.monotonic() - started


def _propose_on_spark(
    context: StepContext,
    split: Artifact,
    fitted_on: tuple[str, ...],
    query_part: str,
    shape: tuple[int, int],
    target: tuple[Artifact, str],
    timing: tuple[str, dict[str, float]],
) -> None:
    from .models import replay_fits

    name, seconds = timing
    engine: SparkEngine = context.engine  # type: ignore[assignment]
    engine.session.sparkContext.setJobDescription(f"{context.document['step']}: {name}")
    interactions = engine.frames(split, fitted_on).cache()
    queries = engine.frame(split, query_part).select("query_id").distinct()
    top = int(context.parameters["candidates"])
    started = time.monotonic()
    model = replay_fits.make(context.parameters["class_path"], context.parameters["kwargs"])
    data = replay_fits.dataset(interactions)
    model.fit(data)
    learnt = replay_fits.learnt(model, shape)
    seconds[f"{name}_fit"] = time.monotonic() - started
    started = time.monotonic()
    if learnt is None:
        candidates = replay_fits.propose_by_replay(model, data, queries, top)
    else:
        candidates = replay_fits.propose(learnt, interactions, queries, shape[1], top)
    engine.write_frame(candidates, *target)
    seconds[f"{name}_predict"] = time.monotonic() - started
    interactions.unpersist()


def _pairs_in_common(output: Artifact, split: Artifact, items: int) -> int:
    """How many rows of the second level's part are among the train candidates."""

    def keys(artifact: Artifact, table: str) -> list[np.ndarray]:
        return [
            batch.column(0).to_numpy().astype(np.int64) * items + batch.column(1).to_numpy()
            for batch in tables.batches(artifact, table, ["query_id", "item_id"])
        ]

    positives = np.sort(np.concatenate([np.empty(0, np.int64), *keys(split, "second_level_train")]))
    if not len(positives):
        return 0
    common = 0
    for block in keys(output, "train_candidates"):
        places = np.minimum(np.searchsorted(positives, block), len(positives) - 1)
        common += int((positives[places] == block).sum())
    return common
