"""A step on a real YARN, submitted by a real Airflow on Kubernetes: found by its DAG, followed, ended."""

import contextlib
import json
import os
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

from .lab import STATE, Lab, why_not
from .yarn_jobs import Answer, Workstation

pytestmark = [pytest.mark.integration, pytest.mark.skipif(why_not() is not None, reason=why_not() or "")]

_USER = f"steps-{os.getpid()}"
_DAG = "yarn_probe"
_SHARE = STATE / "share"
_DATA = _SHARE / "SLAMA" / "kaggle_used_cars_dataset"
_MODULE = '''"""One step on YARN."""

from .dag_specs import DagSpec, StepSpec


def dag_specs(namespace):
    step = StepSpec("probe", "split", "none", {"owner": namespace.user, "deep": {"er": {}}}, place="yarn")
    packaged = StepSpec(
        "packaged",
        "combine",
        "none",
        {},
        place="yarn",
        engines=("spark",),
        wheels=("probe_models",),
        jars=("probe_2.12",),
    )
    fails = StepSpec("fails", "evaluate", "none", {"how": "told"}, place="yarn", engine="spark")
    raises = StepSpec("raises", "evaluate", "none", {"how": "raised"}, place="yarn", engine="spark")
    return (
        DagSpec(namespace.dag_id("yarn_probe"), "A step on YARN.", "none", (step,)),
        DagSpec(namespace.dag_id("yarn_fails"), "A step that fails.", "none", (fails,)),
        DagSpec(namespace.dag_id("yarn_raises"), "A step with a fault.", "none", (raises,)),
        DagSpec(namespace.dag_id("yarn_packages"), "A step on YARN with packages.", "none", (packaged,)),
    )
'''
# Reports which wheel driver and executors import, and what is on the path of the driver's classes.
_PACKAGED_WORKLOAD = '''"""Says what its packages are."""

import json

from pyspark.sql import SparkSession


def wheel_of(_row):
    import probe_models

    return probe_models.BUILD, probe_models.__file__


def run(context, output):
    spark = SparkSession.builder.getOrCreate()
    loader = spark._jvm.java.lang.Thread.currentThread().getContextClassLoader()
    report = {
        "driver": wheel_of(None),
        "executors": spark.sparkContext.parallelize(range(2), 2).map(wheel_of).collect(),
        "jar": str(loader.getResource("probe-build.txt")),
    }
    (output.path / "report.json").write_text(json.dumps(report))
    spark.stop()
    return {}
'''
# Needs nothing but Spark, and ends when it is let go.
_WORKLOAD = '''"""Says who it is, and waits."""

import time
from pathlib import Path

from pyspark.sql import SparkSession


def run(context, output):
    spark = SparkSession.builder.getOrCreate()
    print("probe of", context.document["run"]["run_id"], flush=True)
    while not Path(context.data_root, "go-" + context.parameters["owner"]).exists():
        time.sleep(0.5)
    rows = spark.range(10).count()
    (output.path / "rows").write_text(str(rows))
    spark.stop()
    return {"rows": rows}
'''
_FAILING_WORKLOAD = '''"""Fails."""

from .context import StepError


def run(context, output):
    if context.parameters["how"] == "told":
        raise StepError("no such column: rating")
    return {}["missing"]
'''
_CONF = """
spark.yarn.jars=local:/opt/spark/pyspark/jars/*
spark.driver.memory=512m
spark.driver.memoryOverhead=384m
spark.driver.cores=1
spark.executor.memory=512m
spark.executor.instances=1
"""


