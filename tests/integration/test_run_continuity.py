"""Deploys during runs, on a real Airflow: a run keeps its release, a cleared task runs the new code."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from replayctl.clients.airflow import AirflowApi
from replayctl.local.capacity import LOCAL_POOL
from tests.conftest import ROOT

from .conftest import Stack
from .test_local_stack import wait_for

pytestmark = pytest.mark.integration
DAG = "probe_vera"
_WORKLOAD = '''"""Writes its value, once a file is there."""

import time
from pathlib import Path


def run(context, output):
    """Waits for its gate, and fails when it is told to."""
    while not Path(context.parameters["gate"]).exists():
        time.sleep(0.1)
    if context.parameters["broken"]:
        raise RuntimeError("told to fail")
    (output.path / "value").write_text(str(context.parameters["value"]))
    return {"value": context.parameters["value"]}
'''
_MODULE = '''"""Three steps, one after the other; and one alone."""

from .dag_specs import DagSpec, StepSpec


def dag_specs(namespace):
    """Two DAGs."""

    def step(name, value, broken, *inputs):
        parameters = {{"gate": {gate!r}, "value": value, "broken": broken}}
        return StepSpec(name, "probe", "probe", parameters, inputs)

    a = step("a", {a}, False)
    b = step("b", {b}, {broken}, a)
    c = step("c", 0, False, b)
    single = step("single", {a}, False)
    return (
        DagSpec(namespace.dag_id("probe"), "", "e", (a, b, c)),
        DagSpec(namespace.dag_id("single"), "", "e", (single,)),
    )
'''


class Probe:
    """The DAG of three steps, deployed for vera."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        from replayctl.local.stack import airflow_api
        from replayctl.settings.load import load_settings

        self.gate = folder / "gate"
        self.dags = folder / "dags"
        shutil.copytree(ROOT / "dags", self.dags, ignore=shutil.ignore_patterns("__pycache__", "dag_two_stage*"))
        (self.dags / "workloads" / "probe.py").write_text(_WORKLOAD)
        environ = {**stack.environ, "USERNAME_ON_CLUSTER": "vera"}
        self.stack = replace(stack, dags=self.dags, environ=environ)
        self.api: AirflowApi = airflow_api(load_settings(None, environ=environ, cwd=ROOT))

    def deploy(self, *, a: int, b: int = 0, broken: bool = False) -> Any:
        text = _MODULE.format(gate=str(self.gate), a=a, b=b, broken=broken)
        (self.dags / "dag_probe.py").write_text(text)
        answer = self.stack.deploy()
        assert answer.code == 0, answer.document["errors"]
        return answer.data

    def start(self, dag: str = "probe") -> str:
        answer = self.stack.call("run", dag)
        assert answer.code == 0, answer.document["errors"]
        return str(answer.data["run_id"])

    def end(self, run_id: str, dag: str = "probe") -> Any:
        return self.stack.call("runs", "follow", dag, run_id, "--timeout", "400").data

    def wait_until(self, state: str, run_id: str, task: str, dag_id: str = DAG) -> None:
        wait_for(lambda: any(t.state == state for t in self.api.tasks(dag_id, run_id) if t.task_id == task), 200)

    def wait_until_running(self, run_id: str, task: str) -> None:
        self.wait_until("running", run_id, task)

    def clear(self, run_id: str, *tasks: str) -> None:
        from airflow_client.client import ClearTaskInstancesBody, ClearTaskInstancesBodyTaskIdsInner, TaskInstanceApi

        body = ClearTaskInstancesBody(
            dag_run_id=run_id,
            task_ids=[ClearTaskInstancesBodyTaskIdsInner(task) for task in tasks],
            dry_run=False,
            only_failed=False,
            include_downstream=True,
            reset_dag_runs=True,
        )
        TaskInstanceApi(self.api._client()).post_clear_task_instances(DAG, body)

    def releases(self, report: Any) -> dict[str, str]:
        return {task["task_id"]: task["release"] for task in report["tasks"]}


