"""Second level: LightGBM learns from the combined candidates and reranks those of the test queries."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from ..artifacts import Artifact
from .context import StepContext

if TYPE_CHECKING:
    import lightgbm
    import pandas as pd

MODEL_FILE = "model.txt"
_NOT_FEATURES = ("query_id", "item_id", "target")
# Parameters of the step that are not LightGBM's.
_OWN = ("k", "num_boost_round")
_SCORED = "query_id int, item_id int, score double"


def run(context: StepContext, output: Artifact) -> dict[str, Any]:
    """Writes recommendations (query_id, item_id, score, rank from 1, at most k per query) and the model's text.

    Returns counts, seconds and the gain of each feature. The training rows are collected to the driver, the
    candidates are scored where they lie.
    """
    combined = context.input("combine")
    train = context.read(combined, "train").toPandas()
    started = time.monotonic()
    model = fit(train, context.parameters, cores=context.cores)
    fitted = time.monotonic()
    (output.path / MODEL_FILE).write_text(model.model_to_string(), encoding="utf-8")
    scored = score(context.read(combined, "predict"), model)
    order = Window.partitionBy("query_id").orderBy(F.col("score").desc(), F.col("item_id"))
    ranked = scored.withColumn("rank", F.row_number().over(order)).where(F.col("rank") <= int(context.parameters["k"]))
    ranked.write.parquet(output.table("recommendations"))
    gains = dict(zip(model.feature_name(), model.feature_importance("gain").round(2).tolist(), strict=True))
    return {
        "train_rows": len(train),
        "train_positives": int(train["target"].sum()),
        "recommendations": context.spark.read.parquet(output.table("recommendations")).count(),
        "gain": dict(sorted(gains.items(), key=lambda pair: -pair[1])),
        "seconds": {"fit": round(fitted - started, 3), "predict": round(time.monotonic() - fitted, 3)},
    }


def fit(train: pd.DataFrame, parameters: Mapping[str, Any], *, cores: int) -> lightgbm.Booster:
    """A booster on rows of (query_id, item_id, target, features), the same for any order of the rows.

    `lambdarank` learns within each query's rows (Burges 2010, MSR-TR-2010-82), other objectives on single rows.
    """
    import lightgbm

    train = train.sort_values(["query_id", "item_id"], kind="stable")
    features = [name for name in train.columns if name not in _NOT_FEATURES]
    settings = {key: value for key, value in parameters.items() if key not in _OWN}
    settings |= {"deterministic": True, "force_row_wise": True, "num_threads": cores, "verbosity": -1}
    group = None
    if settings["objective"] == "lambdarank":
        group = train.groupby("query_id", sort=True).size().to_numpy()
    data = lightgbm.Dataset(train[sorted(features)], label=train["target"], group=group)
    return lightgbm.train(settings, data, num_boost_round=int(parameters["num_boost_round"]))


def score(candidates: DataFrame, model: lightgbm.Booster) -> DataFrame:
    """Candidates as (query_id, item_id, score), a batch at a time in the workers."""
    text = model.model_to_string()
    features = model.feature_name()

    def apply(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        import lightgbm

        booster = lightgbm.Booster(model_str=text)
        for batch in batches:
            # One thread a worker: Spark runs as many of them as there are cores.
            scores = booster.predict(batch[features], num_threads=1)
            yield batch[["query_id", "item_id"]].assign(score=scores)

    return candidates.mapInPandas(apply, _SCORED)
