"""The whole path on the cluster: image, deploy over ssh, a run in pods, and results equal to those of this machine."""

import contextlib
import grp
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.conftest import CACHE_DIR, ROOT
from tests.sshd import WHY_NOT, SshServer

from .conftest import SMALL_MODULE, Stack
from .lab import STATE, Lab, why_not
from .nodes import Node
from .test_images import docker
from .yarn_jobs import Answer, Workstation, submit

# The lab brings its own engine, which need not be there yet.
_REASON = why_not() or WHY_NOT
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(_REASON is not None, reason=_REASON or ""),
]

_USER = f"cluster-{os.getpid()}"
_DAG = "two_stage_sample"
_BUILDER = "cluster-tests"
_SHARE = STATE / "share"
_DATA = _SHARE / "SLAMA" / "kaggle_used_cars_dataset"
_DAGS = _SHARE / "Airflow" / "dags"
_WRITTEN = (_DAGS, _DAGS / ".airflowignore", _DAGS / "replayctl_releases", _DATA / "spark_submit_files")
_ON_YARN = {"first_level_poprec", "first_level_itemknn", "combine"}
_ARTIFACTS = f"/shared/replay/experiments/{_USER}"
# Says where driver and executor run, after LightGBM has found its OpenMP.
_PROBE = """
import json, os, sys
def place(_):
    import lightgbm
    return [os.readlink("/proc/self/exe"), os.path.realpath(sys.executable), os.path.realpath(sys.base_prefix)]
print(json.dumps({"driver": place(0), "executor": spark.sparkContext.parallelize([0], 1).map(place).first()}))
spark.stop()
"""
_STEPS = {
    *("split", "first_level_poprec", "first_level_itemknn", "combine", "second_level_lightgbm", "evaluate"),
}


@dataclass
class Cluster:
    """A user of profile `lab` who has the image that was pushed, and what the cluster's servers saw of a run."""

    station: Workstation
    builder: Workstation
    lab: Lab
    digest: str
    archive: str
    pods: dict[str, str] = field(default_factory=dict)
    unpacked: set[str] = field(default_factory=set)

    def call(self, *argv: str, timeout: float = 900) -> Answer:
        return self.station.call(*argv, timeout=timeout)

    def hdfs(self, *words: str) -> str:
        """Output of `hdfs dfs` in the NameNode's pod."""
        return self.lab.kubectl("-n", "hdfs-3", "exec", "hdfs-namenode-0", "--", "hdfs", "dfs", *words)

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Records the image that each task's pod ran, as its node reports it."""
        line = r'{.metadata.labels.task_id} {.status.containerStatuses[0].imageID}{"\n"}'
        argv = ["-n", "airflow", "get", "pods", "-l", f"dag_id={_DAG}_{_USER}", "--watch", "-o", f"jsonpath={line}"]
        program = [str(self.lab.folder / "cluster"), "kubectl", *argv]
        with subprocess.Popen(program, stdout=subprocess.PIPE, text=True, start_new_session=True) as watch:
            try:
                yield
            finally:
                # The program that it has started, too.
                os.killpg(watch.pid, signal.SIGTERM)
                assert watch.stdout is not None
                rows = [row.split(" ") for row in watch.stdout.read().splitlines()]
                self.pods |= {row[0]: row[1] for row in rows if len(row) == 2 and row[1]}


@pytest.fixture(scope="module")
def storage_host() -> Iterator[SshServer]:
    """The machine behind ssh that has the shared folder, where a user without root may write."""
    server = SshServer.start(_USER)
    group = grp.getgrnam("rctl-tests").gr_gid if server.people else -1
    before = {path: path.stat() for path in _WRITTEN if path.exists() and server.people}
    for path, state in before.items():
        os.chown(path, -1, group)
        path.chmod(state.st_mode | (0o2070 if path.is_dir() else 0o060))
    try:
        yield server
    finally:
        for path, state in before.items():
            with contextlib.suppress(FileNotFoundError):
                os.chown(path, -1, state.st_gid)
                path.chmod(state.st_mode & 0o7777)
        server.stop()


