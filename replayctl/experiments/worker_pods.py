"""The pods of a run's tasks under the Kubernetes executor: why one does not start, and why one ended without a log.

Airflow knows neither: a pod that was not scheduled, whose image was not pulled, or that ended before its task began, is
only "queued" or "failed" to it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from replayctl.clients.airflow_runs import RunInfo, TaskInfo, TaskLog
from replayctl.cluster.api import Kubernetes
from replayctl.errors import OperationFailed

_LOG_END = "tailLines=40&limitBytes=1000000"
_SELECTOR = "kubernetes_executor=True"
_WORKER = "base"
# What every container waits for at first: its image and volumes, or the containers before it.
_NORMAL = frozenset({"ContainerCreating", "PodInitializing"})


@dataclass(frozen=True, slots=True)
class WorkerPods:
    """The worker pods in one Kubernetes namespace. Methods raise what requests to the Kubernetes API raise."""

    cluster: Kubernetes
    namespace: str

    def why_waiting(self, run: RunInfo) -> str | None:
        """Why a pod of the run has not started yet; None when there is no such pod."""
        for pod in self._pods(run):
            if reason := _why_not_started(pod):
                return f"pod {pod['metadata']['name']} has not started: {reason}"
        return None

    def last_words(self, run: RunInfo, task: TaskInfo) -> TaskLog | None:
        """How the pod of a task's latest try ended, with the end of its log; None when the pod is gone."""
        for pod in self._pods(run):
            known = pod["metadata"].get("annotations") or {}
            # Only tasks that are mapped have the number.
            own = (known.get("task_id"), known.get("try_number"), known.get("map_index", "-1"))
            if own != (task.task_id, str(task.try_number), str(task.map_index)):
                continue
            name = pod["metadata"]["name"]
            lines = [f"pod {name}: {_why_ended(pod) or _why_not_started(pod) or 'no reason known'}"]
            path = f"/api/v1/namespaces/{self.namespace}/pods/{name}/log?container={_WORKER}&{_LOG_END}"
            # A container that has never started has none, and the reason is answer enough.
            with contextlib.suppress(OperationFailed):
                lines += self.cluster.text(path, f"the log of pod {name}").splitlines()
            return TaskLog(tuple(lines), f"kubectl -n {self.namespace} logs {name}")
        return None

    def _pods(self, run: RunInfo) -> Iterator[dict[str, Any]]:
        path = f"/api/v1/namespaces/{self.namespace}/pods"
        pods = self.cluster.get(path, f"pods of {self.namespace}", {"labelSelector": _SELECTOR}).get("items") or []
        for pod in pods:
            # The labels are shortened; the annotations are exact.
            annotations = pod["metadata"].get("annotations") or {}
            if (annotations.get("dag_id"), annotations.get("run_id")) == (run.dag_id, run.run_id):
                yield pod


def _states(pod: Mapping[str, Any], kind: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The containers that are `waiting` or `terminated`, by name: those that prepare the pod first."""
    status = pod.get("status") or {}
    for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        if state := (container.get("state") or {}).get(kind):
            yield str(container.get("name") or ""), state


def _why_not_started(pod: Mapping[str, Any]) -> str | None:
    """The reason of a pod that is not scheduled, or of a container that waits; None when it is only being created."""
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return _words(condition)
    return next((_words(state) for _, state in _states(pod, "waiting") if state.get("reason") not in _NORMAL), None)


def _why_ended(pod: Mapping[str, Any]) -> str | None:
    """How the worker ended; without it, a container that failed before or beside it."""
    status = pod.get("status") or {}
    if status.get("reason"):
        return _words(status)
    ended = list(_states(pod, "terminated"))
    if not ended:
        return None
    name, state = min(ended, key=lambda entry: (entry[0] != _WORKER, not entry[1].get("exitCode")))
    where = "" if name in ("", _WORKER) else f"container {name}: "
    return f"{where}{_words(state)} (exit code {state.get('exitCode')})"


def _words(state: Mapping[str, Any]) -> str:
    return ": ".join(str(state[key]) for key in ("reason", "message") if state.get(key))
