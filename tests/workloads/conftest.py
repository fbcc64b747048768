"""One Spark session for all, and the pipeline computed once on a sample of the real MovieLens-100k."""

import csv
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

os.environ.update(
    PYSPARK_PYTHON=sys.executable,
    SPARK_LOCAL_IP="127.0.0.1",
    PYSPARK_SUBMIT_ARGS=(
        "--master local[2] --driver-memory 2g --conf spark.ui.enabled=false --conf spark.sql.shuffle.partitions=3 "
        "--conf spark.default.parallelism=3 --conf spark.driver.host=127.0.0.1 "
        "--conf spark.sql.execution.arrow.pyspark.enabled=true pyspark-shell"
    ),
)

from pyspark.sql import SparkSession

from dags.dag_entities import DATASETS, RESOURCE_TIERS, Namespace, Resources, model_params
from dags.dag_specs import DagSpec, Deployment, StepSpec
from dags.dag_two_stage_scenarios import build_two_stage_dag
from dags.workloads import runner
from dags.workloads.context import StepContext

SAMPLE_USERS = 120


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """py4j leaves its sockets to the garbage collector; that is not ours to mend."""
    for item in items:
        if "workloads" in str(item.path):
            item.add_marker(pytest.mark.filterwarnings("ignore::ResourceWarning"))
            item.add_marker(pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"))


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    session = SparkSession.builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    yield session
    session.stop()


@pytest.fixture(scope="session", autouse=True)
def shared_session() -> Iterator[None]:
    """Steps stop their session at the end; the tests' steps share one."""
    patch = pytest.MonkeyPatch()
    patch.setattr(StepContext, "close", lambda self: None)
    yield
    patch.undo()


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


class Pipeline:
    """A two-stage experiment with cheap models, step by step, in a folder of its own."""

    def __init__(self, root: Path, **models: dict[str, Any]) -> None:
        self.deployment = Deployment("dags", "local", "alice", str(root / "data"), str(root / "artifacts"), "/f")
        tiers = {tier: Resources(2, 3) for tier in RESOURCE_TIERS}
        self.deployment = replace(self.deployment, tracking_uri=f"sqlite:///{root}/mlflow.db", tiers=tiers)
        overrides = models or {"poprec": {}, "itemknn": {"num_neighbours": 10}}
        self.dataset = replace(DATASETS["ml100k"], name="sample", checksum=None, model_overrides=overrides)
        chosen = model_params(*overrides, dataset=self.dataset)
        self.spec: DagSpec = build_two_stage_dag(
            "two_stage_sample_alice", "two_stage_sample_alice", chosen, self.dataset
        )

    def step(self, name: str) -> StepSpec:
        return next(step for step in self.spec.steps if step.name == name)

    def document(self, name: str, **more: Any) -> dict[str, Any]:
        document = self.deployment.step_document(self.spec, self.step(name))
        run = {"dag_id": self.spec.dag_id, "run_id": "run1", "task_id": name, "map_index": -1}
        return {**document, "force": False, "run": run, **more}

    def path(self, name: str) -> Path:
        return Path(self.deployment.artifact_path(self.step(name)))

    def manifest(self, name: str) -> dict[str, Any]:
        from dags.artifacts import Artifact

        return Artifact(str(self.path(name))).manifest()

    def run(self, *names: str) -> None:
        for name in names or [step.name for step in self.spec.steps]:
            runner.run(self.document(name))


@pytest.fixture(scope="session")
def pipeline(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    root = tmp_path_factory.mktemp("two stage")
    write_log(root / "data" / "replay" / "ml100k_ratings.csv", sample_rows())
    made = Pipeline(root)
    made.run()
    return made


__all__ = ["Namespace", "Pipeline", "sample_rows", "write_log"]