@dataclass
class Steps:
    """A user whose profile sends steps to YARN."""

    station: Workstation
    lab: Lab
    airflow: str
    token: str = field(repr=False)

    def call(self, *argv: str) -> Answer:
        return self.station.call(*argv)

    def running(self) -> list[dict[str, Any]]:
        answer = self.call("yarn-apps", "--dag", _DAG, "--state", "RUNNING")
        assert answer.code == 0, answer.stderr
        return answer.document["data"]["applications"]

    def upload(self, build: int) -> Answer:
        """A wheel and a jar that know the number of their build."""
        wheel = self.station.home / f"probe_models-1.{build}-py3-none-any.whl"
        name = f"probe_models-1.{build}.dist-info"
        members = {"probe_models/__init__.py": f"BUILD = {build}\n"}
        members |= {f"{name}/METADATA": f"Metadata-Version: 2.1\nName: probe-models\nVersion: 1.{build}\n"}
        members |= {f"{name}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"}
        _write_zip(wheel, members)
        jar = self.station.home / f"probe_2.12-1.{build}.jar"
        _write_zip(jar, {"META-INF/MANIFEST.MF": "Manifest-Version: 1.0\n", "probe-build.txt": str(build)})
        return self.call("upd-wheels-and-jars", "--no-workloads", str(wheel), str(jar))

    def start(self) -> str:
        started = self.call("run", _DAG, "--force", "probe")
        assert started.code == 0, started.stderr
        return started.document["data"]["run_id"]

    def lose_worker(self) -> None:
        """Ends all that runs in the worker's pod, without a chance to end anything else."""
        self.lab.kubectl("-n", "airflow", "exec", self.worker(), "--", "sh", "-c", "kill -9 -1", check=False)

    def worker(self) -> str:
        pods = self.lab.kubectl("-n", "airflow", "get", "pods", "-l", f"dag_id={_DAG}_{_USER}", "-o", "json")
        (name,) = [pod["metadata"]["name"] for pod in json.loads(pods)["items"] if pod["status"]["phase"] == "Running"]
        return name

    def api(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        request = urllib.request.Request(
            f"{self.airflow}/api/v2/dags/{_DAG}_{_USER}/{path}",
            method=method,
            data=json.dumps(body).encode() if body is not None else None,
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or b"{}")

    def task_state(self, run_id: str) -> str | None:
        return self.api("GET", f"dagRuns/{urllib.parse.quote(run_id)}/taskInstances/probe")["state"]


def _write_zip(path: Path, members: dict[str, str]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)


def until(what: str, ready: Any, seconds: float = 180) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := ready()):
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(1)
    return value


