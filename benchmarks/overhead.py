"""What a task on the cluster costs beside its computation, on the tests' lab: `python -m benchmarks overhead`.

Three steps that compute next to nothing, one after another: a process in a pod, Spark in a pod, Spark on YARN. The
times are Airflow's (queued, started, ended), Kubernetes' (pod made, container started), the step's own (its manifest),
and the ResourceManager's. IMAGE is the tag of a worker's image in the lab's registry.
"""

import contextlib
import itertools
import json
import os
import shutil
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from dags.artifacts import Artifact
from dags.dag_entities import Namespace
from tests.conftest import ROOT
from tests.integration.lab import STATE, Lab
from tests.integration.yarn_jobs import Workstation

_USER = f"overhead-{os.getpid()}"
_DAG = "overhead"
_SHARE = STATE / "share"
_DATA = _SHARE / "SLAMA" / "kaggle_used_cars_dataset"
_ARTIFACTS = f"/tmp/replayctl-{_USER}"  # noqa: S108 - on HDFS
_STEPS = ("process", "spark", "yarn")
_MODULE = '''"""Steps that compute next to nothing, one after another."""

from .dag_specs import DagSpec, StepSpec


def dag_specs(namespace):
    """One DAG."""
    process = StepSpec("process", "split", "none", {"spark": False}, engine="embedded")
    spark = StepSpec("spark", "split", "none", {"spark": True}, (process,), engine="spark")
    yarn = StepSpec("yarn", "split", "none", {"spark": True, "on": "yarn"}, (spark,), place="yarn", engine="spark")
    return (DagSpec(namespace.dag_id("overhead"), "Overhead.", "none", (process, spark, yarn)),)
'''
_WORKLOAD = '''"""Says when it has begun, and when Spark could be used."""

import time


def run(context, output):
    times = {"begun": time.time()}
    if context.parameters["spark"]:
        from pyspark.sql import SparkSession

        spark = SparkSession.builder.getOrCreate()
        times["session"] = time.time()
        spark.range(10).count()
        times["counted"] = time.time()
        spark.stop()
    output.add("nothing", b"")
    return times
'''
_CONF = """
spark.yarn.jars=local:/opt/spark/pyspark/jars/*
spark.driver.memory=512m
spark.driver.memoryOverhead=384m
spark.driver.cores=1
spark.executor.memory=512m
spark.executor.instances=1
spark.pyspark.python=/usr/bin/python3
spark.pyspark.driver.python=/usr/bin/python3
"""


@dataclass
class _Watch:
    """When the pods of the tasks were made and their containers started, by task."""

    lab: Lab
    selector: str
    pods: dict[str, tuple[float, float]] = field(default_factory=dict)

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        over = threading.Event()

        def look() -> None:
            while not over.wait(0.5):
                words = ("-n", "airflow", "get", "pods", "-l", self.selector, "-o", "json")
                for pod in json.loads(self.lab.kubectl(*words))["items"]:
                    statuses = pod["status"].get("containerStatuses") or [{}]
                    state = statuses[0].get("state", {})
                    started = (state.get("running") or state.get("terminated") or {}).get("startedAt")
                    if started:
                        created = _unix(pod["metadata"]["creationTimestamp"])
                        self.pods[pod["metadata"]["labels"]["task_id"]] = created, _unix(started)

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def run(lab: Lab) -> None:
    """Deploys the DAG under a user of its own, runs it, prints a row for each step, and takes everything back."""
    if "IMAGE" not in os.environ:
        print("overhead: not measured: IMAGE is not set to a tag of the worker's image in the lab's registry")
        return
    with tempfile.TemporaryDirectory() as folder:
        station = _station(lab, Path(folder))
        try:
            _measured(lab, station)
        finally:
            station.call("runs", "stop", _DAG)
            # As long as a task runs, its DAG cannot go.
            while station.call("undeploy", "--delete-from-airflow", "--yes", timeout=400).code == 7:
                time.sleep(2)
            _artifacts(lab).folder.delete()


