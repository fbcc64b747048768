"""Runs: their owners, following them, and messages while they wait."""

import datetime
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dags.dag_entities import Namespace
from replayctl.bundle.stubs import stub_text
from replayctl.clients import airflow_runs
from replayctl.clients.airflow import DagInfo
from replayctl.clients.airflow_runs import RunInfo, TaskInfo, TaskLog
from replayctl.commands import runs as commands
from replayctl.errors import (
    AuthFailed,
    Interrupted,
    NotFound,
    OperationFailed,
    ServerTrouble,
    TimedOut,
    Unreachable,
    UsageProblem,
)
from replayctl.experiments import delays, finding, runs, services
from replayctl.experiments.run_report import FailedTask, FailureCause, RunReport, TaskReport
from replayctl.settings.load import load_settings
from tests.reporters import RecordingReporter

NOW = datetime.datetime(2026, 11, 25, 19, 30, tzinfo=datetime.UTC)
NOTE = {
    "outcome": "reused",
    "parameters": "rank=32",
    "release": "r_1",
    "origin": {"at": NOW.isoformat(), "dag_id": "old"},
}


def task(name: str, state: str | None, *, pool: str = "p") -> TaskInfo:
    return TaskInfo(name, state, 1, -1, 0.6 if state in ("success", "failed") else None, None, pool)


@dataclass
class Airflow:
    """A server with the DAGs of several owners, whose answers come one after the other."""

    url: str = "http://airflow"
    pages: str = url
    owners: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    may_read_code: bool = True
    answers: list[Any] = field(default_factory=list)
    tasks_now: list[TaskInfo] = field(default_factory=list)
    states: dict[str, str] = field(default_factory=lambda: {"scheduler": "healthy"})
    all_runs: list[RunInfo] = field(default_factory=list)
    paused: bool = False
    pool: tuple[int, list[str]] = (1, [])
    stops: int = 0
    stale: bool = False

    def stop_run(self, dag_id: str, run_id: str, *, user: str) -> RunInfo:
        self.stops += 1
        return RunInfo(dag_id, run_id, "failed", NOW, NOW)

    def find_dag(self, dag_id: str) -> DagInfo | None:
        return DagInfo(dag_id, "f", "t", self.paused, self.stale) if dag_id in self.owners else None

    def dags(self) -> list[DagInfo]:
        return [DagInfo(dag_id, self.files.get(dag_id, "f"), "t", False, False) for dag_id in self.owners]

    def dag_source(self, dag_id: str) -> str:
        if not self.may_read_code:
            raise AuthFailed("no")
        return stub_text("dag_x", self.owners[dag_id])

    def run(self, dag_id: str, run_id: str) -> RunInfo:
        if not self.answers:
            raise NotFound(run_id)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, RunInfo) else RunInfo(dag_id, run_id, answer, NOW, NOW)

    def runs(self, dag_id: str, *, states: tuple[str, ...] = (), limit: int = 100) -> list[RunInfo]:
        return [run for run in self.all_runs if not states or run.state in states]

    def tasks(self, dag_id: str, run_id: str) -> list[TaskInfo]:
        return self.tasks_now

    def note(self, dag_id: str, run_id: str, task_id: str) -> dict[str, Any] | None:
        return NOTE

    def task_log(self, dag_id: str, run_id: str, task: TaskInfo) -> TaskLog:
        lines = ("Traceback:", '    raise ValueError("x")', "::group::Post Execute", "::endgroup::")
        return TaskLog(lines, "/logs/attempt=1.log")

    def health(self) -> dict[str, str]:
        return self.states

    def pool_use(self, name: str) -> tuple[int, list[str]]:
        return self.pool


OWNERS = {
    "two_stage_ml1m": "_shared",
    "two_stage_ml1m_bob": "bob",
    "two_stage_ml1m_alice": "alice",
    "two_stage_ml100k_bob": "bob",
    "handmade_alice": "nobody",
}


def test_runs_of_a_dag_whose_file_is_gone_can_still_be_reached() -> None:
    server = Airflow(owners=OWNERS, stale=True)
    dag = finding.find_dag(server, Namespace("alice"), "two_stage_ml1m", with_stale=True)  # type: ignore[arg-type]
    assert dag.dag_id == "two_stage_ml1m_alice"
    with pytest.raises(NotFound, match="has no DAG 'two_stage_ml1m_alice'"):
        finding.find_dag(server, Namespace("alice"), "two_stage_ml1m")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["two_stage_ml1m", "two_stage_ml1m_alice"])