@pytest.fixture(scope="module")
def steps(lab: Lab, kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Steps]:
    lab.start_airflow()
    home = tmp_path_factory.mktemp("steps")
    shutil.copytree(ROOT / "dags", home / "dags", ignore=shutil.ignore_patterns("__pycache__", "dag_two_stage*"))
    (home / "dags" / "dag_yarn_probe.py").write_text(_MODULE)
    (home / "dags" / "workloads" / "split.py").write_text(_WORKLOAD)
    (home / "dags" / "workloads" / "combine.py").write_text(_PACKAGED_WORKLOAD)
    (home / "dags" / "workloads" / "evaluate.py").write_text(_FAILING_WORKLOAD)
    address = lab.kubectl("-n", "airflow", "get", "svc/airflow-webserver", "-o", "jsonpath={.spec.clusterIP}")
    airflow = f"http://{address}:8080"
    profile = {
        "user": _USER,
        "airflow": {"url": airflow, "username": "admin", "password_file": str(home / "password")},
        "kubernetes": {"kubeconfig": str(kubeconfig)},
        "folders": {
            "dags": str(_SHARE / "Airflow" / "dags"),
            "spark_submit_files": str(_DATA / "spark_submit_files"),
            "spark_submit_files_in_pods": "/opt/spark_data/spark_submit_files",
            "data_in_pods": "/opt/spark_data",
            "artifacts_in_pods": "/opt/spark_data/replay/experiments",
        },
        "yarn": {
            "url_in_pods": "http://yarn-resourcemanager.spark-lama-exps.svc.cluster.local:8088",
            "spark_conf": _CONF,
        },
    }
    (home / "password").write_text("admin")
    (home / "password").chmod(0o600)
    (home / "replayctl.yaml").write_text(json.dumps({"default_profile": "steps", "profiles": {"steps": profile}}))
    sign_in = urllib.request.Request(
        f"{airflow}/auth/token",
        data=json.dumps({"username": "admin", "password": "admin"}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(sign_in, timeout=30) as answer:
        token = json.loads(answer.read())["access_token"]
    probes = Steps(Workstation(home, kubeconfig, _USER, home), lab, airflow, token)
    uploaded = probes.upload(1)
    assert uploaded.code == 0, uploaded.document
    published = probes.call("sync-dags", "--dags-dir", str(home / "dags"), "--no-wait")
    assert published.code == 0, published.document
    try:
        # An Airflow that has no DAG looks for new ones every five minutes, unless it is restarted.
        lab.kubectl("-n", "airflow", "rollout", "restart", "deploy/airflow-scheduler")
        lab.kubectl("-n", "airflow", "rollout", "status", "deploy/airflow-scheduler", "--timeout=300s")
        until("Airflow shows the DAG", lambda: probes.call("run", _DAG, "--dry-run").code == 0)
        yield probes
    finally:
        probes.call("yarn-kill", "--mine", "--yes")
        # A task outlives its application, and its pod, until Airflow has heard of their end.
        words = ("undeploy", "--delete-from-airflow", "--yes")
        removed = until("the tasks are over", lambda: (answer := probes.call(*words)).code != 7 and answer, 400)
        deleted = sorted(removed.document["data"]["dags_deleted"])
        dags = sorted(f"{name}_{_USER}" for name in ("yarn_fails", "yarn_packages", "yarn_raises", _DAG))
        assert (removed.code, deleted) == (0, dags), removed.document
        (_DATA / f"go-{_USER}").unlink(missing_ok=True)
        shutil.rmtree(_DATA / "replay" / "experiments" / _USER, ignore_errors=True)
        shutil.rmtree(_DATA / "spark_submit_files" / _USER, ignore_errors=True)


def test_a_step_imports_the_wheel_and_the_jar_that_its_release_names(steps: Steps) -> None:
    # What is uploaded later is for the next release.
    uploaded = steps.upload(2)
    assert uploaded.code == 0, uploaded.document
    done = steps.station.call("run", "yarn_packages", "--wait", timeout=900)
    assert done.code == 0, done.document
    (path,) = (_DATA / "replay" / "experiments" / _USER).rglob("report.json")
    report = json.loads(path.read_text())
    builds = {build for build, _ in (report["driver"], *report["executors"])}
    assert builds == {1}, report
    assert all("/probe_models-1.1-py3-none-any.whl/" in file for _, file in (report["driver"], *report["executors"]))
    assert "/probe_2.12-1.1.jar!/" in report["jar"]
    pruned = steps.call("upd-wheels-and-jars", "--prune", "--keep", "1").document["data"]
    assert pruned["removed"] == []
    assert {row["name"] for row in pruned["in_use"]} == {"probe_models-1.1-py3-none-any.whl", "probe_2.12-1.1.jar"}
    assert all(user.endswith(" (published)") for row in pruned["in_use"] for user in row["used_by"])


@pytest.mark.parametrize(
    ("dag", "cause", "line"),
    [
        ("yarn_fails", "StepError: no such column: rating", ""),
        ("yarn_raises", "KeyError: 'missing'", 'File "workloads/evaluate.py", line 9, in run'),
    ],
)
def test_a_failed_run_says_what_the_driver_has_said(steps: Steps, dag: str, cause: str, line: str) -> None:
    failed = steps.station.call("run", dag, "--wait", timeout=900)
    assert failed.code == 1, failed.document
    (error,) = failed.document["errors"]
    (application,) = steps.call("yarn-apps", "--dag", dag).document["data"]["applications"]
    assert error["message"].endswith(f"failed (try 1): {cause}"), (error, failed.stderr)
    assert error["hint"] == f"run `replayctl yarn-logs {application['id']}` to see the complete log"
    assert line in (error["details"] or "")


def test_a_step_is_found_by_its_dag_and_followed_by_the_next_try(steps: Steps) -> None:
    run_id = steps.start()
    (app,) = until("the application runs", steps.running)
    assert app["name"] == f"{_DAG}_{_USER}.probe"
    assert steps.call("yarn-apps", "--mine", "--task", "probe", "--run", run_id).document["data"]["applications"]
    assert steps.call("yarn-apps", "--run", "another").document["data"]["applications"] == []
    words = ("yarn-logs", "--dag", _DAG, "--task", "probe", "--log-files", "stdout")
    until("the driver speaks", lambda: f"\nprobe of {run_id}\n" in "\n" + steps.station.text(*words))
    assert steps.call("yarn-kill", "--orphans", "--yes").document["status"] == "nothing-to-do"

    # The worker is lost without a word; the task is cleared, as people do.
    steps.lose_worker()
    until("the task has failed", lambda: steps.task_state(run_id) == "failed", 400)
    (orphan,) = steps.call("yarn-kill", "--orphans", "--dry-run").document["data"]["applications"]
    assert orphan["id"] == app["id"]
    steps.api("POST", "clearTaskInstances", {"dag_run_id": run_id, "dry_run": False, "only_failed": True})
    until("another try runs", lambda: steps.task_state(run_id) == "running")
    assert steps.call("yarn-kill", "--orphans", "--dry-run").document["status"] == "nothing-to-do"
    (_DATA / f"go-{_USER}").touch()
    until("the task has succeeded", lambda: steps.task_state(run_id) == "success")
    (_DATA / f"go-{_USER}").unlink()
    (only,) = steps.call("yarn-apps", "--dag", _DAG).document["data"]["applications"]
    assert (only["id"], only["final_status"]) == (app["id"], "SUCCEEDED")


def test_what_a_lost_task_has_left_is_ended_as_an_orphan(steps: Steps) -> None:
    run_id = steps.start()
    (app,) = until("the application runs", steps.running)
    steps.lose_worker()
    until("the task has failed", lambda: steps.task_state(run_id) == "failed", 400)
    killed = steps.call("yarn-kill", "--orphans", "--yes")
    assert killed.code == 0, killed.document
    assert [(outcome["id"], outcome["state"]) for outcome in killed.document["data"]["outcomes"]] == [
        (app["id"], "KILLED")
    ]
    assert f"no active task of {_DAG}_{_USER} owns it" in killed.document["data"]["reasons"][app["id"]]


@pytest.mark.parametrize("how", ["failed by hand", "its pod deleted"])
def test_a_task_that_is_ended_ends_its_application(steps: Steps, how: str) -> None:
    run_id = steps.start()
    (app,) = until("the application runs", steps.running)
    if how == "failed by hand":
        path = f"dagRuns/{urllib.parse.quote(run_id)}/taskInstances/probe"
        with contextlib.suppress(urllib.error.HTTPError):
            steps.api("PATCH", path, {"new_state": "failed"})
        assert steps.task_state(run_id) == "failed"
    else:
        steps.lab.kubectl("-n", "airflow", "delete", "pod", steps.worker(), "--wait=false")
    ended = until("the application has ended", lambda: not steps.running())
    assert ended
    (application,) = steps.call("yarn-apps", "--run", run_id).document["data"]["applications"]
    assert (application["id"], application["state"]) == (app["id"], "KILLED")
    answer = steps.call("yarn-logs", "--run", run_id)
    assert answer.document["data"]["causes"][0]["summary"].startswith("the application was killed")
    assert steps.call("yarn-kill", "--run", run_id, "--yes").document["status"] == "nothing-to-do"


def test_orphans_need_the_airflow_that_sends_steps_there(steps: Steps) -> None:
    answer = Workstation(steps.station.home, steps.station.kubeconfig, _USER, ROOT).call("yarn-kill", "--orphans")
    assert answer.code == 3
    assert "airflow.url" in answer.document["errors"][0]["message"]
