"""A real Airflow, MLflow and Spark, started by the program itself, in a folder with a space in its name."""

import contextlib
import csv
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from replayctl.cluster.api import Kubernetes
from replayctl.cluster.kubeconfig import find_cluster
from tests.conftest import CACHE_DIR, ROOT
from tests.sshd import WHY_NOT, SshServer

from .lab import FOLDER, Lab
from .yarn_jobs import JOBS, Workstation, submit

SMALL_MODULE = '''"""A small experiment: two cheap models on a sample."""

from dataclasses import replace

from .dag_entities import DATASETS, model_params
from .dag_two_stage_scenarios import build_two_stage_dag

SAMPLE = replace(
    DATASETS["ml100k"],
    name="sample",
    checksum=None,
    log_path="replay/sample_ratings.csv",
    model_overrides={"itemknn": {"num_neighbours": 10}},
)


def dag_specs(namespace):
    """One DAG."""
    models = model_params("poprec", "itemknn", dataset=SAMPLE)
    name = "two_stage_sample"
    return (build_two_stage_dag(namespace.dag_id(name), namespace.mlflow_experiment(name), models, SAMPLE),)
'''


@dataclass
class Answer:
    """One call of the program."""

    code: int
    document: dict[str, Any]
    stderr: str

    @property
    def data(self) -> Any:
        return self.document["data"]


@dataclass
class Stack:
    """The local stack of these tests."""

    home: Path
    dags: Path
    environ: dict[str, str]

    def call(self, *argv: str, timeout: float = 600) -> Answer:
        command = [sys.executable, "-m", "replayctl", "--output", "json", *argv]
        result = subprocess.run(
            command, cwd=ROOT, env=self.environ, capture_output=True, text=True, timeout=timeout, check=False
        )
        assert result.stdout, result.stderr
        return Answer(result.returncode, json.loads(result.stdout), result.stderr)

    def deploy(self, *argv: str) -> Answer:
        return self.call("sync-dags", "--dags-dir", str(self.dags), *argv)

    def artifact(self, step: str) -> Path:
        """The one artifact of a step of the small experiment."""
        (folder,) = [
            path.parent
            for path in (self.home / "artifacts" / "alice" / "sample").glob("*/*/manifest.json")
            if path.parent.name[0] != "." and _step_of(json.loads(path.read_text())) == step
        ]
        return folder

    def manifest(self, step: str) -> dict[str, Any]:
        return json.loads((self.artifact(step) / "manifest.json").read_text())


def _step_of(manifest: dict[str, Any]) -> str:
    return "_".join(word for word in (manifest["workload"], manifest["label"]) if word)


def processes_of(home: Path) -> list[psutil.Process]:
    """Every process that names the folder in its arguments or environment, other than ourselves."""
    processes = []
    for process in psutil.process_iter():
        try:
            words = [*process.cmdline(), *process.environ().values()]
        except psutil.Error:
            continue
        if process.pid != os.getpid() and any(str(home) in word for word in words):
            processes.append(process)
    return processes


def environ_for(home: Path, user_home: Path, **overrides: str) -> dict[str, str]:
    assert CACHE_DIR, "REPLAYCTL_CACHE_DIR names where the environments are; make test sets it"
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("REPLAYCTL_", "XDG_"))}
    own = {"HOME": str(user_home), "REPLAYCTL_CACHE_DIR": CACHE_DIR, "REPLAYCTL_LOCAL_HOME": str(home)}
    return {**inherited, **own, "USERNAME_ON_CLUSTER": "alice", **overrides}


def write_sample(data: Path) -> None:
    """The first users of the real data, where the small experiment looks for them."""
    with (data / "replay" / "ml100k_ratings.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    with (data / "replay" / "sample_ratings.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *(row for row in rows if int(row[0]) <= 100)])


