"""The operator of steps on YARN, with a minimal ResourceManager and a spark-submit that only prints an ID."""

import base64
import json
import os
import stat
import threading
import time
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
from airflow.exceptions import AirflowException
from airflow.providers.apache.spark.hooks.spark_submit import SparkSubmitHook

from dags.artifacts import Artifact
from dags.dag_entities import Namespace, artifact_tag, instance_tag
from dags.dag_operators import YarnWorkloadOperator, build_dag
from dags.dag_specs import DagSpec, Deployment, StepSpec

STEP = StepSpec("probe", "split", "none", {}, place="yarn")
DAG = DagSpec("probe_alice", "", "none", (STEP,))
INSTANCE = instance_tag("probe_alice", "Run 1", "probe", -1)


class Manager(ThreadingHTTPServer):
    """Applications by id: state, final status and tags. `on_look` is called at each question about one of them."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.applications: dict[str, dict] = {}
        self.killed: list[str] = []
        # Answers to the next questions for the list, before it is told, and whether anybody may end one.
        self.failures: list[int] = []
        self.may_kill = True
        self.ends_at_once: tuple[str, str] | None = None
        self.on_look = lambda name: None

    def add(self, name: str, *tags: str) -> None:
        self.applications[name] = {"id": name, "state": "RUNNING", "finalStatus": "UNDEFINED", "startedTime": 1}
        self.applications[name]["applicationTags"] = ",".join(tag.lower() for tag in tags)


class Handler(BaseHTTPRequestHandler):
    server: Manager

    def log_message(self, *words: object) -> None:
        pass

    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        name = url.path.rpartition("/")[2]
        if name != "apps":
            self.server.on_look(name)
            self._say({"app": self.server.applications[name]})
            return
        if self.server.failures:
            self._say({}, self.server.failures.pop(0))
            return
        query = urllib.parse.parse_qs(url.query)
        states, tag = query.get("states", [""])[0].split(","), query["applicationTags"][0]
        applications = [
            a
            for a in self.server.applications.values()
            if (states == [""] or a["state"] in states) and tag in a["applicationTags"].split(",")
        ]
        self._say({"apps": {"app": applications} if applications else None})

    def do_PUT(self) -> None:
        name = self.path.split("/")[-2]
        self.rfile.read(int(self.headers["Content-Length"]))
        if not self.server.may_kill:
            self._say({}, 403)
            return
        self.server.killed.append(name)
        self.server.applications[name]["state"] = "KILLED"
        self._say({})

    def _say(self, document: dict, status: int = 200) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    server = Manager()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def submissions(manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A spark-submit that writes its words to a file and names application_1_0001."""
    words = tmp_path / "words"
    program = tmp_path / "bin" / "spark-submit"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" >> {words}\n'
        'echo "Submitted application application_1_0001"\necho "queue: application_pool"\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    original = SparkSubmitHook.submit

    def submit(hook: SparkSubmitHook, application: str = "", **options: object) -> str | None:
        application_id = original(hook, application, **options)
        hook._submit_sp.stdout.close()
        manager.add("application_1_0001", INSTANCE, artifact_tag(STEP.identity))
        if manager.ends_at_once:
            state, final = manager.ends_at_once
            manager.applications["application_1_0001"].update(state=state, finalStatus=final)
        return application_id

    monkeypatch.setattr(SparkSubmitHook, "submit", submit)
    return words


@pytest.fixture
def task(manager: Manager, tmp_path: Path) -> YarnWorkloadOperator:
    deployment = Deployment(
        *("r_1", "lab", "alice", "/d", str(tmp_path / "artifacts"), "/files"),
        yarn_url=f"http://127.0.0.1:{manager.server_port}",
        yarn_conf={"spark.yarn.queue": "research", "spark.driver.memory": "2g"},
    )
    task = build_dag(DAG, deployment, "dag_probe").get_task("probe")
    assert isinstance(task, YarnWorkloadOperator)
    return task


def context() -> dict:
    instance = SimpleNamespace(
        map_index=-1, try_number=1, xcom_pull=lambda **question: [], xcom_push=lambda key, value: None
    )
    dag_run = SimpleNamespace(dag_id="probe_alice", run_id="Run 1", clear_number=0)
    return {"run_id": "Run 1", "params": {"force": []}, "ti": instance, "dag_run": dag_run}


def end(manager: Manager, operator: YarnWorkloadOperator, state: str, final: str) -> None:
    def look(name: str) -> None:
        manager.applications[name].update(state=state, finalStatus=final, diagnostics="it broke")
        artifact = Artifact(operator.step_document["output"])
        if final == "SUCCEEDED" and not artifact.is_whole():
            artifact.commit(artifact.begin("x"), {}, replace=False)

    manager.on_look = look


def test_a_step_is_submitted_with_tags_that_say_whose_it_is(
    manager: Manager, task: YarnWorkloadOperator, submissions: Path
) -> None:
    end(manager, task, "FINISHED", "SUCCEEDED")
    task.execute(context())
    words = submissions.read_text().splitlines()
    assert words[words.index("--master") + 1] == "yarn"
    assert words[words.index("--deploy-mode") + 1] == "cluster"
    conf = dict(words[n + 1].split("=", 1) for n, word in enumerate(words) if word == "--conf")
    tags = (*Namespace("alice").task_tags("probe_alice", "Run 1", "probe", -1), artifact_tag(STEP.identity))
    assert conf["spark.yarn.tags"].split(",") == list(tags)
    assert (conf["spark.driver.memoryOverhead"], conf["spark.driver.cores"]) == ("9g", "6")
    assert conf["spark.yarn.maxAppAttempts"] == "1"
    assert (conf["spark.driver.memory"], conf["spark.yarn.queue"]) == ("2g", "research")
    assert "--driver-memory" not in words
    assert json.loads(base64.urlsafe_b64decode(words[-1]))["supervisor_pid"] is None
    assert manager.killed == []


