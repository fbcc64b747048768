"""Metrics on their way from a task to the MLflow that its DAG has chosen, on real servers.

Two tracking servers, and artifacts in a folder behind sshd or on the cluster's HDFS.
"""

import json
import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from subprocess import run as run_program
from typing import Any

import pytest

from dags.artifacts import Artifact
from dags.dag_specs import Deployment
from dags.dag_two_stage_scenarios import dag_specs
from dags.workloads import recording
from dags.workloads.context import StepError
from replayctl.local import environments
from replayctl.publishing.deployment import deployment_json
from replayctl.settings.folders import find_folders
from replayctl.settings.load import load_settings
from replayctl.settings.namespace import find_namespace
from tests.conftest import CACHE_DIR, ROOT
from tests.mlflow_servers import TROUBLES, Mlflow, Relay, assert_recorded_once
from tests.reporters import RecordingReporter
from tests.sshd import WHY_NOT, SshServer

from .lab import Lab, why_not

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(CACHE_DIR is None, reason="REPLAYCTL_CACHE_DIR does not say where the environments are"),
]
needs_sshd = pytest.mark.skipif(WHY_NOT is not None, reason=WHY_NOT or "")
needs_lab = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")
PERSON = f"rctl-{os.getpid()}-m"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Mlflow, Mlflow]]:
    assert CACHE_DIR
    program = str(environments.ensure("mlflow", Path(CACHE_DIR), None, RecordingReporter()).program("mlflow"))
    own = [Mlflow(program, tmp_path_factory.mktemp("mlflow")) for _ in range(2)]
    try:
        for server in own:
            server.wait()
        yield own[0], own[1]
    finally:
        for server in own:
            server.stop()


@pytest.fixture(scope="module")
def storage() -> Iterator[SshServer]:
    server = SshServer.start(PERSON)
    try:
        yield server
    finally:
        server.stop()


