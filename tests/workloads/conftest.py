"""The pipeline computed once on a sample of the real MovieLens-100k, and a real MLflow server for its metrics."""

import csv
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from dags.artifacts import Artifact
from dags.dag_entities import DATASETS, RESOURCE_TIERS, Engine, Namespace, Resources, model_params
from dags.dag_specs import DagSpec, Deployment, StepSpec
from dags.dag_two_stage_scenarios import build_two_stage_dag
from dags.workloads import runner
from tests.mlflow_servers import Mlflow

SAMPLE_USERS = 120


def sample_rows() -> list[tuple[int, int, int, int]]:
    """The interactions of the first users of the real data."""
    import recbole

    source = Path(recbole.__path__[0]) / "dataset_example" / "ml-100k" / "ml-100k.inter"
    with source.open(newline="") as file:
        rows = list(csv.reader(file, delimiter="\t"))[1:]
    return [(int(u), int(i), int(float(r)), int(float(t))) for u, i, r, t in rows if int(u) <= SAMPLE_USERS]


def write_log(path: Path, rows: list[tuple[Any, ...]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("user_id", "item_id", "rating", "timestamp"))
        writer.writerows(rows)


def rows(path: Path, table: str) -> list[dict[str, Any]]:
    """All rows of a table of an artifact."""
    return [row for part in Artifact(str(path)).parts(table) for row in pq.ParquetFile(part).read().to_pylist()]


def pairs(path: Path, table: str) -> set[tuple[int, int]]:
    return {(row["query_id"], row["item_id"]) for row in rows(path, table)}


class Pipeline:
    """A two-stage experiment with cheap models, step by step, in a folder of its own."""

    def __init__(
        self, root: Path, *, engine: Engine = "embedded", tracking: str = "", **models: dict[str, Any]
    ) -> None:
        tiers = {tier: Resources(2, 3) for tier in RESOURCE_TIERS}
        self.root = root
        self.deployment = Deployment(
            "dags",
            "local",
            "alice",
            str(root / "data"),
            str(root / "artifacts"),
            "/f",
            tracking_uri=tracking or None,
            tiers=tiers,
            engine=engine,
        )
        overrides = models or {"poprec": {}, "itemknn": {"num_neighbours": 10}}
        self.dataset = replace(DATASETS["ml100k"], name="sample", checksum=None, model_overrides=overrides)
        parameters = model_params(*overrides, dataset=self.dataset)
        name = "two_stage_sample_alice"
        self.spec: DagSpec = build_two_stage_dag(name, name, parameters, self.dataset).on(engine)

    def step(self, name: str) -> StepSpec:
        return next(step for step in self.spec.steps if step.name == name)

    def document(self, name: str, **options: Any) -> dict[str, Any]:
        document = self.deployment.step_document(self.spec, self.step(name))
        run = {"dag_id": self.spec.dag_id, "run_id": "run1", "task_id": name, "map_index": -1}
        return {**document, "force": False, "run": run, **options}

    def path(self, name: str) -> Path:
        return Path(self.deployment.artifact_path(self.step(name)))

    def manifest(self, name: str) -> dict[str, Any]:
        return Artifact(str(self.path(name))).manifest()

    def run(self, *names: str) -> None:
        for name in names or [step.name for step in self.spec.steps]:
            runner.run(self.document(name))


@pytest.fixture(scope="session", autouse=True)
def starting_mlflow(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mlflow | None]:
    """Started before the first test, where any needs it, and waited for by the first that does."""
    if not any("mlflow" in getattr(item, "fixturenames", ()) for item in request.session.items):
        yield None
        return
    server = Mlflow(os.environ["REPLAYCTL_TEST_MLFLOW"], tmp_path_factory.mktemp("mlflow"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def mlflow(starting_mlflow: Mlflow) -> Mlflow:
    starting_mlflow.wait()
    return starting_mlflow


@pytest.fixture(scope="session")
def pipeline(mlflow: Mlflow, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    # Brackets and braces are patterns for DuckDB and Spark.
    root = tmp_path_factory.mktemp("two stage [a]{b}")
    write_log(root / "data" / "replay" / "ml100k_ratings.csv", sample_rows())
    finished = Pipeline(root, tracking=mlflow.url)
    finished.run()
    return finished


__all__ = ["Namespace", "Pipeline", "pairs", "rows", "sample_rows", "write_log"]