@pytest.fixture(scope="session")
def storage() -> Iterator[SshServer | None]:
    """The machine behind ssh that has the folders which Airflow reads; None where there is no sshd."""
    if WHY_NOT is not None:
        yield None
        return
    server = SshServer.start(f"rctl-{os.getpid()}-i")
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def proxy() -> Iterator[dict[str, str]]:
    """The variables that name a company's proxy, without any `no_proxy`; nothing of ours may speak to it."""
    callers: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.settimeout(5)
                    with contextlib.suppress(OSError):
                        callers.append(connection.recv(200).decode("latin-1"))

        threading.Thread(target=accept, daemon=True).start()
        names = ("http_proxy", "https_proxy", "all_proxy")
        yield {written: address for name in names for written in (name, name.upper())}
        listener.shutdown(socket.SHUT_RDWR)
    assert callers == []


@pytest.fixture(scope="session")
def stack(
    tmp_path_factory: pytest.TempPathFactory, storage: SshServer | None, proxy: dict[str, str]
) -> Iterator[Stack]:
    root = tmp_path_factory.mktemp("integration")
    home = root / "local home"
    dags = root / "own dags"
    shutil.copytree(ROOT / "dags", dags, ignore=shutil.ignore_patterns("__pycache__"))
    (dags / "dag_small.py").write_text(SMALL_MODULE)
    with socket.socket() as occupant:
        occupant.bind(("127.0.0.1", 0))
        occupant.listen()
        port = str(occupant.getsockname()[1])
        environ = environ_for(home, root, REPLAYCTL_LOCAL_AIRFLOW_PORT=port, REPLAYCTL_LOCAL_MLFLOW_PORT=port)
        if storage:
            environ["REPLAYCTL_FOLDERS_DAGS"] = str(storage.folder / "share" / "dags")
            environ["REPLAYCTL_FOLDERS_SPARK_SUBMIT_FILES"] = str(storage.folder / "share" / "files")
        # What pip fetches may go through a proxy; all that follows stays on this machine.
        assert Stack(home, dags, environ).call("local", "environments").code == 0
        assert Stack(home, dags, environ).call("local", "data").code == 0
        assert home.stat().st_mode & 0o777 == 0o700
        own_stack = Stack(home, dags, environ | proxy)
        started = own_stack.call("local", "up")
    assert started.code == 0, started.stderr
    assert f"port {port} is already in use" in started.stderr
    try:
        write_sample(home / "data")
        yield own_stack
    finally:
        ended = own_stack.call("local", "down", "--yes")
    assert ended.data["stopped"] == ["mlflow", "api-server", "scheduler", "dag-processor", "triggerer"]
    deadline = time.monotonic() + 10
    while (survivors := processes_of(home)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert [process.cmdline() for process in survivors] == []


@pytest.fixture(scope="session")
def deployed(stack: Stack) -> Answer:
    answer = stack.deploy()
    assert answer.code == 0, answer.stderr
    return answer


@pytest.fixture(scope="session")
def finished(stack: Stack, deployed: Answer) -> Answer:
    answer = stack.call("run", "two_stage_sample", "--wait")
    assert answer.code == 0, answer.stderr
    return answer


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    running_lab = Lab(FOLDER)
    running_lab.start()
    try:
        yield running_lab
    finally:
        running_lab.stop()


@pytest.fixture(scope="session")
def kubeconfig(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lab.user("user", tmp_path_factory.mktemp("kubeconfigs"))


@pytest.fixture(scope="session")
def cluster(kubeconfig: Path) -> Kubernetes:
    return Kubernetes(find_cluster(kubeconfig, None, {}))


@pytest.fixture(scope="session")
def station(kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Workstation:
    return Workstation(tmp_path_factory.mktemp("station"), kubeconfig)


@pytest.fixture(scope="session")
def jobs(lab: Lab, station: Workstation) -> Iterator[dict[str, str]]:
    """The jobs of `yarn_jobs`; name → application id. The long one runs until a test ends it."""
    submit(lab)
    answer = station.call("yarn-apps", "--mine", "--since", "1h")
    assert answer.code == 0, answer.stderr
    ids = {
        application["name"].removeprefix("tests-"): application["id"]
        for application in answer.document["data"]["applications"]
    }
    assert set(ids) == set(JOBS)
    deadline = time.monotonic() + 120
    while not station.call("yarn-apps", "--mine", "--state", "RUNNING").document["data"]["applications"]:
        assert time.monotonic() < deadline, "the long job does not start"
    try:
        yield ids
    finally:
        station.call("yarn-kill", ids["long"], "--yes")
