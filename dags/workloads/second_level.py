"""Second level: LightGBM learns from the combined candidates and reranks those of the test queries."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..artifacts import Artifact
from . import tables
from .context import StepContext, StepError
from .models.bounds import check_parameters

if TYPE_CHECKING:
    import lightgbm

MODEL_FILE = "model.txt"
RECOMMENDATIONS = pa.schema(
    [("query_id", pa.int32()), ("item_id", pa.int32()), ("score", pa.float64()), ("rank", pa.int32())]
)
_NOT_FEATURES = ("query_id", "item_id", "target")
# Parameters of the step that are not LightGBM's.
_OWN = ("k", "num_boost_round")
_THREADS = re.compile(r"^\[num_threads: \d+\]$", re.MULTILINE)


def run(context: StepContext, output: Artifact) -> dict[str, Any]:
    """Writes recommendations (query_id, item_id, score, rank from 1, at most k per query) and the model's text.

    Returns counts, seconds and the gain of each feature. One process does it all on any engine; the candidates are
    scored a piece at a time.
    """
    combined = context.input("combine").artifact
    train = tables.read(combined, "train")
    started = time.monotonic()
    model = fit(train, context.parameters, threads=context.cores)
    fitted = time.monotonic()
    output.add(MODEL_FILE, text_of(model).encode())
    query, item, score = _scored(combined, model, threads=context.cores)
    recommendations = rank(query, item, score, int(context.parameters["k"]))
    tables.write(output, "recommendations", RECOMMENDATIONS, [recommendations])
    gains = dict(zip(model.feature_name(), model.feature_importance("gain").round(2).tolist(), strict=True))
    return {
        "train_rows": train.num_rows,
        "train_positives": int(train.column("target").to_numpy().sum()),
        "recommendations": recommendations.num_rows,
        "gain": dict(sorted(gains.items(), key=lambda pair: -pair[1])),
        "seconds": {"fit": round(fitted - started, 3), "predict": round(time.monotonic() - fitted, 3)},
    }


def fit(train: pa.Table, parameters: Mapping[str, Any], *, threads: int) -> lightgbm.Booster:
    """A model of `target` over all feature columns, the same for any order of the rows and any number of threads.

    `lambdarank` learns within each query's rows (Burges 2010, MSR-TR-2010-82), other objectives on single rows. Raises
    StepError for parameters that LightGBM rejects.
    """
    import lightgbm

    check_parameters("lightgbm", parameters)

    train = train.sort_by([("query_id", "ascending"), ("item_id", "ascending")])
    features = sorted(name for name in train.column_names if name not in _NOT_FEATURES)
    settings = {name: value for name, value in parameters.items() if name not in _OWN}
    settings |= {"deterministic": True, "force_row_wise": True, "num_threads": threads, "verbosity": -1}
    group = None
    if settings["objective"] == "lambdarank":
        group = np.unique(train.column("query_id").to_numpy(), return_counts=True)[1]
    data = lightgbm.Dataset(
        _matrix(train, features), label=train.column("target").to_numpy(), group=group, feature_name=features
    )
    try:
        return lightgbm.train(settings, data, num_boost_round=parameters["num_boost_round"])
    except lightgbm.basic.LightGBMError as error:
        raise StepError(f"LightGBM failed with the parameters of this step: {error}") from error


def text_of(model: lightgbm.Booster) -> str:
    """The model as text, without the number of threads of the fit."""
    return _THREADS.sub("[num_threads: 0]", model.model_to_string())


def rank(
    query: npt.NDArray[np.int32], item: npt.NDArray[np.int32], score: npt.NDArray[np.float64], top: int
) -> pa.Table:
    """The `top` rows of each query by score, ranked from 1; equal scores are ordered by item."""
    order = np.lexsort((item, -score, query))
    query, item, score = query[order], item[order], score[order]
    place = np.arange(len(query)) - np.searchsorted(query, query)
    kept = place < top
    arrays = [query[kept], item[kept], score[kept], (place[kept] + 1).astype(np.int32)]
    return pa.table(arrays, schema=RECOMMENDATIONS)


def _scored(
    combined: Artifact, model: lightgbm.Booster, *, threads: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.float64]]:
    pieces = [
        (
            batch.column("query_id").to_numpy(),
            batch.column("item_id").to_numpy(),
            np.asarray(model.predict(_matrix(batch, model.feature_name()), num_threads=threads)),
        )
        for batch in tables.batches(combined, "predict")
    ]
    if not pieces:
        return np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0)
    query, item, score = (np.concatenate(column) for column in zip(*pieces, strict=True))
    return query, item, score


def _matrix(rows: pa.Table | pa.RecordBatch, features: Sequence[str]) -> npt.NDArray[np.float64]:
    """Rows by features; null becomes NaN, LightGBM's missing value."""
    columns = (rows.column(name).cast(pa.float64()) for name in features)
    return np.column_stack([column.to_numpy(zero_copy_only=False) for column in columns])