def test_a_dag_is_found_with_and_without_the_suffix(name: str) -> None:
    dag = finding.find_dag(Airflow(owners=OWNERS), Namespace("alice"), name)  # type: ignore[arg-type]
    assert dag.dag_id == "two_stage_ml1m_alice"


@pytest.mark.parametrize(
    ("user", "name"),
    [
        ("alice", "two_stage_ml100k_bob"),
        ("alice", "two_stage_ml100k"),
        ("alice", "handmade"),
        ("carol", "two_stage_ml1m"),
        ("carol", "two_stage_ml1m_bob"),
        (None, "two_stage_ml1m_bob"),
        (None, "handmade_alice"),
    ],
)
def test_a_dag_of_another_namespace_is_never_found(user: str | None, name: str) -> None:
    with pytest.raises(NotFound):
        finding.find_dag(Airflow(owners=OWNERS), Namespace(user), name)  # type: ignore[arg-type]


def test_without_the_right_to_read_code_the_common_namespace_is_closed() -> None:
    server = Airflow(owners=OWNERS, may_read_code=False)
    assert finding.find_dag(server, Namespace("alice"), "two_stage_ml1m")  # type: ignore[arg-type]
    with pytest.raises(NotFound):
        finding.find_dag(server, Namespace(None), "two_stage_ml1m_bob")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["two_stage_ml1n", "Two_Stage_ML1M"])
def test_a_misspelt_name_is_answered_with_the_nearest(name: str) -> None:
    with pytest.raises(NotFound) as excinfo:
        finding.find_dag(Airflow(owners=OWNERS), Namespace("alice"), name)  # type: ignore[arg-type]
    assert excinfo.value.hint == "did you mean two_stage_ml1m?"


def test_of_many_dags_those_that_are_not_shipped_are_named_first() -> None:
    shipped = [f"first_level_{number}_alice" for number in range(10)]
    server = Airflow(owners=dict.fromkeys([*shipped, "shop_alice"], "alice"))
    server.files = dict.fromkeys(shipped, "/dags/dag_two_stage_scenarios_alice.py") | {
        "shop_alice": "/dags/dag_shop_alice.py"
    }
    with pytest.raises(NotFound) as excinfo:
        finding.find_dag(server, Namespace("alice"), "xyz")  # type: ignore[arg-type]
    assert (excinfo.value.hint or "").startswith("use one of your DAGs: shop, first_level_0, ")


def watch(
    server: Airflow,
    reporter: RecordingReporter,
    timeout_s: float = 60,
    is_stopped: Callable[[], bool] = lambda: False,
) -> RunReport:
    started = RunInfo("two_stage_ml1m_alice", "run1", "queued", None, None)
    return runs.watch(
        server,  # type: ignore[arg-type]
        started,
        timeout_s=timeout_s,
        poll_s=0,
        reporter=reporter,
        explain=lambda lines: FailureCause(lines[1].strip(), "what to do"),
        is_stopped=is_stopped,
        sleep=lambda seconds: None,
    )


def test_a_server_that_is_away_for_a_while_does_not_end_the_wait() -> None:
    away = [Unreachable("no answer"), ServerTrouble("HTTP 503"), Unreachable("no answer")]
    reporter = RecordingReporter()
    report = watch(Airflow(answers=["running", *away, "success"]), reporter)
    assert report.outcome == "success"
    assert reporter.messages("warn") == ["no answer; retrying"]
    assert "the server answers again" in reporter.messages("step")


def test_a_refusal_ends_the_wait_at_once() -> None:
    with pytest.raises(OperationFailed, match="HTTP 409"):
        watch(Airflow(answers=["running", OperationFailed("HTTP 409"), "success"]), RecordingReporter())


def test_a_server_that_stays_away_is_waited_for_until_the_time_is_over() -> None:
    with pytest.raises(TimedOut, match="was queued when Airflow last answered, and .* over; no answer") as excinfo:
        watch(Airflow(answers=[Unreachable("no answer")]), RecordingReporter(), timeout_s=0.01)
    assert isinstance(excinfo.value.data, RunReport)
    assert (excinfo.value.data.run_id, excinfo.value.data.outcome) == ("run1", "unfinished")
    assert "replayctl runs follow two_stage_ml1m_alice run1" in (excinfo.value.hint or "")
    assert "replayctl runs stop two_stage_ml1m_alice run1" in (excinfo.value.hint or "")


