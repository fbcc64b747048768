"""First level: one model proposes candidates, for the second level's training and for the test queries."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..artifacts import Artifact
from . import tables
from .context import StepContext, log
from .models import Ids, fits, scorer
from .models.workers import SparkWorkers, Threads

if TYPE_CHECKING:
    from .engines.spark import SparkEngine


@dataclass(frozen=True, slots=True)
class _Round:
    """The tables, each with the parts that its model is fitted on, and the part whose queries it is for."""

    name: str
    table: str
    fitted_on: tuple[str, ...]
    query_part: str


_ROUNDS = (
    _Round("train", "train_candidates", ("first_level_train",), "second_level_train"),
    _Round("refit", "candidates", ("first_level_train", "second_level_train"), "test"),
)
_FITTED_ON = ("query_id", "item_id", "rating", "timestamp")


def run(context: StepContext, output: Artifact) -> dict[str, Any]:
    """Writes train_candidates (model fitted on A, unseen there) and candidates (refitted on A and B, unseen there).

    Both have query_id, item_id, score, rank (from 1). Returns counts, seconds, and the share of B's rows among the
    train candidates; warns of a model that proposes nothing. Raises StepError for a class or keyword arguments that the
    engine does not have, or whose values are out of bounds.
    """
    split = context.input("split")
    results = split.artifact.manifest()["results"]
    assert isinstance(results, dict)
    shape = (int(results["queries"]), int(results["items"]))
    seconds: dict[str, float] = {}
    warnings: list[str] = []
    propose = _propose_on_spark if context.document["engine"] == "spark" else _propose_embedded
    for turn in _ROUNDS:
        rows = pa.concat_tables([tables.read(split.artifact, part, _FITTED_ON) for part in turn.fitted_on])
        interactions = fits.Interactions(*(rows.column(key).to_numpy() for key in _FITTED_ON), shape)
        queries = pc.unique(tables.read(split.artifact, turn.query_part, ["query_id"]).column("query_id")).to_numpy()
        fit_s, predict_s = propose(context, turn, interactions, np.sort(queries), output)
        seconds |= {f"{turn.name}_fit": fit_s, f"{turn.name}_predict": predict_s}
        count = tables.rows(output, turn.table)
        log.info("%s: %s rows, %s", turn.table, count, seconds)
        if len(queries) and not count:
            warnings.append(
                f"the model proposes nothing to any of the {len(queries)} queries of the {turn.query_part} part: check "
                "its parameters"
            )
    positives = tables.rows(split.artifact, "second_level_train")
    proposed = _pairs_in_common(output, split.artifact, shape[1])
    return {
        "train_candidates": tables.rows(output, "train_candidates"),
        "candidates": tables.rows(output, "candidates"),
        "second_level_positives": positives,
        "second_level_positives_proposed": proposed,
        "second_level_recall": round(proposed / positives, 6) if positives else 0.0,
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "warnings": warnings,
    }


def _propose_embedded(
    context: StepContext, turn: _Round, interactions: fits.Interactions, queries: Ids, output: Artifact
) -> tuple[float, float]:
    """Writes the candidates; returns the seconds of the fit and of the prediction."""
    parameters, started = context.parameters, time.monotonic()
    model = fits.fit(parameters["class_path"], parameters["kwargs"], interactions, Threads(context.cores))
    fitted = time.monotonic()
    top = int(parameters["candidates"])
    proposed = scorer.propose(model, interactions.seen(), queries, top, threads=context.cores)
    tables.write(output, turn.table, scorer.CANDIDATES, proposed)
    return fitted - started, time.monotonic() - fitted


def _propose_on_spark(
    context: StepContext, turn: _Round, interactions: fits.Interactions, queries: Ids, output: Artifact
) -> tuple[float, float]:
    """The same as `_propose_embedded` in Spark's workers; models that must be fitted on Spark are RePlay's."""
    from .models import replay_fits

    engine: SparkEngine = context.engine  # type: ignore[assignment]
    engine.session.sparkContext.setJobDescription(f"{context.document['step']}: {turn.name}")
    parameters, started = context.parameters, time.monotonic()
    class_path, kwargs, top = parameters["class_path"], parameters["kwargs"], int(parameters["candidates"])
    if class_path in fits.ON_ANY_WORKERS:
        model = fits.fit(class_path, kwargs, interactions, SparkWorkers(engine.session, context.cores))
    else:
        rows = engine.frames(context.input("split").artifact, turn.fitted_on)
        model = replay_fits.fit(class_path, kwargs, rows, interactions.shape)
    fitted = time.monotonic()
    if isinstance(model, replay_fits.ReplayModel):
        candidates = model.propose(engine.session, queries, top)
    else:
        candidates = replay_fits.propose(engine.session, model, interactions.seen(), queries, top)
    engine.write_frame(candidates, output, turn.table)
    return fitted - started, time.monotonic() - fitted


def _pairs_in_common(output: Artifact, split: Artifact, items: int) -> int:
    """The number of rows of the second level's part among the train candidates."""

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