@dataclass
class Desk:
    """A workstation with a profile, and the tasks that the profile's deployments run."""

    home: Path
    profile: str = "p"
    environ: tuple[tuple[str, str], ...] = ()

    def call(self, *argv: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "replayctl", "--output", "json", "--profile", self.profile, *argv]
        environ = {"HOME": str(self.home), "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **dict(self.environ)}
        done = run_program(command, cwd=self.home, env=environ, capture_output=True, text=True, check=False)
        assert done.stdout, done.stderr
        return {"exit": done.returncode, **json.loads(done.stdout)}

    def evaluation(self, server: str = "", **more: Any) -> dict[str, Any]:
        """The document of an evaluation of an experiment of its own, as Airflow has it after a deploy."""
        settings = load_settings(self.profile, environ={"HOME": str(self.home), **dict(self.environ)}, cwd=self.home)
        namespace = find_namespace(settings)
        text = json.loads(deployment_json(settings, find_folders(settings), settings.user))
        names = {name for name in Deployment.__dataclass_fields__} & set(text)
        deployment = Deployment(release="r_1", **{name: text[name] for name in names - {"tiers", "packages", "python"}})
        name = f"sync_{uuid.uuid4().hex[:8]}"
        experiment = namespace.mlflow_experiment(name)
        spec = replace(dag_specs(namespace)[0], mlflow_server=server, mlflow_experiment=experiment)
        step = next(step for step in spec.steps if step.name == "evaluate")
        document = deployment.step_document(spec, step)
        identity = uuid.uuid4().hex[:16]
        output = f"{document['output'].rpartition('/')[0]}/{identity}"
        return {**document, "identity": identity, "output": output, "name": name, **more}

    def states(self, *argv: str) -> dict[str, str]:
        answer = self.call("mlflow-sync", *argv)
        return {row["evaluation"]: row["state"] for row in answer["data"]["evaluations"]}


def publish(document: dict[str, Any]) -> Artifact:
    """An evaluation's artifact, before anything is recorded."""
    tags = {"replayctl.evaluation": document["identity"], "replayctl.dataset": "ml100k"}
    rows = [
        {
            "name": level,
            "tags": {**tags, "replayctl.level": level, "replayctl.row": level},
            "params": {"rank": "8"},
            "metrics": {"NDCG.10": 0.25},
        }
        for level in ("experiment", "first", "second")
    ]
    planned = {
        "evaluation": document["identity"],
        "experiment": document["mlflow_experiment"],
        "server": document["mlflow_server"],
        "recorded_unix_ms": 1795650000000,
        "runs": rows,
    }
    artifact = Artifact(document["output"], document["hdfs"])
    temporary = artifact.begin("task")
    temporary.add("mlflow.json", json.dumps(planned).encode())
    artifact.commit(temporary, {})
    return artifact


@pytest.fixture(params=["openssh", "fabric"])
def desk(
    request: pytest.FixtureRequest, tmp_path: Path, storage: SshServer, servers: tuple[Mlflow, Mlflow]
) -> Iterator[Desk]:
    share = storage.folder / "share" / "experiments"
    profile = {
        "user": "alice",
        "ssh": {
            "host": "cluster",
            "user": storage.login(PERSON),
            "config": str(storage.client_config(tmp_path / "config")),
            "client": request.param,
        },
        "folders": {
            "dags": str(share),
            "spark_submit_files": str(share),
            "data_in_pods": str(share),
            "artifacts": str(share),
            "artifacts_in_pods": str(share),
        },
        "mlflow": {"url": servers[0].url, "servers": f"second={servers[1].url}"},
    }
    (tmp_path / "replayctl.yaml").write_text(json.dumps({"profiles": {"p": profile}}))
    share.mkdir()
    yield Desk(tmp_path)
    shutil.rmtree(share)


@needs_sshd
def test_the_server_that_a_dag_has_chosen_gets_its_metrics_from_task_to_leaderboard(
    desk: Desk, servers: tuple[Mlflow, Mlflow]
) -> None:
    first, second = desk.evaluation(), desk.evaluation("second")
    assert (first["tracking_uri"], second["tracking_uri"]) == (servers[0].url, servers[1].url)
    for document in (first, second):
        recording.record(publish(document), document)
    assert_recorded_once(servers[0], first["mlflow_experiment"], ("first", "second"))
    assert_recorded_once(servers[1], second["mlflow_experiment"], ("first", "second"))
    assert desk.states() == {first["identity"]: "present", second["identity"]: "present"}
    for server, document in zip(servers, (second, first), strict=True):
        with pytest.raises(OSError, match="404"):
            server.runs(document["mlflow_experiment"])
    board = desk.call("leaderboard", second["name"], "--server", "second")["data"]
    assert {row["evaluation"] for row in board["rows"]} == {second["identity"]}
    asked_first = desk.call("leaderboard", second["name"])
    assert asked_first["exit"] == 6
    assert asked_first["errors"][0]["hint"] == "its DAG has chosen another server: pass --server second"
    pages = [desk.call("open", name, "--dry-run")["data"]["address"] for name in ("mlflow", "second")]
    assert pages == [server.url for server in servers]


@needs_sshd
@pytest.mark.parametrize("trouble", TROUBLES[:2])
def test_what_a_task_has_recorded_by_half_is_brought_over_ssh_once(
    desk: Desk, servers: tuple[Mlflow, Mlflow], trouble: str
) -> None:
    relay = Relay(servers[1].url)
    try:
        document = desk.evaluation("second", tracking_uri=relay.url)
        artifact = publish(document)
        relay.fails_at, relay.trouble = 7, trouble
        with pytest.raises(StepError, match="the metrics are kept with"):
            recording.record(artifact, document)
        identity = document["identity"]
        assert desk.call("leaderboard", document["name"], "--server", "second")["exit"] == 6
        assert desk.states("--dry-run") == {identity: "missing"}
        assert desk.states() == {identity: "recorded"}
        assert_recorded_once(servers[1], document["mlflow_experiment"], ("first", "second"))
        assert desk.states() == {identity: "present"}
        # The task is tried again after that.
        relay.mend()
        recording.record(artifact, document)
    finally:
        relay.stop()
    assert_recorded_once(servers[1], document["mlflow_experiment"], ("first", "second"))


@needs_sshd
def test_a_server_that_is_away_hinders_the_other_only_until_it_is_back(
    desk: Desk, servers: tuple[Mlflow, Mlflow]
) -> None:
    documents = [desk.evaluation(), desk.evaluation("second")]
    for document in documents:
        publish(document)
    relay = Relay(servers[1].url)
    relay.fails_at = 0
    away = replace(desk, environ=(("REPLAYCTL_MLFLOW_SERVERS", f"second={relay.url}"),))
    try:
        answer = away.call("mlflow-sync")
        assert (answer["exit"], answer["status"]) == (9, "partial")
        rows = {row["evaluation"]: row["state"] for row in answer["data"]["evaluations"]}
        assert rows == {documents[0]["identity"]: "recorded", documents[1]["identity"]: "failed"}
        relay.mend()
        assert away.states()[documents[1]["identity"]] == "recorded"
    finally:
        relay.stop()
    for server, document in zip(servers, documents, strict=True):
        assert_recorded_once(server, document["mlflow_experiment"], ("first", "second"))


@needs_lab
def test_from_hdfs_they_come_through_forwards(lab: Lab, tmp_path: Path, servers: tuple[Mlflow, Mlflow]) -> None:
    address = lab.kubectl("-n", "hdfs-3", "get", "svc/hdfs-namenode", "-o", "jsonpath={.spec.clusterIP}")
    root = f"hdfs://hdfs-namenode.hdfs-3.svc.cluster.local:9000/tmp/replayctl-tests-{uuid.uuid4().hex}"
    profile = {
        "user": "alice",
        "folders": {"artifacts_in_pods": root},
        "hdfs": {"url_in_pods": f"http://{address}:9870"},
        "mlflow": {"url": servers[0].url, "servers": f"second={servers[1].url}"},
    }
    (tmp_path / "replayctl.yaml").write_text(json.dumps({"profiles": {"lab": profile}}))
    desk = Desk(tmp_path, "lab")
    document = desk.evaluation("second")
    artifact = publish(document)
    try:
        assert desk.states() == {document["identity"]: "recorded"}
        assert_recorded_once(servers[1], document["mlflow_experiment"], ("first", "second"))
        assert desk.states() == {document["identity"]: "present"}
        recording.record(artifact, document)
        assert any(name.startswith("recorded-") for name in artifact.folder.entries())
    finally:
        Artifact(root, document["hdfs"]).folder.delete()
    assert_recorded_once(servers[1], document["mlflow_experiment"], ("first", "second"))