def test_a_reused_artifact_is_shown_with_its_origin() -> None:
    reporter = RecordingReporter()
    report = watch(Airflow(answers=["success"], tasks_now=[task("als", "success")]), reporter)
    (line,) = [step for step in reporter.messages("step") if step.startswith("als")]
    assert line.startswith("als: reused (rank=32, made Nov 25 ")
    assert line.endswith(" by old) in 0.6s")
    (row,) = report.tasks
    assert (row.outcome, row.made_by, row.made_at, row.release) == ("reused", "old", NOW, "r_1")
    assert report.releases == ("r_1",)


def test_changes_are_reported_in_the_order_in_which_they_happened() -> None:
    def at(seconds: float) -> datetime.datetime:
        return NOW + datetime.timedelta(seconds=seconds)

    tasks = [
        TaskInfo("combine", "upstream_failed", 0, -1, None),
        TaskInfo("als", "running", 1, -1, None, at(3)),
        TaskInfo("poprec", "failed", 1, -1, 1.0, at(3)),
        TaskInfo("split", "success", 1, -1, 2.0, at(0)),
    ]
    reporter = RecordingReporter()
    watch(Airflow(answers=["running", "failed"], tasks_now=tasks), reporter)
    names = [line.partition(":")[0] for line in reporter.messages("step")]
    assert names == ["split", "als", "poprec", "combine"]


def test_a_reused_artifact_is_shown_with_its_first_parameters_only() -> None:
    long = "log_path=replay/ml100k_ratings.csv, file_format=csv, delimiter=,, timestamp_unit=s"
    report = TaskReport("split", "success", 1, 0.1, "reused", long, made_at=NOW, made_by="old")
    assert report.result.startswith("reused (log_path=replay/ml100k_ratings.csv, …, made Nov 25 ")
    assert report.parameters == long


def test_a_failed_task_has_its_log_as_it_was_and_says_where_the_whole_is() -> None:
    report = watch(Airflow(answers=["failed"], tasks_now=[task("als", "failed")]), RecordingReporter())
    (failed,) = report.failed
    assert failed.log_tail == ("Traceback:", '    raise ValueError("x")')
    assert failed.cause == FailureCause('raise ValueError("x")', "what to do")
    assert failed.log_source == "/logs/attempt=1.log"


@pytest.mark.parametrize(
    ("error", "tries"), [(NotFound("no log"), 1), (AuthFailed("not yours"), 1), (ServerTrouble("HTTP 500"), 5)]
)
def test_a_failed_run_is_reported_without_a_log_that_cannot_be_read(error: Exception, tries: int) -> None:
    requests = []

    class WithoutLogs(Airflow):
        def task_log(self, dag_id: str, run_id: str, task: TaskInfo) -> TaskLog:
            requests.append(task.task_id)
            raise error

    server = WithoutLogs(answers=["failed"], tasks_now=[task("als", "failed"), task("split", "success")])
    report = watch(server, RecordingReporter(), timeout_s=5)
    (failed,) = report.failed
    assert (report.outcome, failed.cause, failed.log_tail) == ("failed", None, (f"its log cannot be read: {error}",))
    assert len(requests) == tries


def test_a_log_on_the_server_need_not_be_a_path_that_exists_here() -> None:
    # What a user may not look at raises the same kind of error as a name that is too long.
    failed = FailedTask("als", 1, None, (), f"/root/airflow/{'l' * 300}.log", "http://airflow/log")
    assert commands._problem(failed).hint == "see the complete log: http://airflow/log"


@pytest.mark.parametrize("length", [20, 400])
def test_the_message_of_a_failed_task_is_shown_once(length: int) -> None:
    message = f"StepError: {'x' * length}"
    tail = ("computing als", message)
    failed = FailedTask("als", 1, FailureCause(message, "What it means."), tail, None, "http://log")
    problem = commands._problem(failed)
    assert problem.message == f"task als failed (try 1): {message}"
    assert problem.details == "What it means.\n\ncomputing als"