def _start(lab: Lab) -> None:
    """Starts what the lab lacks; fails with the name of a part that is missing, before the image is built."""
    lab.start_airflow()
    lab.run("mlflow")
    assert docker("info", "--format", "{{.ServerVersion}}").strip(), "the Docker engine does not answer"
    with urllib.request.urlopen("http://localhost:5000/v2/", timeout=10) as answer:
        assert answer.status == 200, "the registry does not answer"
    safe_mode = lab.kubectl("-n", "hdfs-3", "exec", "hdfs-namenode-0", "--", "hdfs", "dfsadmin", "-safemode", "get")
    assert "OFF" in safe_mode, f"HDFS takes no files: {safe_mode}"
    manager = "/api/v1/namespaces/spark-lama-exps/services/yarn-resourcemanager:8088/proxy/ws/v1/cluster/metrics"
    metrics = json.loads(lab.kubectl("get", "--raw", manager))["clusterMetrics"]
    assert metrics["activeNodes"], f"YARN has no node: {metrics}"


def _remove_old_images(tag: str) -> None:
    """The images that earlier versions of `docker/` have left in the engine."""
    names = docker("images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", f"reference=*/*:{_BUILDER}-*").split()
    for name in names:
        if not name.endswith(f":{tag}"):
            docker("rmi", name, check=False)