@pytest.fixture(scope="module")
def probe(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Probe:
    return Probe(stack, tmp_path_factory.mktemp("probe"))


def test_a_run_goes_on_with_the_release_it_began_with(probe: Probe) -> None:
    first = probe.deploy(a=1)["release"]
    run_id = probe.start()
    probe.wait_until_running(run_id, "a")
    deployed = probe.deploy(a=2, b=2)
    assert [(run["dag_id"], run["run_id"]) for run in deployed["runs"]] == [(DAG, run_id)]
    releases = probe.stack.call("gc", "--keep", "1", "--dry-run").data
    assert first in releases["kept"]
    probe.gate.touch()
    report = probe.end(run_id)
    assert report["state"] == "success"
    assert probe.releases(report) == dict.fromkeys("abc", first)
    values = {path.read_text() for path in (probe.stack.home / "artifacts" / "vera").glob("probe/probe/*/value")}
    assert {"1", "0"} <= values
    assert "2" not in values


def test_a_cleared_task_runs_the_new_code_and_those_after_it_follow(probe: Probe) -> None:
    probe.gate.touch()
    before = probe.deploy(a=3, b=3, broken=True)["release"]
    run_id = probe.start()
    report = probe.end(run_id)
    assert {task["task_id"]: task["state"] for task in report["tasks"]} == {
        "a": "success",
        "b": "failed",
        "c": "upstream_failed",
    }
    (failed,) = report["failed"]
    assert any("RuntimeError: told to fail" in line for line in failed["log_tail"])
    assert any(line.startswith('  File "workloads/probe.py", line ') for line in failed["log_tail"])
    assert any(line.strip().startswith("raise RuntimeError(") for line in failed["log_tail"])
    assert Path(failed["log_source"]).is_file()
    after = probe.deploy(a=3, b=3)["release"]
    probe.clear(run_id, "b")
    report = probe.end(run_id)
    assert report["state"] == "success"
    assert probe.releases(report) == {"a": before, "b": after, "c": after}


def test_a_cleared_task_whose_input_has_moved_says_what_to_clear(probe: Probe) -> None:
    probe.gate.touch()
    probe.deploy(a=4, b=4, broken=True)
    run_id = probe.start()
    probe.end(run_id)
    after = probe.deploy(a=5, b=4)["release"]
    probe.clear(run_id, "b")
    report = probe.end(run_id)
    (failed,) = report["failed"]
    log_tail = "\n".join(failed["log_tail"])
    assert "input a has changed from" in log_tail
    assert "value 4 → 5" in log_tail
    assert "clear a too" in log_tail
    probe.clear(run_id, "a")
    report = probe.end(run_id)
    assert report["state"] == "success"
    assert probe.releases(report) == dict.fromkeys("abc", after)


def test_the_next_run_reports_what_it_reuses(probe: Probe) -> None:
    probe.gate.touch()
    probe.deploy(a=7, b=4)
    assert probe.end(probe.start())["state"] == "success"
    report = probe.end(probe.start())
    assert {task["outcome"] for task in report["tasks"]} == {"reused"}
    assert {task["made_by"] for task in report["tasks"]} == {DAG}


def test_changed_code_of_a_workload_is_never_ignored(probe: Probe) -> None:
    probe.gate.touch()
    workload = probe.dags / "workloads" / "probe.py"
    probe.deploy(a=8, b=4)
    assert probe.end(probe.start())["state"] == "success"
    workload.write_text(_WORKLOAD.replace("Waits for its gate", "Other words"))
    probe.deploy(a=8, b=4)
    assert {task["outcome"] for task in probe.end(probe.start())["tasks"]} == {"reused"}
    workload.write_text(_WORKLOAD.replace("    if context", '    raise RuntimeError("noticed")\n    if context'))
    probe.deploy(a=8, b=4)
    report = probe.end(probe.start())
    assert report["state"] == "failed"
    assert any("RuntimeError: noticed" in line for line in report["failed"][0]["log_tail"])
    workload.write_text(_WORKLOAD)


def test_a_run_that_is_stopped_ends_with_its_tasks(probe: Probe) -> None:
    probe.gate.unlink(missing_ok=True)
    probe.deploy(a=6)
    run_id = probe.start()
    probe.wait_until_running(run_id, "a")
    waited = probe.stack.call("runs", "follow", "probe", "--timeout", "1")
    assert waited.code == 8
    assert waited.data["run_id"] == run_id
    stopped = probe.stack.call("runs", "stop", "probe")
    assert (stopped.code, stopped.data["state"]) == (0, "failed")
    assert probe.end(run_id)["state"] == "failed"
    assert probe.stack.call("runs", "stop", "probe").code == 6
    listed = probe.stack.call("runs", "list", "probe").data["runs"]
    assert listed[0]["run_id"] == run_id


@pytest.fixture
def one_slot(probe: Probe) -> Iterator[None]:
    """Only one step at a time fits into the machine."""
    slots, _ = probe.api.pool_use(LOCAL_POOL)
    probe.api.ensure_pool(LOCAL_POOL, 1, "Steps that fit into this machine at once")
    try:
        yield
    finally:
        # What waits in a failed test would keep its slot.
        probe.gate.touch()
        probe.api.ensure_pool(LOCAL_POOL, slots, "Steps that fit into this machine at once")


@pytest.mark.usefixtures("one_slot")
def test_of_runs_that_wait_the_older_one_comes_first_and_a_waiting_one_says_why(probe: Probe) -> None:
    probe.gate.unlink(missing_ok=True)
    probe.deploy(a=10, b=10)
    blocking = probe.start("single")
    probe.wait_until("running", blocking, "single", "single_vera")
    older = probe.start("single")
    probe.wait_until("scheduled", older, "single", "single_vera")
    # More follows its first task, by which Airflow would let it overtake.
    newer = probe.start()
    probe.wait_until("scheduled", newer, "a")
    waiting = probe.stack.call("runs", "follow", "probe", newer, "--timeout", "12")
    assert waiting.code == 8, waiting.document
    (error,) = waiting.document["errors"]
    assert f"waiting for the only slot of pool {LOCAL_POOL}" in error["message"]
    assert f"single_vera {blocking} single" in error["message"]
    assert waiting.data["run_id"] == newer
    probe.gate.touch()
    reports = [probe.end(blocking, "single"), probe.end(older, "single"), probe.end(newer)]
    assert [report["state"] for report in reports] == ["success"] * 3
    started = [
        next(task.start for task in probe.api.tasks(dag_id, run_id) if task.task_id == name)
        for dag_id, run_id, name in (("single_vera", older, "single"), (DAG, newer, "a"))
    ]
    assert started[0] < started[1]
