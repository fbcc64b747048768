"""Runs of DAGs: starts a run, follows it to its end, and shows what failed."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from replayctl.clients.airflow import AirflowApi, DagInfo
from replayctl.clients.airflow_runs import FINAL_RUN_STATES, RunInfo, TaskInfo
from replayctl.clients.patience import AWAY, wait_until
from replayctl.console.events import Reporter
from replayctl.console.times import short_duration
from replayctl.errors import (
    AuthFailed,
    Interrupted,
    NotFound,
    OperationFailed,
    ReplayctlError,
    ServerTrouble,
    TimedOut,
)
from replayctl.experiments.delays import FOR_A_WORKER, why_waiting
from replayctl.experiments.log_excerpt import failed_application, log_excerpt
from replayctl.experiments.run_report import FailedTask, FailureCause, RunReport, TaskReport

if TYPE_CHECKING:
    from replayctl.experiments.worker_pods import WorkerPods

T = TypeVar("T")
_LOG_LINES = 40
# How often logs are asked for while the server fails on them.
_LOG_TRIES = 5
_SHOWN_STATES = frozenset({"running", "success", "failed", "upstream_failed", "up_for_retry", "skipped"})
# Finding out why a run waits takes several requests.
_ASK_WHY_EVERY_S = 10.0
# What a decision of the scheduler about one run takes at most, on a busy machine.
_SCHEDULING_S = 2.0
_STOP_TIMEOUT_S = 60.0
# Finds the cause in the lines of a task's log, or returns None.
Explain = Callable[[Sequence[str]], FailureCause | None]


def start(
    api: AirflowApi, dag: DagInfo, force: Sequence[str], reporter: Reporter, *, engine: str | None = None
) -> RunInfo:
    """Starts a run of the DAG; `force` are steps to compute again, `engine` overrides the engine of its steps.

    A paused DAG is unpaused first.
    """
    if dag.is_paused:
        reporter.step(f"unpausing {dag.dag_id}")
        api.unpause(dag.dag_id)
    conf: dict[str, object] = {"force": list(force)} if force else {}
    run = api.trigger(dag.dag_id, conf | ({"engine": engine} if engine else {}))
    reporter.step(f"started {dag.dag_id} as {run.run_id}")
    return run


def run_url(api: AirflowApi, run: RunInfo) -> str:
    """The run's page."""
    return f"{api.pages}/dags/{run.dag_id}/runs/{run.run_id}"


def ways_on(run: RunInfo) -> str:
    """The commands that follow and stop a run."""
    words = f"{run.dag_id} {run.run_id}"
    return f"run `replayctl runs follow {words}` to follow it, or `replayctl runs stop {words}` to stop it"


def report_of(api: AirflowApi, run: RunInfo, outcome: Literal["started", "unfinished"] = "started") -> RunReport:
    """The report of a run without waiting for it."""
    return RunReport(run.dag_id, run.run_id, run.state, None, run_url(api, run), (), (), outcome)


def watch(
    api: AirflowApi,
    run: RunInfo,
    *,
    timeout_s: float,
    poll_s: float,
    reporter: Reporter,
    explain: Explain,
    pods: WorkerPods | None = None,
    is_stopped: Callable[[], bool] = lambda: False,
    sleep: Callable[[float], None] = time.sleep,
) -> RunReport:
    """Follows a run to its end, and reports each change of a task and what the run waits for.

    `explain` finds the cause in a failed task's log; `pods` are asked about tasks that have not started. Requests are
    repeated while Airflow is away, unless `is_stopped` knows that it does not come back by itself: OperationFailed.
    Raises TimedOut if the run takes longer than `timeout_s`, Interrupted after Ctrl-C. These errors have the unfinished
    report as their data.
    """
    follower = _Follower(api, reporter, run, explain, pods, is_stopped)
    try:
        return wait_until(
            follower.look,
            follower.late,
            timeout_s=timeout_s,
            poll_s=poll_s,
            # Several requests each time: a server that is busy with the run's tasks is not kept busy by us.
            rest=3.0,
            reporter=reporter,
            sleep=sleep,
        )
    except KeyboardInterrupt:
        raise follower.interrupted() from None


