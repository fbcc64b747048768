"""The operator that makes an artifact once: what it skips, what it forces, what it hands to the driver."""

import base64
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from airflow.exceptions import AirflowException
from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator

from dags.artifacts import Artifact
from dags.dag_entities import Namespace, Resources
from dags.dag_operators import WorkloadOperator, build_dag, encoded, make_operator
from dags.dag_specs import DagSpec, Deployment, StepSpec
from dags.dag_two_stage_scenarios import dag_specs


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    tiers = {tier: Resources(3, 10) for tier in ("default", "big", "extra_big")}
    return Deployment(
        "r_1",
        "local",
        "alice",
        "/d",
        str(tmp_path),
        "/files",
        places={"yarn": "pod"},
        tiers=tiers,
        spark_conf={"a": "b"},
    )


@pytest.fixture
def submitted(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """Stands for spark-submit: makes the artifact and keeps the document."""
    documents: list[dict] = []

    def execute(operator: WorkloadOperator, context: dict) -> None:
        document = json.loads(base64.urlsafe_b64decode(operator.application_args[0]))
        documents.append(document)
        artifact = Artifact(document["output"])
        artifact.commit(artifact.begin("x"), {"run": document["run"]}, replace=document["force"])

    monkeypatch.setattr(SparkSubmitOperator, "execute", execute)
    return documents


def operator(deployment: Deployment, name: str = "split") -> WorkloadOperator:
    spec = dag_specs(Namespace("alice"))[0]
    return make_operator(spec, next(step for step in spec.steps if step.name == name), deployment)


def context(run_id: str = "run1", force: list[str] | None = None) -> dict:
    return {"run_id": run_id, "params": {"force": force or []}, "ti": SimpleNamespace(map_index=-1, try_number=1)}


def test_a_whole_artifact_is_not_made_again(deployment: Deployment, submitted: list[dict]) -> None:
    operator(deployment).execute(context())
    operator(deployment).execute(context("run2"))
    assert len(submitted) == 1
    assert submitted[0]["run"]["run_id"] == "run1"
    assert submitted[0]["force"] is False


def test_a_deleted_artifact_is_made_again(deployment: Deployment, submitted: list[dict]) -> None:
    operator(deployment).execute(context())
    (Artifact(submitted[0]["output"]).path / "_SUCCESS").unlink()
    operator(deployment).execute(context())
    assert len(submitted) == 2


@pytest.mark.parametrize("force", [["split"], ["all"]])
def test_force_makes_it_anew_once_in_a_run(deployment: Deployment, submitted: list[dict], force: list[str]) -> None:
    operator(deployment).execute(context("run1"))
    operator(deployment).execute(context("run2", force))
    assert submitted[-1]["force"] is True
    operator(deployment).execute(context("run2", force))
    assert len(submitted) == 2
    operator(deployment).execute(context("run3", ["first_level_als"]))
    assert len(submitted) == 2


def test_force_of_a_step_reaches_what_depends_on_it(deployment: Deployment, submitted: list[dict]) -> None:
    operator(deployment, "combine").execute(context("run1"))
    operator(deployment, "combine").execute(context("run2", ["first_level_als"]))
    operator(deployment, "first_level_poprec").execute(context("run1"))
    operator(deployment, "first_level_poprec").execute(context("run2", ["first_level_als"]))
    assert [document["step"] for document in submitted] == ["combine", "combine", "first_level_poprec"]


def test_a_driver_that_ends_well_without_its_artifact_has_failed(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SparkSubmitOperator, "execute", lambda self, context: None)
    with pytest.raises(AirflowException, match="not whole"):
        operator(deployment).execute(context())


def test_the_command_needs_no_connection_and_no_shell(deployment: Deployment) -> None:
    made = operator(deployment)
    made.application_args = [encoded({"x": "{{ a }} $(b)", "y": {"z": {}}})]
    command = made._get_hook()._build_spark_submit_command(made.application)
    assert command[:3] == ["spark-submit", "--master", "local[3]"]
    assert command[-2] == "/files/alice/r_1/dag_submit.py"
    # What YARN and shells on the way might change is not in it.
    assert re.fullmatch(r"[A-Za-z0-9_=-]+", command[-1])
    assert json.loads(base64.urlsafe_b64decode(command[-1])) == {"x": "{{ a }} $(b)", "y": {"z": {}}}
    assert "/files/alice/r_1/r_1.zip" in command
    assert command[command.index("--driver-memory") + 1] == "7g"


def test_parameters_are_data_and_not_templates(deployment: Deployment) -> None:
    assert operator(deployment).template_fields == ()


def test_a_place_that_cannot_be_served_is_refused_when_the_dag_is_made(deployment: Deployment) -> None:
    step = StepSpec("s", "split", 1, "d", {}, place="yarn")
    spec = DagSpec("x_alice", "", "e", (step,))
    elsewhere = Deployment("r_1", "lab", "alice", "/d", "/a", "/f")
    with pytest.raises(ValueError, match="place 'yarn' is not available under profile 'lab'"):
        build_dag(spec, elsewhere)
