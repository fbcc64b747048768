"""Runs, task instances, logs and notes through Airflow's REST API v2."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from replayctl.clients.airflow_session import PAGE, AirflowSession, quoted
from replayctl.errors import AuthFailed, NotFound

# The key of the XCom in which each task records the outcome of its step (dags/run_notes.py).
_NOTE = "replayctl"
_LIVE_TASK_STATES = (
    *("none", "scheduled", "queued", "running", "restarting"),
    *("up_for_retry", "up_for_reschedule", "deferred", "awaiting_input"),
)
_AIRFLOW = "/site-packages/airflow/"
# What `stop_run` adds to the note of a run: for Airflow both a stopped and a failed run are failed.
_STOPPED = re.compile(r"^stopped by (?P<user>.+) with replayctl at (?P<at>\S+)$", re.MULTILINE)
_NOTE_LENGTH = 1000
FINAL_RUN_STATES = frozenset({"success", "failed"})
LIVE_RUN_STATES = ("queued", "running")


@dataclass(frozen=True, slots=True)
class RunInfo:
    """One run of a DAG; `stopped_by` and `stopped_at` are set if `stop_run` has ended it."""

    dag_id: str
    run_id: str
    state: str
    start: datetime.datetime | None
    end: datetime.datetime | None
    # When it was triggered, or cleared.
    queued: datetime.datetime | None = None
    stopped_by: str | None = None
    stopped_at: datetime.datetime | None = None


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """One task of a run; `start` and `seconds` are of its latest try, None before it has started or ended."""

    task_id: str
    state: str | None
    try_number: int
    map_index: int
    seconds: float | None
    start: datetime.datetime | None = None
    pool: str = ""

    @property
    def end(self) -> datetime.datetime | None:
        """When its latest try ended; None before."""
        if self.start is None or self.seconds is None:
            return None
        return self.start + datetime.timedelta(seconds=self.seconds)


@dataclass(frozen=True, slots=True)
class TaskLog:
    """The lines of a try's log, oldest first, and the path or address from which the server has read them."""

    lines: tuple[str, ...]
    source: str | None