@pytest.fixture(scope="module")
def cluster(
    lab: Lab, storage_host: SshServer, stack: Stack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    _start(lab)
    home = tmp_path_factory.mktemp("cluster")
    shutil.copytree(ROOT / "dags", home / "dags", ignore=shutil.ignore_patterns("__pycache__"))
    (home / "dags" / "dag_small.py").write_text(SMALL_MODULE)
    # Its builders alone: 27 DAGs more would be parsed for nothing.
    builders = home / "dags" / "dag_two_stage_scenarios.py"
    builders.write_text(builders.read_text().partition("\n\ndef dag_specs(")[0])
    (home / "password").write_text("admin")
    (home / "password").chmod(0o600)
    profile: dict[str, object] = {
        # The archive for YARN is built once for all runs.
        "cache_dir": CACHE_DIR,
        "airflow": {"username": "admin", "password_file": str(home / "password")},
        # Two cores that the cluster shares with all else.
        "deploy": {"timeout_s": 600},
        "ssh": {"host": "cluster", "config": str(storage_host.client_config(home / "ssh_config")), "user": _USER},
    }
    settings = {"default_profile": "lab", "profiles": {"lab": profile}}
    (home / "replayctl.yaml").write_text(json.dumps(settings))
    station = Workstation(home, STATE / "kubeconfig", _USER, home)
    # Built by one person in all runs, so that later ones need neither build nor push.
    builder = Workstation(home, STATE / "kubeconfig", _BUILDER, home)
    built = builder.call("build-airflow-image", "--docker-dir", str(ROOT / "docker"), timeout=2400)
    assert built.code == 0, built.stderr
    pushed = builder.call("push-airflow-image", "--docker-dir", str(ROOT / "docker"), timeout=1200)
    assert pushed.code == 0, pushed.stderr
    tag = pushed.document["data"]["image"].rpartition(":")[2]
    _remove_old_images(tag)
    profile["images"] = {"pods": tag}
    (home / "replayctl.yaml").write_text(json.dumps(settings))
    packed = station.call("build-python-env", "--publish", timeout=2400)
    assert packed.code == 0, (packed.document["errors"], packed.stderr)
    archive = packed.document["data"]["published"]["path_in_pods"]
    environment = Cluster(station, builder, lab, pushed.document["data"]["reference"], archive)
    (_DATA / "replay").mkdir(exist_ok=True)
    shutil.copy(stack.home / "data" / "replay" / "sample_ratings.csv", _DATA / "replay")
    try:
        yield environment
    finally:
        _remove(environment)


def _remove(cluster: Cluster) -> None:
    """All that the user has on the cluster; a run that a test has left goes on until it is stopped."""
    for unfinished in cluster.call("runs", "list").document["data"]["runs"]:
        if unfinished["state"] in ("queued", "running"):
            cluster.call("runs", "stop", _DAG, unfinished["run_id"])
    deadline = time.monotonic() + 300
    # A task outlives its run until Airflow has heard of its end.
    while (
        removed := cluster.call("undeploy", "--delete-from-airflow", "--yes")
    ).code == 7 and time.monotonic() < deadline:
        time.sleep(2)
    cluster.hdfs("-rm", "-r", "-f", "-skipTrash", _ARTIFACTS, f"/shared/replay/packages/{_USER}")
    for folder in (_DAGS / "replayctl_releases", _DATA / "spark_submit_files"):
        shutil.rmtree(folder / _USER, ignore_errors=True)
    (_DATA / "replay" / "sample_ratings.csv").unlink(missing_ok=True)
    assert removed.code == 0, removed.stderr


@pytest.fixture(scope="module")
def run(cluster: Cluster) -> dict[str, Any]:
    """One run of the whole experiment."""
    cluster.lab.look_for_new_dags()
    deployed = cluster.call("sync-dags", "--wait")
    assert deployed.code == 0, (deployed.document["errors"], deployed.stderr)
    assert deployed.document["data"]["images"] == {"": cluster.digest}
    assert "airflow.url is not set: forwarding to airflow/svc/airflow-webserver:8080" in deployed.stderr
    node = Node(cluster.lab)
    node.put_back()
    before = node.unpacked(cluster.archive.rpartition("/")[2])
    with cluster.watched():
        answer = cluster.call("run", _DAG, "--wait", timeout=1800)
    assert answer.code == 0, (answer.document["errors"], answer.stderr)
    cluster.unpacked = node.unpacked(cluster.archive.rpartition("/")[2]) - before
    return dict(answer.document["data"])


def test_an_image_of_unchanged_inputs_is_not_built_again(cluster: Cluster) -> None:
    again = cluster.builder.call("build-airflow-image", "--docker-dir", str(ROOT / "docker"))
    assert (again.code, again.document["status"]) == (0, "nothing-to-do"), again.stderr


def test_all_tasks_are_green_in_pods_of_the_image_that_was_pushed(cluster: Cluster, run: dict[str, Any]) -> None:
    assert {task["task_id"]: (task["state"], task["outcome"]) for task in run["tasks"]} == dict.fromkeys(
        _STEPS, ("success", "computed")
    )
    assert cluster.pods == dict.fromkeys(_STEPS, cluster.digest)


def test_first_level_and_combiner_ran_on_yarn_by_the_packed_interpreter(cluster: Cluster, run: dict[str, Any]) -> None:
    applications = cluster.call("yarn-apps", "--dag", _DAG).document["data"]["applications"]
    assert {application["name"].rpartition(".")[2] for application in applications} == _ON_YARN
    assert {application["final_status"] for application in applications} == {"SUCCEEDED"}
    history = "/api/v1/namespaces/spark-lama-exps/services/yarn-spark-history-server:18080/proxy/api/v1/applications"
    for application in applications:
        environment = json.loads(cluster.lab.kubectl("get", "--raw", f"{history}/{application['id']}/1/environment"))
        properties = dict(environment["sparkProperties"])
        assert properties["spark.pyspark.python"] == "./environment/bin/python3"
        assert properties["spark.yarn.dist.archives"].endswith("#environment")


def test_a_node_without_python_runs_the_packed_one_which_it_has_unpacked_once_for_all(
    cluster: Cluster, run: dict[str, Any]
) -> None:
    node = Node(cluster.lab)
    name = cluster.archive.rpartition("/")[2]
    # Three applications of the run have used it by now.
    (folder,) = cluster.unpacked
    # Applications that begin together may each have asked for it, while it was unpacked once.
    before = node.unpacked(name), node.downloads(cluster.archive)
    assert before[1]
    conf = {
        "spark.yarn.dist.archives": f"{cluster.archive}#environment",
        "spark.pyspark.python": "./environment/bin/python3",
        "spark.yarn.tags": f"replay,replayctl-user-{_USER}",
    }
    with node.without_python():
        submit(cluster.lab, {"probe": _PROBE}, conf)
    (application,) = cluster.call("yarn-apps", "--name", "tests-probe", "--mine").document["data"]["applications"]
    log = cluster.station.text("yarn-logs", application["id"], "--log-files", "stdout")
    assert application["final_status"] == "SUCCEEDED", log
    program = [f"{folder}/bin/python3"] * 2
    assert json.loads(log.splitlines()[-1]) == {"driver": [*program, folder], "executor": [*program, folder]}
    assert (node.unpacked(name), node.downloads(cluster.archive)) == before


def test_artifacts_are_on_hdfs(cluster: Cluster, run: dict[str, Any]) -> None:
    paths = cluster.hdfs("-ls", "-R", "-C", _ARTIFACTS).split()
    finished = [path.removeprefix(f"{_ARTIFACTS}/sample/") for path in paths if path.endswith("/_SUCCESS")]
    workloads = sorted(path.split("/")[0] for path in finished if path.count("/") == 2)
    assert workloads == ["combine", "evaluate", "first_level", "first_level", "second_level", "split"]
    assert not [path for path in paths if "/." in path], "something temporary is left"


def test_the_leaderboard_equals_that_of_this_machine(
    cluster: Cluster, run: dict[str, Any], stack: Stack, finished: Answer
) -> None:
    ours, local = (
        {row["model"]: row["metrics"] for row in answer.document["data"]["rows"]}
        for answer in (cluster.call("leaderboard", _DAG), stack.call("leaderboard", _DAG))
    )
    assert ours.keys() == local.keys() == {"poprec", "itemknn", "lightgbm"}
    for model in ("poprec", "itemknn"):
        assert ours[model] == local[model]
    # Trees are grown from histograms, sums of floats in an order that depends on the number of threads.
    assert ours["lightgbm"] == pytest.approx(local["lightgbm"], rel=1e-6)


def test_a_dry_run_sees_through_a_forward_what_the_next_run_would_reuse(cluster: Cluster, run: dict[str, Any]) -> None:
    planned = cluster.call("sync-dags", "--dry-run")
    assert planned.code == 0, planned.stderr
    (dag,) = (dag for dag in planned.document["data"]["plan"] if dag["dag_id"] == f"{_DAG}_{_USER}")
    outcomes = {
        step["name"]: (step["prospect"]["outcome"], step["prospect"]["origin"]["run_id"]) for step in dag["steps"]
    }
    assert outcomes == dict.fromkeys(_STEPS, ("reuse", run["run_id"]))


def test_the_configuration_says_which_image_the_next_pod_gets(cluster: Cluster, run: dict[str, Any]) -> None:
    config = cluster.call("airflow-config", "core.executor", "--dag", _DAG)
    assert config.code == 0, config.stderr
    data = config.document["data"]
    assert (data["version"], data["executor"], data["dag"]["image"]) == ("3.3.2", "KubernetesExecutor", cluster.digest)
    assert data["image"] == "localhost:5000/airflow-worker:latest"
    assert data["pod_template"] == cluster.lab.kubectl(
        *("-n", "airflow", "get", "configmap", "airflow-pod-template", "-o", r"jsonpath={.data.pod_template\.yaml}")
    )


def test_the_shipped_pod_template_is_one_for_kubernetes(lab: Lab) -> None:
    lab.kubectl("-n", "replayctl-tests", "create", "serviceaccount", "airflow-worker", check=False)
    template = str(ROOT / "docker" / "pod-template.yaml")
    assert "server dry run" in lab.kubectl("-n", "replayctl-tests", "apply", "--dry-run=server", "-f", template)
