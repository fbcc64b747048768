"""Runs of DAGs: start one, watch it to its end, and show what failed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from replayctl.clients.airflow import FINAL_RUN_STATES, AirflowApi, DagInfo, RunInfo, TaskInfo
from replayctl.console.events import Reporter
from replayctl.errors import NotFound, TimedOut, UsageProblem
from replayctl.settings.namespace import Namespace

_LOG_LINES = 25
_SHOWN_STATES = frozenset({"running", "success", "failed", "upstream_failed", "up_for_retry", "skipped"})


@dataclass(frozen=True, slots=True)
class FailedTask:
    """A task that failed, with the last lines of its log."""

    task_id: str
    try_number: int
    log_tail: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunReport:
    """One run as it was when we stopped looking. Durations are seconds of the latest try."""

    dag_id: str
    run_id: str
    state: str
    seconds: float | None
    url: str
    tasks: tuple[TaskInfo, ...]
    failed: tuple[FailedTask, ...]
    outcome: Literal["started", "success", "failed"]


def find_dag(api: AirflowApi, namespace: Namespace, name: str) -> DagInfo:
    """The DAG called `name` in the namespace, or the one with exactly that id.

    Raises NotFound, with the namespace's DAGs, when there is neither.
    """
    for dag_id in dict.fromkeys((namespace.dag_id(name), name)):
        found = api.find_dag(dag_id)
        if found is not None and not found.is_stale:
            return found
    mine = sorted(dag.dag_id for dag in api.dags() if not dag.is_stale and dag.dag_id.endswith(namespace.suffix))
    raise NotFound(
        f"Airflow at {api.url} has no DAG {namespace.dag_id(name)!r}",
        hint=f"yours there: {', '.join(mine)}" if mine else "deploy first: replayctl sync-dags",
    )


def check_force(api: AirflowApi, dag: DagInfo, force: Sequence[str]) -> None:
    """Refuses a step to compute anew that the DAG does not have: it would be passed over in silence."""
    if not force:
        return
    known = {"all", *api.tasks_docs(dag.dag_id)}
    unknown = sorted(set(force) - known)
    if unknown:
        raise UsageProblem(
            f"{dag.dag_id} has no step {', '.join(unknown)} to force", hint=f"steps: {', '.join(sorted(known))}"
        )


def start(api: AirflowApi, dag: DagInfo, force: Sequence[str], reporter: Reporter) -> RunInfo:
    """Starts a run of the DAG; `force` are steps to compute anew. A paused DAG is unpaused first."""
    if dag.is_paused:
        reporter.step(f"{dag.dag_id} is paused: unpausing it")
        api.unpause(dag.dag_id)
    run = api.trigger(dag.dag_id, {"force": list(force)} if force else {})
    reporter.step(f"started {dag.dag_id} as {run.run_id}")
    return run


def run_url(api: AirflowApi, run: RunInfo) -> str:
    """The run's page."""
    return f"{api.url}/dags/{run.dag_id}/runs/{run.run_id}"


def started_report(api: AirflowApi, run: RunInfo) -> RunReport:
    """The report of a run that nobody waits for."""
    return RunReport(run.dag_id, run.run_id, run.state, None, run_url(api, run), (), (), "started")


def watch(
    api: AirflowApi,
    run: RunInfo,
    *,
    timeout_s: float,
    poll_s: float,
    reporter: Reporter,
    sleep: Callable[[float], None] = time.sleep,
) -> RunReport:
    """Follows a run to its end, one line per change of a task; TimedOut when it goes on for longer than `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    seen: dict[tuple[str, int], tuple[str | None, int]] = {}
    while True:
        run = api.run(run.dag_id, run.run_id)
        tasks = api.tasks(run.dag_id, run.run_id)
        for task in sorted(tasks, key=lambda task: task.task_id):
            _tell(task, seen, reporter)
        if run.state in FINAL_RUN_STATES:
            return _report(api, run, tasks)
        if time.monotonic() > deadline:
            raise TimedOut(
                f"run {run.run_id} of {run.dag_id} is still {run.state} after {timeout_s:.0f} s",
                hint=f"it goes on; see {run_url(api, run)}",
            )
        done = sum(task.state == "success" for task in tasks)
        running = ", ".join(sorted(task.task_id for task in tasks if task.state == "running"))
        reporter.status(f"{done} of {len(tasks)} tasks done{f'; running: {running}' if running else ''}")
        sleep(poll_s)


def _tell(task: TaskInfo, seen: dict[tuple[str, int], tuple[str | None, int]], reporter: Reporter) -> None:
    key, now = (task.task_id, task.map_index), (task.state, task.try_number)
    if seen.get(key) == now or task.state not in _SHOWN_STATES:
        return
    seen[key] = now
    again = f" (try {task.try_number})" if task.try_number > 1 else ""
    took = f" in {task.seconds:.1f} s" if task.state in ("success", "failed") and task.seconds is not None else ""
    reporter.step(f"{task.task_id}: {task.state}{again}{took}")


def _report(api: AirflowApi, run: RunInfo, tasks: Sequence[TaskInfo]) -> RunReport:
    failed = tuple(
        FailedTask(task.task_id, task.try_number, tuple(api.task_log(run.dag_id, run.run_id, task)[-_LOG_LINES:]))
        for task in tasks
        if task.state == "failed"
    )
    return RunReport(
        dag_id=run.dag_id,
        run_id=run.run_id,
        state=run.state,
        seconds=(run.end - run.start).total_seconds() if run.start and run.end else None,
        url=run_url(api, run),
        tasks=tuple(sorted(tasks, key=lambda task: (task.start is None, task.start or run.start, task.task_id))),
        failed=failed,
        outcome="success" if run.state == "success" else "failed",
    )
