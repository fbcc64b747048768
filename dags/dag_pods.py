"""Overrides of the cluster's pod template for the pod of a task.

https://airflow.apache.org/docs/apache-airflow-providers-cncf-kubernetes/stable/kubernetes_executor.html#pod-override
"""

from __future__ import annotations

from typing import Any

from .dag_entities import Resources

# The name that Airflow's Kubernetes executor gives to a worker's container.
_CONTAINER = "base"
# By default, a worker gives up its step if Airflow's API does not answer for half a minute. A restarting web server, or
# a busy node, takes longer; after five minutes without a heartbeat, the scheduler decides.
_PATIENCE = {
    "AIRFLOW__WORKERS__EXECUTION_API_RETRIES": "8",
    "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "30",
    "AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS": "10",
}


def executor_config(resources: Resources, image: str | None) -> dict[str, Any]:
    """The `executor_config` of a task with these resources and this image; None leaves the template's image."""
    # Only Airflow in a worker of the Kubernetes executor has this package.
    from kubernetes.client import models

    memory = f"{resources.memory_gib}Gi"
    requirements = models.V1ResourceRequirements(
        requests={"cpu": str(resources.cores), "memory": memory},
        # Cores have no limit: idle cores of the node shorten the start of Airflow and of the JVM.
        limits={"memory": memory},
    )
    variables = [models.V1EnvVar(name=name, value=value) for name, value in _PATIENCE.items()]
    container = models.V1Container(name=_CONTAINER, image=image, resources=requirements, env=variables)
    return {"pod_override": models.V1Pod(spec=models.V1PodSpec(containers=[container]))}
