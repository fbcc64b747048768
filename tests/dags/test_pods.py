"""The pod override of a task: its tier's resources, and its image by digest."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from airflow.serialization.serialized_objects import DagSerialization
from kubernetes.client import ApiClient

from dags.dag_entities import RESOURCE_TIERS, Namespace, Resources
from dags.dag_operators import build_dag, make_operator
from dags.dag_specs import DagSpec, Deployment
from dags.dag_two_stage_scenarios import dag_specs

IMAGE = "registry:5000/worker@sha256:" + "a" * 64
OTHER = "registry:5000/worker@sha256:" + "b" * 64
MODULE = "dag_two_stage_scenarios"


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    return Deployment("r_1", "lab", "alice", "/d", str(tmp_path), "/files", pods=True, images={"": IMAGE, "old": OTHER},
                      yarn_url="http://rm:8088")  # fmt: skip


@pytest.fixture
def spec() -> DagSpec:
    return dag_specs(Namespace("alice"))[0].on("spark")


def pod_of(spec: DagSpec, name: str, deployment: Deployment) -> dict:
    """The container that a task's pod gets over the template's, as Kubernetes reads it."""
    step = next(step for step in spec.steps if step.name == name)
    override = make_operator(spec, step, deployment, MODULE).executor_config["pod_override"]
    (container,) = ApiClient().sanitize_for_serialization(override)["spec"]["containers"]
    return container


@pytest.mark.parametrize(
    ("step", "tier"),
    [("split", "default"), ("evaluate", "big"), ("second_level_lightgbm", "extra_big"), ("first_level_als", "submit")],
)
def test_a_pod_has_the_resources_of_its_tier(deployment: Deployment, spec: DagSpec, step: str, tier: str) -> None:
    size = RESOURCE_TIERS[tier]
    container = pod_of(spec, step, deployment)
    # Patience with an API that is away; the template's own variables stay.
    assert {variable["name"].rpartition("__")[0] for variable in container.pop("env")} == {"AIRFLOW__WORKERS"}
    assert container == {
        "name": "base",
        "image": IMAGE,
        "resources": {
            "requests": {"cpu": str(size.cores), "memory": f"{size.memory_gib}Gi"},
            "limits": {"memory": f"{size.memory_gib}Gi"},
        },
    }


def test_the_profile_scales_tiers_and_pods_alike(deployment: Deployment, spec: DagSpec) -> None:
    small = replace(deployment, tiers={"default": Resources(1, 3)})
    assert pod_of(spec, "split", small)["resources"]["requests"] == {"cpu": "1", "memory": "3Gi"}
    split = make_operator(spec, spec.steps[0], small, MODULE)
    assert (split.cores, split.driver_memory, split.conf["spark.sql.shuffle.partitions"]) == (1, "2g", "3")


def test_a_step_that_yarn_would_compute_has_its_own_tier_where_there_is_no_yarn(
    deployment: Deployment, spec: DagSpec
) -> None:
    without = replace(deployment, places={"yarn": "pod"}, yarn_url=None)
    assert pod_of(spec, "first_level_als", without)["resources"]["limits"] == {"memory": "30Gi"}


def test_a_dag_may_have_an_image_of_its_own(deployment: Deployment, spec: DagSpec) -> None:
    assert pod_of(replace(spec, image="old"), "split", deployment)["image"] == OTHER
    assert "image" not in pod_of(spec, "split", replace(deployment, images={}))
    with pytest.raises(ValueError, match=r"image 'new' has no digest in r_1"):
        pod_of(replace(spec, image="new"), "split", deployment)


def test_without_kubernetes_there_is_no_pod_override(deployment: Deployment, spec: DagSpec) -> None:
    operator = make_operator(spec, spec.steps[0], replace(deployment, pods=False), MODULE)
    assert not operator.executor_config
    assert "Image:" not in operator.doc_md


def test_airflow_can_serialise_it_and_shows_the_image(deployment: Deployment, spec: DagSpec) -> None:
    dag = build_dag(spec, deployment, MODULE)
    assert IMAGE in json.dumps(DagSerialization.to_dict(dag))
    assert f"Image: {IMAGE}" in dag.get_task("split").doc_md