class RunsApi(AirflowSession):
    """DAG runs and their tasks."""

    def trigger(self, dag_id: str, conf: Mapping[str, object]) -> RunInfo:
        """Starts a run. Raises NotFound for an unknown or stale DAG.

        The run has a logical date, by which the scheduler orders equal tasks: older runs come first.
        """
        from airflow_client.client import DagRunApi, TriggerDAGRunPostBody

        # A run with a logical date in the future would wait for it.
        body = TriggerDAGRunPostBody(conf=dict(conf), logical_date=self._now())
        return _run_info(self._call(f"DAG {dag_id}", lambda client: DagRunApi(client).trigger_dag_run(dag_id, body)))

    def run(self, dag_id: str, run_id: str) -> RunInfo:
        """The run as it is now. Raises NotFound if it does not exist."""
        from airflow_client.client import DagRunApi

        return _run_info(self._call(f"run {run_id}", lambda client: DagRunApi(client).get_dag_run(dag_id, run_id)))

    def runs(self, dag_id: str, *, states: Sequence[str] = (), limit: int = PAGE) -> list[RunInfo]:
        """The newest `limit` runs of a DAG (`~`: of all DAGs) in these states, or in any; empty for an unknown DAG."""
        from airflow_client.client import DagRunApi

        runs: list[RunInfo] = []
        while True:
            start = len(runs)
            try:
                page = self._call(
                    f"DAG {dag_id}",
                    # The server returns no more than a page at once, whatever the limit.
                    lambda client, start=start: DagRunApi(client).get_dag_runs(
                        dag_id,
                        state=list(states) or None,
                        order_by=["-run_after"],
                        limit=min(PAGE, limit - start),
                        offset=start,
                    ),
                )
            except NotFound:
                return runs
            runs += [_run_info(run) for run in page.dag_runs]
            if not page.dag_runs or len(runs) >= min(limit, page.total_entries or 0):
                return runs

    def live_runs(self, dag_ids: Sequence[str]) -> list[RunInfo]:
        """The runs of these DAGs that have not ended, oldest first."""
        from airflow_client.client import DagRunApi

        ids, runs, seen = set(dag_ids), [], 0
        while True:
            page = self._call(
                "the live runs",
                lambda client, seen=seen: DagRunApi(client).get_dag_runs(
                    "~", state=list(LIVE_RUN_STATES), order_by=["id"], limit=PAGE, offset=seen
                ),
            )
            runs += [_run_info(run) for run in page.dag_runs if run.dag_id in ids]
            seen += len(page.dag_runs)
            if not page.dag_runs or seen >= (page.total_entries or 0):
                return runs

    def stop_run(self, dag_id: str, run_id: str, *, user: str) -> RunInfo:
        """Ends a run as failed: its running tasks are killed, the others are skipped. Its note then names `user`."""
        from airflow_client.client import DagRunApi, DagRunMutableStates, DAGRunPatchBody

        run = self._call(f"run {run_id}", lambda client: DagRunApi(client).get_dag_run(dag_id, run_id))
        note = _with_stop(run.note or "", user, self._now())
        body = DAGRunPatchBody(state=DagRunMutableStates.FAILED, note=note)
        return _run_info(
            self._call(f"run {run_id}", lambda client: DagRunApi(client).patch_dag_run(dag_id, run_id, body))
        )

    def _now(self) -> datetime.datetime:
        """The time by the server's clock, which signing in reads; at most a second behind it."""
        self._client()
        return datetime.datetime.now(tz=datetime.UTC) + self._ahead

    def note(self, dag_id: str, run_id: str, task_id: str) -> Mapping[str, Any] | None:
        """What a task has recorded of its step: release, artifact, outcome. None without a record.

        None without the permission to read it as well, since nothing depends on it.
        """
        path = f"dags/{quoted(dag_id)}/dagRuns/{quoted(run_id)}/taskInstances/{quoted(task_id)}/xcomEntries/{_NOTE}"
        try:
            value = self._json(f"the note of task {task_id}", path)["value"]
            value = json.loads(value) if isinstance(value, str) else value
        except (NotFound, AuthFailed, ValueError):
            return None
        return value if isinstance(value, Mapping) else None

    def pool_use(self, name: str) -> tuple[int, list[str]]:
        """The number of slots of a pool (-1: no limit), and the tasks that occupy them now, as `DAG run task`."""
        from airflow_client.client import PoolApi, TaskInstanceApi

        pool = self._call(f"pool {name}", lambda client: PoolApi(client).get_pool(name))
        page = self._call(
            f"the tasks of pool {name}",
            lambda client: TaskInstanceApi(client).get_task_instances(
                "~", "~", state=["running", "queued"], pool=[name], limit=PAGE
            ),
        )
        return pool.slots, [f"{row.dag_id} {row.dag_run_id} {row.task_id}" for row in page.task_instances]

    def tasks(self, dag_id: str, run_id: str) -> list[TaskInfo]:
        """The task instances of a run, in no particular order."""
        from airflow_client.client import TaskInstanceApi

        tasks: list[TaskInfo] = []
        while True:
            start = len(tasks)
            page = self._call(
                f"run {run_id}",
                lambda client, start=start: TaskInstanceApi(client).get_task_instances(
                    dag_id, run_id, limit=PAGE, offset=start
                ),
            )
            tasks += [
                TaskInfo(
                    row.task_id,
                    row.state and row.state.value,
                    row.try_number,
                    row.map_index,
                    row.duration,
                    row.start_date,
                    row.pool,
                )
                for row in page.task_instances
            ]
            if len(tasks) >= (page.total_entries or 0) or not page.task_instances:
                return tasks

    def live_tries(self, dag_ids: Sequence[str]) -> list[datetime.datetime]:
        """When each running try of these DAGs started; tries that wait for a worker are not included."""
        from airflow_client.client import TaskInstanceApi

        starts: list[datetime.datetime] = []
        for dag_id in dag_ids:
            seen = 0
            while True:
                try:
                    page = self._call(
                        f"DAG {dag_id}",
                        lambda client, dag_id=dag_id, seen=seen: TaskInstanceApi(client).get_task_instances(
                            dag_id, "~", state=["running", "restarting"], limit=PAGE, offset=seen
                        ),
                    )
                except NotFound:
                    # It was deleted meanwhile, so it has no running tasks.
                    break
                starts += [row.start_date for row in page.task_instances if row.start_date]
                seen += len(page.task_instances)
                if not page.task_instances or seen >= (page.total_entries or 0):
                    break
        return starts

    def live_instances(self) -> Iterator[tuple[str, str, str, int]]:
        """Every task instance that has not ended, of all users: its DAG, run, task and map index."""
        from airflow_client.client import TaskInstanceApi

        seen = 0
        while True:
            page = self._call(
                "the live tasks",
                lambda client, seen=seen: TaskInstanceApi(client).get_task_instances(
                    "~", "~", state=list(_LIVE_TASK_STATES), limit=PAGE, offset=seen, order_by=["id"]
                ),
            )
            for row in page.task_instances:
                yield row.dag_id, row.dag_run_id, row.task_id, row.map_index
            seen += len(page.task_instances)
            if not page.task_instances or seen >= (page.total_entries or 0):
                return

    def task_log(self, dag_id: str, run_id: str, task: TaskInfo) -> TaskLog:
        """The log of one try, including the tracebacks of its errors."""

        path = (
            f"dags/{quoted(dag_id)}/dagRuns/{quoted(run_id)}/taskInstances/{quoted(task.task_id)}/logs/"
            f"{task.try_number}?map_index={task.map_index}&full_content=true"
        )
        content = self._json(f"the log of task {task.task_id}", path)["content"]
        lines: list[str] = []
        for row in content:
            if isinstance(row, dict):
                lines += _lines_of(row)
            else:
                lines.append(str(row))
        # A group of lines before the output of the task.
        named = lines[:2] if lines[:1] == ["::group::Log message source details"] else []
        return TaskLog(tuple(lines), named[1] if len(named) > 1 and named[1] != "::endgroup::" else None)


