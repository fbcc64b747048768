"""Fit and predict times of the experiment's models, one after another in one session, outside Airflow.

Arguments: the split's and the combiner's artifact, cores, where to write the answer (JSON: model → seconds).
"""

import json
import sys
import time
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from replay.utils.session_handler import State

from dags.dag_entities import DATASETS, SECOND_LEVEL_MODELS, model_params
from dags.dag_two_stage_scenarios import CANDIDATES, DEFAULT_MODELS
from dags.workloads.first_level import make_model, replay_dataset
from dags.workloads.second_level import fit, score


def fit_predict(parameters: dict[str, Any], interactions: DataFrame, asked: DataFrame) -> None:
    """One model as its users would call it; the answer is computed and thrown away."""
    model = make_model(parameters)
    dataset = replay_dataset(interactions)
    model.fit(dataset)
    found = model.predict(dataset, k=CANDIDATES, queries=asked.select("query_id").distinct(), filter_seen_items=True)
    found.write.format("noop").mode("overwrite").save()


def main() -> None:
    """Measures and writes the answer."""
    split, combine, cores, answer = sys.argv[1:]
    spark = SparkSession.builder.getOrCreate()
    State(spark)
    first, second, test = (
        spark.read.parquet(f"file://{split}/{name}").cache()
        for name in ("first_level_train", "second_level_train", "test")
    )
    both = first.unionByName(second).cache()
    for frame in (first, second, test, both):
        frame.count()
    measured = {}
    for name, model in model_params(*DEFAULT_MODELS, dataset=DATASETS["ml100k"]).items():
        parameters = {"class_path": model.class_path, "kwargs": dict(model.parameters)}
        started = time.perf_counter()
        fit_predict(parameters, first, second)
        fit_predict(parameters, both, test)
        measured[name] = time.perf_counter() - started
    train = spark.read.parquet(f"file://{combine}/train").toPandas()
    predict = spark.read.parquet(f"file://{combine}/predict").cache()
    predict.count()
    started = time.perf_counter()
    booster = fit(train, SECOND_LEVEL_MODELS["lightgbm"], cores=int(cores))
    score(predict, booster).write.format("noop").mode("overwrite").save()
    measured["lightgbm"] = time.perf_counter() - started
    with open(answer, "w") as file:
        json.dump(measured, file)
    spark.stop()


main()
