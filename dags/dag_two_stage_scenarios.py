"""The experiments: first-level models propose candidates, a second-level model reranks them.

Builders are plain functions from entities to a `DagSpec`; `dag_specs` calls them for every data set.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from .dag_entities import (
    DATASETS,
    EMBEDDED_MODELS,
    SECOND_LEVEL_MODELS,
    DatasetInfo,
    Engine,
    FirstLevelModel,
    Namespace,
    Place,
    model_params,
)
from .dag_specs import DagSpec, StepSpec
from .model_parameters import MODEL_PARAMETERS, unknown_parameters

CANDIDATES = 100
METRICS_AT = (5, 10, 25, 50, 100)
TAGS = ("replay", "two_stage")
DEFAULT_MODELS = ("als", "itemknn", "poprec")


def _step(
    workload: str,
    dataset: DatasetInfo,
    parameters: Mapping[str, object],
    inputs: tuple[StepSpec, ...] = (),
    *,
    label: str = "",
    name: str = "",
    tier: str = "default",
    place: Place = "pod",
    overridden: Mapping[str, object] | None = None,
    engines: tuple[Engine, ...] = ("embedded", "spark"),
    implementations: Mapping[Engine, str] | None = None,
) -> StepSpec:
    return StepSpec(
        name=name or (f"{workload}_{label}" if label else workload),
        workload=workload,
        dataset=dataset.name,
        parameters=parameters,
        inputs=inputs,
        label=label,
        tier=tier,
        place=place,
        overridden=overridden or {},
        engines=engines,
        implementations=implementations or {},
    )


def split_step(dataset: DatasetInfo) -> StepSpec:
    """Raw interactions → training rows of both levels and test rows, with dense ids."""
    columns = {
        "query": dataset.query_column,
        "item": dataset.item_column,
        "rating": dataset.rating_column,
        "timestamp": dataset.timestamp_column,
    }
    parameters = {
        "dataset": dataset.identity,
        "log_path": dataset.log_path,
        "file_format": dataset.file_format,
        "delimiter": dataset.delimiter,
        "columns": columns,
        "timestamp_unit": dataset.timestamp_unit,
        "positive_threshold": dataset.positive_threshold,
        "split": asdict(dataset.split),
    }
    return _step("split", dataset, parameters)


def first_level_step(dataset: DatasetInfo, name: str, model: FirstLevelModel) -> StepSpec:
    """One RePlay model: candidates for the second level's training, and for the test queries after a refit.

    `name` does not affect the result: the same model under another name is the same artifact. Raises ValueError for a
    parameter that the model has on neither engine, if the embedded one has the model.
    """
    known = MODEL_PARAMETERS.get(model.class_path, tuple(model.parameters))
    if trouble := unknown_parameters(model.class_path, model.parameters, known):
        raise ValueError(f"model {name}: {trouble}")
    parameters = {"class_path": model.class_path, "kwargs": dict(model.parameters), "candidates": CANDIDATES}
    split = split_step(dataset)
    return _step(
        "first_level",
        dataset,
        parameters,
        (split,),
        label=name,
        place="yarn",
        overridden=model.overridden,
        engines=model.engines,
        implementations=EMBEDDED_MODELS.get(model.class_path),
    )


def second_level_steps(
    dataset: DatasetInfo, model_name: str, first_level: tuple[StepSpec, ...]
) -> tuple[StepSpec, StepSpec]:
    """The combiner of the given candidates, and the model that reranks the combined ones."""
    split = split_step(dataset)
    combine = _step(
        "combine",
        dataset,
        {"mode": "union", "negatives_per_query": 30, "seed": dataset.split.seed},
        (split, *first_level),
        place="yarn",
    )
    parameters = {"k": CANDIDATES, **SECOND_LEVEL_MODELS[model_name]}
    rerank = _step(
        "second_level",
        dataset,
        parameters,
        (split, combine),
        label=model_name,
        tier="extra_big",
        engines=("embedded",),
    )
    return combine, rerank


def evaluate_step(dataset: DatasetInfo, rows: tuple[StepSpec, ...]) -> StepSpec:
    """Metrics of every given model on the same test queries, recorded in MLflow."""
    # Names affect the result of this step, because metrics are recorded under them.
    parameters = {"k": list(METRICS_AT), "names": [row.label for row in rows]}
    inputs = (split_step(dataset), *rows)
    return _step("evaluate", dataset, parameters, inputs, tier="big", engines=("embedded",))


def build_fit_predict_first_level_models_dag(
    dag_id: str, mlflow_exp_id: str, model_params_map: Mapping[str, FirstLevelModel], dataset: DatasetInfo
) -> DagSpec:
    """Split → every first-level model → metrics. `mlflow_exp_id` is the name of the MLflow experiment."""
    models = tuple(first_level_step(dataset, name, model) for name, model in model_params_map.items())
    return DagSpec(
        dag_id=dag_id,
        description=f"First-level models on {dataset.name}: {', '.join(model_params_map)}",
        mlflow_experiment=mlflow_exp_id,
        steps=(split_step(dataset), *models, evaluate_step(dataset, models)),
        tags=(*TAGS, "first_level", dataset.name),
    )


def build_combiner_second_level(
    dag_id: str,
    mlflow_exp_id: str,
    model_params_map: Mapping[str, FirstLevelModel],
    dataset: DatasetInfo,
    second_level_model: str = "lightgbm",
) -> DagSpec:
    """Combiner → second level → metrics, on first-level artifacts of another DAG."""
    models = tuple(first_level_step(dataset, name, model) for name, model in model_params_map.items())
    combine, rerank = second_level_steps(dataset, second_level_model, models)
    return DagSpec(
        dag_id=dag_id,
        description=f"Combiner and {second_level_model} on {dataset.name}, over {', '.join(model_params_map)}",
        mlflow_experiment=mlflow_exp_id,
        steps=(combine, rerank, evaluate_step(dataset, (*models, rerank))),
        tags=(*TAGS, "second_level", dataset.name),
    )


def build_two_stage_dag(
    dag_id: str,
    mlflow_exp_id: str,
    model_params_map: Mapping[str, FirstLevelModel],
    dataset: DatasetInfo,
    second_level_model: str = "lightgbm",
) -> DagSpec:
    """The whole experiment: split → first level → combiner → second level → metrics of every model."""
    models = tuple(first_level_step(dataset, name, model) for name, model in model_params_map.items())
    combine, rerank = second_level_steps(dataset, second_level_model, models)
    return DagSpec(
        dag_id=dag_id,
        description=f"Two-stage experiment on {dataset.name}: {', '.join(model_params_map)}, then {second_level_model}",
        mlflow_experiment=mlflow_exp_id,
        steps=(split_step(dataset), *models, combine, rerank, evaluate_step(dataset, (*models, rerank))),
        tags=(*TAGS, dataset.name),
    )


def dag_specs(namespace: Namespace) -> tuple[DagSpec, ...]:
    """Three DAGs per data set, under the namespace's ids: the whole experiment, and each level by itself."""
    specs = []
    for name, dataset in DATASETS.items():
        models = model_params(*DEFAULT_MODELS, dataset=dataset)
        experiment = namespace.mlflow_experiment(f"two_stage_{name}")
        specs += [
            build_two_stage_dag(namespace.dag_id(f"two_stage_{name}"), experiment, models, dataset),
            build_fit_predict_first_level_models_dag(
                namespace.dag_id(f"first_level_{name}"), experiment, models, dataset
            ),
            build_combiner_second_level(namespace.dag_id(f"second_level_{name}"), experiment, models, dataset),
        ]
    return tuple(specs)