def _run_info(run: Any) -> RunInfo:
    info = RunInfo(run.dag_id, run.dag_run_id, run.state.value, run.start_date, run.end_date, run.queued_at)
    stop = _STOPPED.search(run.note or "")
    if info.state != "failed" or stop is None:
        return info
    try:
        at = datetime.datetime.fromisoformat(stop["at"])
        # The note stays when the run is cleared, and so begins again.
        is_old = info.queued is not None and info.queued > at
    except (ValueError, TypeError):
        return info
    return info if is_old else replace(info, stopped_by=stop["user"], stopped_at=at)


def _with_stop(note: str, user: str, at: datetime.datetime) -> str:
    """The note of a run, with the line that says who has stopped it instead of an earlier one."""
    line = f"stopped by {user} with replayctl at {at.isoformat(timespec='seconds')}"
    others = _STOPPED.sub("", note).strip()
    return f"{others}\n{line}" if others and len(others) + len(line) < _NOTE_LENGTH else line


def _lines_of(row: Mapping[str, Any]) -> Iterator[str]:
    """A structured log line as text: its message and the chain of exceptions, the outermost last.

    Airflow's own frames are omitted, since they would push the task's output out of sight.
    """
    yield from str(row.get("event", "")).splitlines() or [""]
    details = row.get("error_detail")
    for error in reversed(details) if isinstance(details, list) else ():
        frames = [frame for frame in error.get("frames") or () if _AIRFLOW not in str(frame.get("filename"))]
        if frames:
            yield "Traceback (most recent call last):"
        for frame in frames:
            yield f'  File "{frame.get("filename")}", line {frame.get("lineno")}, in {frame.get("name")}'
        yield from f"{error.get('exc_type')}: {error.get('exc_value')}".splitlines()