@dataclass
class _Follower:
    api: AirflowApi
    reporter: Reporter
    run: RunInfo
    explain: Explain
    pods: WorkerPods | None = None
    is_stopped: Callable[[], bool] = lambda: False
    seen: dict[tuple[str, int], tuple[str | None, int]] = field(default_factory=dict)
    notes: dict[tuple[str, int], Mapping[str, Any] | None] = field(default_factory=dict)
    why: str | None = None
    asked_at: float = 0.0
    log_troubles: int = 0
    # Why Airflow's last answer is missing.
    trouble: ReplayctlError | None = None

    def look(self) -> RunReport | None:
        """Reports what has changed; returns the report once the run has ended."""
        try:
            report = self._look()
        except AWAY as error:
            self.trouble = error
            if not self.is_stopped():
                raise
            raise OperationFailed(
                f"the local stack was stopped before run {self.run.run_id} of {self.run.dag_id} ended",
                hint=f"run `replayctl local up`, then `replayctl runs follow {self.run.dag_id} {self.run.run_id}`",
                data=self._unfinished(),
            ) from error
        self.trouble = None
        return report

    def _look(self) -> RunReport | None:
        self.run = self.api.run(self.run.dag_id, self.run.run_id)
        tasks = self.api.tasks(self.run.dag_id, self.run.run_id)
        changes = [self._report_change(task) for task in sorted(tasks, key=_last_change)]
        if self.run.state in FINAL_RUN_STATES:
            return self._report(tasks)
        if any(changes):
            self.asked_at = time.monotonic()
            self.why = None
        elif time.monotonic() - self.asked_at >= _ASK_WHY_EVERY_S:
            self._ask_why(tasks)
        done = sum(task.state == "success" for task in tasks)
        running = ", ".join(sorted(task.task_id for task in tasks if task.state == "running"))
        more = f"; running: {running}" if running else f"; {self.why}" if self.why else ""
        self.reporter.status(f"{done} of {len(tasks)} tasks done{more}")
        return None

    def late(self, waited: float, trouble: ReplayctlError | None) -> TimedOut:
        """The error after the timeout."""
        if trouble:
            state = f"was {self.run.state} when Airflow last answered, and {waited:.0f} s are over; {trouble}"
        else:
            state = f"is still {self.run.state} after {waited:.0f} s{f'; {self.why}' if self.why else ''}"
        return TimedOut(
            f"run {self.run.run_id} of {self.run.dag_id} {state}", hint=ways_on(self.run), data=self._unfinished()
        )

    def interrupted(self) -> Interrupted:
        """The error after Ctrl-C."""
        what = "continues"
        if self.trouble is not None:
            what = f"was {self.run.state} when Airflow last answered; {self.trouble}"
        return Interrupted(
            f"stopped waiting for run {self.run.run_id} of {self.run.dag_id}, which {what}",
            hint=ways_on(self.run),
            data=self._unfinished(),
        )

    def _unfinished(self) -> RunReport:
        return report_of(self.api, self.run, "unfinished")

    def _ask_why(self, tasks: Sequence[TaskInfo]) -> None:
        self.asked_at = time.monotonic()
        why = why_waiting(self.api, self.run, tasks)
        if why == FOR_A_WORKER:
            why = self._ask_pods(lambda pods: pods.why_waiting(self.run)) or why
        if why and why != self.why:
            self.reporter.step(why)
        self.why = why

    def _report_change(self, task: TaskInfo) -> bool:
        key, now = (task.task_id, task.map_index), (task.state, task.try_number)
        if self.seen.get(key) == now:
            return False
        self.seen[key] = now
        if task.state not in _SHOWN_STATES:
            return True
        again = f" (try {task.try_number})" if task.try_number > 1 else ""
        ended = task.state in ("success", "failed") and task.seconds is not None
        took = f" in {short_duration(task.seconds or 0.0)}" if ended else ""
        result = self._task_report(task).result if ended else ""
        self.reporter.step(f"{task.task_id}: {result or task.state}{again}{took}")
        return True

    def _note(self, task: TaskInfo) -> Mapping[str, Any]:
        key = (task.task_id, task.try_number)
        if key not in self.notes and task.state in ("success", "failed"):
            self.notes[key] = self.api.note(self.run.dag_id, self.run.run_id, task.task_id)
        return self.notes.get(key) or {}

    def _task_report(self, task: TaskInfo) -> TaskReport:
        note = self._note(task)
        origin = note.get("origin") if isinstance(note.get("origin"), Mapping) else {}
        assert isinstance(origin, Mapping)
        outcome: Any = "stopped" if self._was_stopped(task) else note.get("outcome")
        return TaskReport(
            task.task_id,
            task.state,
            task.try_number,
            task.seconds,
            outcome if outcome in ("computed", "reused", "stopped") else None,
            _text(note.get("parameters")),
            _text(note.get("release")),
            _moment(origin.get("at")),
            _text(origin.get("dag_id")),
            _texts(note.get("warnings")),
        )

    def _report(self, tasks: Sequence[TaskInfo]) -> RunReport:
        run = self.run
        ordered = sorted(tasks, key=lambda task: (task.start is None, task.start or run.start, task.task_id))
        return RunReport(
            dag_id=run.dag_id,
            run_id=run.run_id,
            state=run.state,
            seconds=(run.end - run.start).total_seconds() if run.start and run.end else None,
            url=run_url(self.api, run),
            tasks=tuple(self._task_report(task) for task in ordered),
            failed=tuple(
                self._failed(task) for task in ordered if task.state == "failed" and not self._was_stopped(task)
            ),
            outcome="success" if run.state == "success" else "failed",
            stopped_by=run.stopped_by,
        )

    def _was_stopped(self, task: TaskInfo) -> bool:
        """Whether a task has not failed by itself, but with the stop of the run."""
        stopped_at = self.run.stopped_at
        return task.state == "failed" and stopped_at is not None and (task.end is None or task.end >= stopped_at)

    def _ask_pods(self, question: Callable[[WorkerPods], T | None]) -> T | None:
        """What the pods say, for what it is worth: the run is followed without them, too."""
        if self.pods is None:
            return None
        try:
            return question(self.pods)
        except ReplayctlError as error:
            self.reporter.note(f"cannot look at the pods of tasks: {error}")
            return None

    def _failed(self, task: TaskInfo) -> FailedTask:
        log = self._ask_pods(lambda pods: pods.last_words(self.run, task)) if task.start is None else None
        url = f"{run_url(self.api, self.run)}/tasks/{task.task_id}?try_number={task.try_number}"
        try:
            log = log or self.api.task_log(self.run.dag_id, self.run.run_id, task)
        except (NotFound, AuthFailed, OperationFailed) as error:
            self.log_troubles += 1
            if isinstance(error, ServerTrouble) and self.log_troubles < _LOG_TRIES:
                raise
            # The run has failed, whatever has become of its log.
            return FailedTask(task.task_id, task.try_number, None, (f"its log cannot be read: {error}",), None, url)
        cause = self.explain(log.lines)
        tail = log_excerpt(cause.excerpt if cause and cause.excerpt else log.lines, _LOG_LINES)
        application = failed_application(log.lines)
        return FailedTask(task.task_id, task.try_number, cause, tail, log.source, url, application)