def test_the_words_of_the_operator_are_shown_without_its_name() -> None:
    tail = ("checking split", "the data of shop have changed")
    failed = FailedTask("split", 1, FailureCause(f"AirflowException: {tail[1]}", ""), tail, None, "http://log")
    problem = commands._problem(failed)
    assert (problem.message, problem.details) == (f"task split failed (try 1): {tail[1]}", tail[0])


def test_the_lines_of_the_cause_come_from_the_log_that_has_it() -> None:
    server = Airflow(answers=["failed"], tasks_now=[task("als", "failed")])
    cause = FailureCause("KeyError: 'x'", "", ("Traceback (most recent call last):", "KeyError: 'x'"))
    report = runs.watch(
        server,  # type: ignore[arg-type]
        server.run("", ""),
        timeout_s=60,
        poll_s=0.5,
        reporter=RecordingReporter(),
        explain=lambda lines: cause,
        sleep=lambda _: None,
    )
    assert report.failed[0].log_tail == cause.excerpt


RUN = RunInfo("two_stage_ml1m_alice", "run1", "running", NOW, None)


@pytest.mark.parametrize(
    ("answers", "stops"),
    [(["failed"], 1), (["failed", "success", "failed"], 2), (["running", "failed", "success", "failed"], 3)],
)
def test_a_stopped_run_stays_stopped(answers: list[str], stops: int) -> None:
    server = Airflow(answers=answers)
    stopped = runs.stop(server, RUN, RecordingReporter(), user="alice", sleep=lambda _seconds: None)  # type: ignore[arg-type]
    assert (stopped.state, server.stops) == ("failed", stops)


def test_a_stopped_run_says_who_stopped_it_and_only_earlier_failures_are_explained() -> None:
    seconds = datetime.timedelta(seconds=1)
    run = RunInfo("d_alice", "run1", "failed", NOW, NOW, stopped_by="alice", stopped_at=NOW + 10 * seconds)
    tasks = [TaskInfo(name, "failed", 1, -1, took, NOW) for name, took in (("bad", 5.0), ("killed", 11.0))]
    reporter = RecordingReporter()
    report = watch(Airflow(answers=[run], tasks_now=tasks), reporter)
    assert [failed.task_id for failed in report.failed] == ["bad"]
    assert "killed: stopped in 11s" in reporter.messages("step")
    result = commands._result("runs follow", report)
    assert [problem.message.partition(" (")[0] for problem in result.problems] == [
        "task bad failed",
        "the run was stopped by alice",
    ]


@pytest.mark.parametrize(
    ("state", "queued_s", "stopped_by"), [("failed", -60, "alice b"), ("failed", 60, None), ("success", -60, None)]
)
def test_the_note_of_a_run_holds_until_it_is_cleared(state: str, queued_s: int, stopped_by: str | None) -> None:
    note = airflow_runs._with_stop("tried lr 0.1", "carol", NOW - datetime.timedelta(hours=1))
    note = airflow_runs._with_stop(note, "alice b", NOW)
    assert note == f"tried lr 0.1\nstopped by alice b with replayctl at {NOW.isoformat()}"
    row = SimpleNamespace(dag_id="d", dag_run_id="r", state=SimpleNamespace(value=state), note=note)
    row.start_date = row.end_date = NOW
    row.queued_at = NOW + datetime.timedelta(seconds=queued_s)
    run = airflow_runs._run_info(row)
    assert (run.stopped_by, run.stopped_at) == (stopped_by, NOW if stopped_by else None)


def test_a_run_that_does_not_stop_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "_STOP_TIMEOUT_S", 0.0)
    server = Airflow(answers=["success"])
    with pytest.raises(OperationFailed, match="does not stop run1 of two_stage_ml1m_alice: its state is success"):
        runs.stop(server, RUN, RecordingReporter(), user="alice", sleep=lambda _seconds: None)  # type: ignore[arg-type]


def why(server: Airflow, state: str, *tasks: TaskInfo) -> str | None:
    run = RunInfo("two_stage_ml1m_alice", "run1", state, None, None)
    server.owners = OWNERS
    return delays.why_waiting(server, run, tasks)  # type: ignore[arg-type]