def test_the_application_of_an_earlier_try_is_followed(
    manager: Manager, task: YarnWorkloadOperator, submissions: Path
) -> None:
    manager.add("application_1_0007", "replay", INSTANCE, artifact_tag(STEP.identity))
    manager.add("application_1_0008", instance_tag("probe_alice", "Run 2", "probe", -1))
    end(manager, task, "FINISHED", "SUCCEEDED")
    task.execute(context())
    assert not submissions.exists()


@pytest.mark.parametrize(("state", "final"), [("FAILED", "FAILED"), ("FINISHED", "FAILED"), ("KILLED", "KILLED")])
def test_an_application_that_fails_fails_its_task(
    manager: Manager, task: YarnWorkloadOperator, submissions: Path, state: str, final: str
) -> None:
    end(manager, task, state, final)
    with pytest.raises(RuntimeError, match="it broke"):
        task.execute(context())
    assert manager.killed == []


def test_an_application_that_computes_another_artifact_is_ended_and_not_followed(
    manager: Manager, task: YarnWorkloadOperator, submissions: Path
) -> None:
    manager.add("application_1_0007", INSTANCE, artifact_tag("0123456789abcdef"))
    end(manager, task, "FINISHED", "SUCCEEDED")
    task.execute(context())
    assert manager.killed == ["application_1_0007"]
    assert submissions.exists()


def test_requests_repeat_while_the_manager_is_down(
    manager: Manager, task: YarnWorkloadOperator, submissions: Path
) -> None:
    manager.add("application_1_0007", INSTANCE, artifact_tag(STEP.identity))
    manager.failures = [503, 500, 503]
    end(manager, task, "FINISHED", "SUCCEEDED")
    task.execute(context())
    assert manager.killed == []
    assert not submissions.exists()


def test_if_the_manager_stays_down_the_try_fails_and_leaves_the_application_to_the_next(
    manager: Manager, task: YarnWorkloadOperator, submissions: Path
) -> None:
    manager.add("application_1_0007", INSTANCE, artifact_tag(STEP.identity))
    manager.failures = [503] * 100
    with pytest.raises(requests.HTTPError):
        task.execute(context())
    assert manager.killed == []
    assert not submissions.exists()


def test_a_task_that_is_ended_before_it_submits_submits_nothing(
    manager: Manager, task: YarnWorkloadOperator, submissions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager.failures = [503]
    monkeypatch.setattr(time, "sleep", lambda seconds: task.on_kill())
    with pytest.raises(AirflowException, match="was ended"):
        task.execute(context())
    assert not submissions.exists()


def test_a_task_that_is_ended_while_it_submits_leaves_nothing(
    manager: Manager, task: YarnWorkloadOperator, submissions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to_the_end = SparkSubmitHook.submit

    def submit(hook: SparkSubmitHook, application: str = "", **options: object) -> str | None:
        task.on_kill()
        return to_the_end(hook, application, **options)

    monkeypatch.setattr(SparkSubmitHook, "submit", submit)
    with pytest.raises(AirflowException, match="was ended"):
        task.execute(context())
    assert manager.killed == ["application_1_0001"]


def test_a_manager_that_permits_no_kill_is_reported(
    manager: Manager, task: YarnWorkloadOperator, submissions: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    end(manager, task, "FINISHED", "SUCCEEDED")
    task.execute(context())
    manager.add("application_1_0009", INSTANCE)
    manager.may_kill = False
    task.on_kill()
    assert "application_1_0009 continues; end it with" in "".join(capfd.readouterr())


def test_a_killed_task_ends_only_its_own_applications(
    manager: Manager, task: YarnWorkloadOperator, submissions: Path
) -> None:
    end(manager, task, "FINISHED", "SUCCEEDED")
    task.execute(context())
    manager.add("application_1_0009", INSTANCE)
    manager.add("application_1_0010", "replay")
    task.on_kill()
    assert manager.killed == ["application_1_0009"]


def test_a_task_that_is_killed_before_its_first_request_submits_nothing(
    manager: Manager, task: YarnWorkloadOperator, submissions: Path
) -> None:
    task.on_kill()
    with pytest.raises(AirflowException, match="was ended"):
        task.execute(context())
    assert not submissions.exists()


def test_a_rejected_request_is_not_repeated(manager: Manager, task: YarnWorkloadOperator, submissions: Path) -> None:
    manager.failures = [403, 503]
    with pytest.raises(requests.HTTPError, match="403"):
        task.execute(context())
    assert manager.failures == [503]
    assert not submissions.exists()


def test_an_application_that_has_ended_at_once_is_the_submitted_one(
    manager: Manager, task: YarnWorkloadOperator, submissions: Path
) -> None:
    # Of an earlier try, with other parameters; it takes a while to end.
    manager.may_kill = False
    manager.add("application_1_0000", INSTANCE, artifact_tag("0123456789abcdef"))
    manager.ends_at_once = ("FINISHED", "FAILED")
    with pytest.raises(RuntimeError, match="application_1_0001"):
        task.execute(context())