def stop(
    api: AirflowApi,
    run: RunInfo,
    reporter: Reporter,
    *,
    user: str,
    poll_s: float = 0.5,
    sleep: Callable[[float], None] | None = None,
) -> RunInfo:
    """Ends a run as failed, stopped by `user`, and returns it once it stays so.

    A scheduler that is about to judge the run when its tasks are skipped takes it for a success, and writes that over
    the state just set: Airflow locks no rows in SQLite. A finished run is not judged again, so that setting the state
    once more lasts. Raises OperationFailed if the run does not end as failed.
    """
    api.stop_run(run.dag_id, run.run_id, user=user)
    state, reads = "unknown", 0

    def look() -> RunInfo | None:
        nonlocal state, reads
        current = api.run(run.dag_id, run.run_id)
        state, reads = current.state, reads + 1
        if state != "failed":
            reporter.note(f"the scheduler has set {run.run_id} to {state}; stopping it again")
            api.stop_run(run.dag_id, run.run_id, user=user)
            reads = 0
        return current if reads * poll_s >= _SCHEDULING_S else None

    def late(_waited_s: float, trouble: ReplayctlError | None) -> ReplayctlError:
        return trouble or OperationFailed(
            f"Airflow does not stop {run.run_id} of {run.dag_id}: its state is {state}",
            hint=f"check the scheduler, then run `replayctl runs stop {run.dag_id} {run.run_id}`",
        )

    return wait_until(look, late, poll_s=poll_s, timeout_s=_STOP_TIMEOUT_S, reporter=reporter, sleep=sleep)


def _last_change(task: TaskInfo) -> tuple[bool, datetime.datetime, str]:
    """The order in which tasks came into their state; those that have never started are last."""
    moment = task.start if task.state == "running" else task.end or task.start
    return moment is None, moment or datetime.datetime.min.replace(tzinfo=datetime.UTC), task.task_id


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _texts(value: object) -> tuple[str, ...]:
    return tuple(text for text in value if isinstance(text, str)) if isinstance(value, list) else ()


def _moment(value: object) -> datetime.datetime | None:
    try:
        return datetime.datetime.fromisoformat(str(value)) if value else None
    except ValueError:
        return None