def test_the_reason_why_a_run_waits_is_shown() -> None:
    busy = Airflow(pool=(1, ["other_dag run0 als"]))
    assert why(busy, "running", task("a", "scheduled")) == (
        "waiting for the only slot of pool p, in use by other_dag run0 als"
    )
    assert why(busy, "running", task("a", "running"), task("b", "scheduled")) is None
    older = Airflow(all_runs=[RunInfo("d", "older", "running", None, None)])
    assert why(older, "queued") == "queued behind older of the same DAG"
    assert why(Airflow(), "running", task("a", "queued")) == "waiting for a worker"
    assert why(Airflow(paused=True), "queued") == "two_stage_ml1m_alice is paused"
    dead = Airflow(states={"scheduler": "unhealthy"})
    assert why(dead, "running", task("a", "running")) == "Airflow's scheduler is unhealthy, so no task is started"


def test_a_run_that_is_older_than_those_listed_is_found_by_its_id() -> None:
    class WithOldRun(Airflow):
        def run(self, dag_id: str, run_id: str) -> RunInfo:
            if run_id != "old":
                raise NotFound(run_id)
            return RunInfo(dag_id, run_id, "success", NOW, NOW)

    server: Any = WithOldRun(all_runs=[RunInfo("d", "new", "success", None, None)])
    dag = DagInfo("d", "", "", False, False)
    assert finding.find_run(server, dag, "old").run_id == "old"
    for run_id, unfinished in (("older", False), ("old", True)):
        with pytest.raises(NotFound, match=f"run '{run_id}'"):
            finding.find_run(server, dag, run_id, unfinished=unfinished)


def test_a_run_is_found_by_the_beginning_of_its_id_and_never_guessed() -> None:
    dag = DagInfo("d", "f", "t", False, False)
    names = ("manual_2", "manual_1", "other")
    server: Any = Airflow(all_runs=[RunInfo("d", name, "running", None, None) for name in names])
    assert finding.find_run(server, dag, None).run_id == "manual_2"
    assert finding.find_run(server, dag, "oth").run_id == "other"
    for name, unfinished in (("manual", False), (None, True)):
        with pytest.raises(UsageProblem, match="matching"):
            finding.find_run(server, dag, name, unfinished=unfinished)
    with pytest.raises(NotFound, match="no run 'x'"):
        finding.find_run(server, dag, "x")


class Interrupts(Airflow):
    """A server whose user presses Ctrl-C after the last answer."""

    def run(self, dag_id: str, run_id: str) -> RunInfo:
        if not self.answers:
            raise KeyboardInterrupt
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return RunInfo(dag_id, run_id, answer, NOW, None)


@pytest.mark.parametrize(
    ("answers", "state"),
    [
        (["running"], "which continues"),
        (["running", Unreachable("no answer")], "which was running when Airflow last answered; no answer"),
    ],
)
def test_ctrl_c_says_what_is_known_and_how_to_follow_and_stop_the_run(answers: list[Any], state: str) -> None:
    with pytest.raises(Interrupted, match=state) as excinfo:
        watch(Interrupts(answers=answers), RecordingReporter())
    assert "replayctl runs follow two_stage_ml1m_alice run1" in (excinfo.value.hint or "")
    assert "replayctl runs stop two_stage_ml1m_alice run1" in (excinfo.value.hint or "")
    assert isinstance(excinfo.value.data, RunReport)
    assert (excinfo.value.data.run_id, excinfo.value.data.outcome) == ("run1", "unfinished")


def test_a_local_stack_that_was_stopped_ends_the_wait() -> None:
    answers = ["running", Unreachable("no answer"), Unreachable("no answer")]
    stopped = iter([False, True])
    with pytest.raises(OperationFailed, match="the local stack was stopped before run run1") as excinfo:
        watch(Airflow(answers=answers), RecordingReporter(), is_stopped=lambda: next(stopped))
    assert "`replayctl local up`, then `replayctl runs follow two_stage_ml1m_alice run1`" in (excinfo.value.hint or "")


def test_only_a_local_stack_is_known_to_be_stopped(clean_environment: Path) -> None:
    assert services.is_stopped(load_settings("local", environ={}, cwd=clean_environment))
    elsewhere = {"REPLAYCTL_AIRFLOW_URL": "http://airflow"}
    assert not services.is_stopped(load_settings("local", environ=elsewhere, cwd=clean_environment))