def _station(lab: Lab, home: Path) -> Workstation:
    shutil.copytree(ROOT / "dags", home / "dags", ignore=shutil.ignore_patterns("__pycache__", "dag_two_stage*"))
    (home / "dags" / "dag_overhead.py").write_text(_MODULE)
    (home / "dags" / "workloads" / "split.py").write_text(_WORKLOAD)
    # A node that others use has no whole core to promise, and waiting for one is no overhead of ours.
    pods = home / "dags" / "dag_pods.py"
    pods.write_text(pods.read_text().replace('"cpu": str(resources.cores)', '"cpu": "0"'))
    address = lab.kubectl("-n", "airflow", "get", "svc/airflow-webserver", "-o", "jsonpath={.spec.clusterIP}")
    profile = {
        "user": _USER,
        "airflow": {"url": f"http://{address}:8080", "username": "admin", "password_file": str(home / "password")},
        "folders": {
            "dags": str(_SHARE / "Airflow" / "dags"),
            "spark_submit_files": str(_DATA / "spark_submit_files"),
            "spark_submit_files_in_pods": "/opt/spark_data/spark_submit_files",
            "data_in_pods": "/opt/spark_data",
            "artifacts_in_pods": f"hdfs://hdfs-namenode.hdfs-3.svc.cluster.local:9000{_ARTIFACTS}",
        },
        "hdfs": {"url_in_pods": "http://hdfs-namenode.hdfs-3.svc.cluster.local:9870"},
        "pods": {"default": "1/2", "submit": "1/2"},
        "images": {"worker": "localhost:5000/airflow-worker", "pods": os.environ["IMAGE"]},
        "yarn": {
            "url_in_pods": "http://yarn-resourcemanager.spark-lama-exps.svc.cluster.local:8088",
            "spark_conf": _CONF,
        },
    }
    (home / "password").write_text("admin")
    (home / "password").chmod(0o600)
    (home / "replayctl.yaml").write_text(json.dumps({"default_profile": "lab2", "profiles": {"lab2": profile}}))
    return Workstation(home, STATE / "kubeconfig", _USER, home)


def _measured(lab: Lab, station: Workstation) -> None:
    answer = station.call("sync-dags", "--dags-dir", str(station.home / "dags"), "--wait", timeout=600)
    assert answer.code == 0, answer.document
    watch = _Watch(lab, f"dag_id={Namespace(_USER).dag_id(_DAG)}")
    with watch():
        answer = station.call("run", _DAG, "--wait", timeout=900)
    assert answer.code == 0, answer.document
    tasks = _tasks(station)
    folder = _artifacts(lab).folder / _USER / "none" / "split"
    recorded = [Artifact.at(folder / name).manifest() for name in folder.entries()]
    manifests: dict[str, Any] = {manifest["run"]["task_id"]: manifest for manifest in recorded}  # type: ignore[index]
    print("| step | queue | pod | Airflow in it | to the step | Spark | first job | to the task's end | all |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in _STEPS:
        print(_row(name, tasks[name], watch.pods[name], manifests[name]))
    print(_applications(lab))


def _row(name: str, task: Mapping[str, Any], pod: tuple[float, float], manifest: Mapping[str, Any]) -> str:
    queued, started, ended = (_unix(task[key]) for key in ("queued_when", "start_date", "end_date"))
    times = manifest["results"]
    session, counted = times.get("session", times["begun"]), times.get("counted", times["begun"])
    marks = (queued, *pod, started, times["begun"], session, counted, ended)
    steps = [after - before for before, after in itertools.pairwise(marks)]
    return f"| {name} | {' | '.join(f'{max(0.0, step):.1f} s' for step in (*steps, ended - queued))} |"


def _artifacts(lab: Lab) -> Artifact:
    """The folder of all artifacts, as this machine reaches it."""
    address = lab.kubectl("-n", "hdfs-3", "get", "svc/hdfs-namenode", "-o", "jsonpath={.spec.clusterIP}")
    return Artifact(f"hdfs://{address}:9000{_ARTIFACTS}", {"url": f"http://{address}:9870", "user": _USER})


def _tasks(station: Workstation) -> dict[str, dict[str, Any]]:
    profile = json.loads((station.home / "replayctl.yaml").read_text())["profiles"]["lab2"]
    address = profile["airflow"]["url"]
    sign_in = json.dumps({"username": "admin", "password": "admin"}).encode()
    token = _ask(f"{address}/auth/token", {"Content-Type": "application/json"}, sign_in)["access_token"]
    path = f"{address}/api/v2/dags/{Namespace(_USER).dag_id(_DAG)}/dagRuns/~/taskInstances"
    rows = _ask(path, {"Authorization": f"Bearer {token}"})["task_instances"]
    return {row["task_id"]: row for row in rows}


def _applications(lab: Lab) -> str:
    """The ResourceManager's times of our application: how long it was accepted, how long it ran."""
    path = "/api/v1/namespaces/spark-lama-exps/services/yarn-resourcemanager:8088/proxy/ws/v1/cluster/apps"
    rows = json.loads(lab.kubectl("get", "--raw", path))["apps"]["app"]
    row = max((row for row in rows if _USER in row["applicationTags"]), key=lambda row: row["startedTime"])
    accepted = (row["launchTime"] - row["startedTime"]) / 1000
    return (
        f"YARN: {accepted:.1f} s until launched, {(row['finishedTime'] - row['launchTime']) / 1000:.1f} s until ended"
    )


def _ask(url: str, headers: dict[str, str], data: bytes | None = None) -> dict[str, Any]:
    request = urllib.request.Request(url, data, headers)  # noqa: S310 - an address of the lab's
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        return dict(json.load(answer))


def _unix(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
