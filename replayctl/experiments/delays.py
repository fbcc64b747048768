"""Explains what a run waits for, as far as Airflow knows."""

from __future__ import annotations

from collections.abc import Sequence

from replayctl.clients.airflow import AirflowApi
from replayctl.clients.airflow_runs import RunInfo, TaskInfo

FOR_A_WORKER = "waiting for a worker"
_SHOWN = 3


def why_waiting(api: AirflowApi, run: RunInfo, tasks: Sequence[TaskInfo]) -> str | None:
    """What an unfinished run waits for; None while one of its tasks runs and the scheduler is healthy."""
    scheduler = api.health().get("scheduler")
    if scheduler != "healthy":
        return f"Airflow's scheduler is {scheduler or 'missing'}, so no task is started"
    if any(task.state == "running" for task in tasks):
        return None
    dag = api.find_dag(run.dag_id)
    if dag is not None and dag.is_paused:
        return f"{run.dag_id} is paused"
    if run.state == "queued":
        ahead = [other.run_id for other in api.runs(run.dag_id, states=["running"]) if other.run_id != run.run_id]
        return f"queued behind {_some(ahead)} of the same DAG" if ahead else "waiting for the scheduler"
    if any(task.state == "queued" for task in tasks):
        return FOR_A_WORKER
    for pool in sorted({task.pool for task in tasks if task.state == "scheduled" and task.pool}):
        slots, occupants = api.pool_use(pool)
        if 0 <= slots <= len(occupants):
            which = "the only slot" if slots == 1 else f"one of the {slots} slots"
            return f"waiting for {which} of pool {pool}, in use by {_some(occupants)}"
    if any(task.state == "up_for_retry" for task in tasks):
        return "waiting for the next try"
    return None


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"
