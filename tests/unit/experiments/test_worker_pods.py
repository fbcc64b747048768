"""Pods whose tasks have not started: why they wait, and how they ended."""

from dataclasses import replace
from typing import Any

import pytest

from replayctl.clients.airflow_runs import RunInfo, TaskInfo
from replayctl.errors import OperationFailed
from replayctl.experiments.worker_pods import WorkerPods

RUN = RunInfo("two_stage_alice", "manual__1", "running", None, None, None)
TASK = TaskInfo("split", "failed", 2, -1, None)


class Cluster:
    """An API server with pods; the log of each is one line."""

    def __init__(self, *pods: dict[str, Any]) -> None:
        self.items = pods

    def get(self, path: str, what: str, parameters: dict[str, str]) -> dict[str, Any]:
        assert (path, parameters) == ("/api/v1/namespaces/airflow/pods", {"labelSelector": "kubernetes_executor=True"})
        return {"items": list(self.items)}

    def text(self, path: str, what: str) -> str:
        if "silent" in path:
            raise OperationFailed("container base is waiting to start")
        return f"log of {path.split('/')[-2]}\n"


def pod(name: str, status: dict[str, Any], *, run_id: str = "manual__1", task: str = "split", tries: int = 2) -> dict:
    annotations = {"dag_id": "two_stage_alice", "run_id": run_id, "task_id": task, "try_number": str(tries)}
    return {"metadata": {"name": name, "annotations": annotations}, "status": status}


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"containerStatuses": [{"state": {"waiting": {"reason": reason, "message": message}}}]}


def ended(name: str, reason: str, code: int) -> dict[str, Any]:
    return {"name": name, "state": {"terminated": {"reason": reason, "exitCode": code}}}


UNSCHEDULED = {
    "conditions": [
        {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": "0/1 nodes are available: 1 Insufficient cpu.",
        }
    ]
}


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (UNSCHEDULED, "Unschedulable: 0/1 nodes are available: 1 Insufficient cpu."),
        (waiting("ErrImagePull", "no such image"), "ErrImagePull: no such image"),
        (waiting("ContainerCreating"), None),
        (waiting("PodInitializing"), None),
        (
            {
                "initContainerStatuses": [{"state": {"waiting": {"reason": "ErrImagePull", "message": "no git-sync"}}}],
                **waiting("PodInitializing"),
            },
            "ErrImagePull: no git-sync",
        ),
        ({"containerStatuses": [{"state": {"running": {}}}]}, None),
        ({}, None),
    ],
)
def test_a_pod_that_does_not_start_says_why(status: dict[str, Any], reason: str | None) -> None:
    others = pod("other", UNSCHEDULED, run_id="manual__2")
    pods = WorkerPods(Cluster(others, pod("mine", status)), "airflow")  # type: ignore[arg-type]
    assert pods.why_waiting(RUN) == (reason and f"pod mine has not started: {reason}")


@pytest.mark.parametrize(
    ("status", "first"),
    [
        (
            {"containerStatuses": [{"state": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}}]},
            "pod mine: OOMKilled (exit code 137)",
        ),
        (
            {"reason": "Evicted", "message": "The node was low on memory."},
            "pod mine: Evicted: The node was low on memory.",
        ),
        (waiting("ImagePullBackOff"), "pod mine: ImagePullBackOff"),
        (
            {"containerStatuses": [ended("logs", "Completed", 0), ended("base", "OOMKilled", 137)]},
            "pod mine: OOMKilled (exit code 137)",
        ),
        (
            {
                "initContainerStatuses": [ended("ready", "Completed", 0), ended("clone", "Error", 128)],
                **waiting("PodInitializing"),
            },
            "pod mine: container clone: Error (exit code 128)",
        ),
        ({}, "pod mine: no reason known"),
    ],
)
def test_a_pod_that_ended_before_its_task_has_a_log(status: dict[str, Any], first: str) -> None:
    before = pod("before", {"reason": "Evicted"}, tries=1)
    pods = WorkerPods(Cluster(before, pod("other", {}, task="combine"), pod("mine", status)), "airflow")  # type: ignore[arg-type]
    log = pods.last_words(RUN, TASK)
    assert log is not None
    assert log.lines == (first, "log of mine")
    assert log.source == "kubectl -n airflow logs mine"


def test_a_mapped_task_has_the_log_of_its_own_pod() -> None:
    mapped = [pod(f"mapped-{index}", {}) for index in range(2)]
    for index, item in enumerate(mapped):
        item["metadata"]["annotations"]["map_index"] = str(index)
    log = WorkerPods(Cluster(*mapped), "airflow").last_words(RUN, replace(TASK, map_index=1))  # type: ignore[arg-type]
    assert log is not None
    assert log.lines[-1] == "log of mapped-1"


def test_a_pod_without_a_log_still_has_its_reason() -> None:
    log = WorkerPods(Cluster(pod("silent", waiting("ErrImagePull"))), "airflow").last_words(RUN, TASK)  # type: ignore[arg-type]
    assert log is not None
    assert log.lines == ("pod silent: ErrImagePull",)


def test_a_pod_that_is_gone_says_nothing() -> None:
    pods = WorkerPods(Cluster(), "airflow")  # type: ignore[arg-type]
    assert (pods.why_waiting(RUN), pods.last_words(RUN, TASK)) == (None, None)
