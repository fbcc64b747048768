"""Spark applications on a real YARN: one that succeeds, two that fail, one that is killed, and their logs."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from replayctl.events import RecordingReporter
from replayctl.k8s import Kubernetes
from replayctl.settings import load_settings
from replayctl.yarn_logs import Yarn
from tests.conftest import ROOT

from .lab import Lab, why_not

pytestmark = [pytest.mark.integration, pytest.mark.skipif(why_not() is not None, reason=why_not() or "")]

_SESSION = "from pyspark.sql import SparkSession\nspark = SparkSession.builder.getOrCreate()\n"
_JOBS = {
    "succeeds": "print('the answer is', spark.range(1000).selectExpr('sum(id)').first()[0])\nspark.stop()\n",
    "driver": "print('before\\x1b[31m')\n{'item': 1}['user_id']\n",
    "executor": (
        "def bad(row):\n    if row == 7:\n        raise ValueError('row 7 is bad')\n    return row\n"
        "print(spark.sparkContext.parallelize(range(10), 2).map(bad).collect())\n"
    ),
    "long": "import time\nfor second in range(600):\n    print('tick', second, flush=True)\n    time.sleep(1)\n",
}
# Its own for each run, so that what an earlier one has left is nobody's.
USER = f"yarn-tests-{os.getpid()}"
_POD = "deploy/yarn-resourcemanager"


@dataclass
class Answer:
    code: int
    document: dict
    stderr: str


@dataclass
class Workstation:
    """Somebody with a kubeconfig of their own."""

    home: Path
    kubeconfig: Path

    @property
    def environ(self) -> dict[str, str]:
        environ = {"HOME": str(self.home), "PATH": os.environ["PATH"], "KUBECONFIG": str(self.kubeconfig)}
        return {**environ, "USERNAME_ON_CLUSTER": USER}

    def call(self, *argv: str) -> Answer:
        command = [sys.executable, "-m", "replayctl", "--output", "json", *argv]
        done = subprocess.run(
            command, cwd=ROOT, env=self.environ, capture_output=True, text=True, timeout=180, check=False
        )
        lines = done.stdout.splitlines()
        # Several documents are one in a line; a single one may stand over many.
        last = lines[-1] if lines[-1].startswith("{") else done.stdout
        return Answer(done.returncode, json.loads(last), done.stderr)

    def text(self, *argv: str) -> str:
        command = [sys.executable, "-m", "replayctl", *argv]
        done = subprocess.run(command, cwd=ROOT, env=self.environ, capture_output=True, timeout=180, check=True)
        return done.stdout.decode()


@pytest.fixture(scope="module")
def station(kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Workstation:
    return Workstation(tmp_path_factory.mktemp("station"), kubeconfig)


@pytest.fixture(scope="module")
def jobs(lab: Lab, station: Workstation) -> Iterator[dict[str, str]]:
    """Submits the four jobs; name → application id."""
    for name, code in _JOBS.items():
        path = f"/tmp/replayctl-{name}.py"  # noqa: S108 - in a pod of the lab
        lab.kubectl(
            "-n", "spark-lama-exps", "exec", "-i", _POD, "--", "sh", "-c", f"cat > {path}", data=_SESSION + code
        )
        conf = {
            "spark.yarn.tags": f"replay,replayctl-user-{USER}",
            "spark.yarn.jars": "local:/opt/spark/pyspark/jars/*",
            "spark.executor.instances": "1",
            "spark.yarn.maxAppAttempts": "1",
            "spark.driver.memory": "512m",
            "spark.executor.memory": "512m",
            "spark.yarn.submit.waitAppCompletion": str(name != "long").lower(),
        }
        words = [word for key, value in conf.items() for word in ("--conf", f"{key}={value}")]
        submit = [
            "spark-submit",
            "--master",
            "yarn",
            "--deploy-mode",
            "cluster",
            "--name",
            f"tests-{name}",
            *words,
            path,
        ]
        lab.kubectl("-n", "spark-lama-exps", "exec", _POD, "--", *submit, check=False)
    found = station.call("yarn-apps", "--mine", "--since", "1h")
    assert found.code == 0, found.stderr
    ids = {each["name"].removeprefix("tests-"): each["id"] for each in found.document["data"]["applications"]}
    assert set(ids) == set(_JOBS)
    try:
        yield ids
    finally:
        station.call("yarn-kill", ids["long"], "--yes")


def test_applications_are_listed_by_what_people_know(station: Workstation, jobs: dict[str, str]) -> None:
    names = {each["name"] for each in station.call("yarn-apps", "--mine").document["data"]["applications"]}
    assert names == {f"tests-{name}" for name in _JOBS}
    failed = station.call("yarn-apps", "--mine", "--name", "TESTS-driver", "--state", "finished")
    assert [each["id"] for each in failed.document["data"]["applications"]] == [jobs["driver"]]
    assert station.call("yarn-apps", "--state", "TIRED").code == 2
    assert station.call("yarn-apps", "--since", "yesterday").code == 2


def test_logs_of_a_finished_driver_whole_and_in_part(station: Workstation, jobs: dict[str, str]) -> None:
    assert station.text("yarn-logs", jobs["succeeds"], "--log-files", "stdout") == "the answer is 499500\n"
    whole = station.text("yarn-logs", jobs["succeeds"], "--log-files", "stderr")
    assert station.text("yarn-logs", jobs["succeeds"], "--log-files", "stderr", "--tail", "3") == "".join(
        whole.splitlines(keepends=True)[-3:]
    )
    grepped = station.text("yarn-logs", jobs["succeeds"], "--log-files", "stderr", "--grep", "SparkContext.*stop")
    assert 0 < len(grepped.splitlines()) < len(whole.splitlines())
    listed = station.call("yarn-logs", jobs["succeeds"], "--list").document["data"]["files"]
    assert {each["container"][-6:] for each in listed} >= {"000001", "000002"}
    assert station.call("yarn-logs", jobs["succeeds"], "--log-files", "nothing.log").code == 6
    assert station.call("yarn-logs", "application_1_0001").code == 6
    assert station.call("yarn-logs", "application_1; ls").code == 2


def test_the_cause_of_a_failed_driver_comes_first_and_harms_no_terminal(
    station: Workstation, jobs: dict[str, str]
) -> None:
    answer = station.call("yarn-logs", jobs["driver"])
    (cause, *_) = answer.document["data"]["causes"]
    assert cause["summary"] == "KeyError: 'user_id'"
    assert (cause["container"][-6:], cause["file"]) == ("000001", "stdout")
    shown = station.text("yarn-logs", jobs["driver"], "--log-files", "stdout", "--no-diagnose")
    assert shown.startswith("before\nTraceback")
    assert "before\x1b[31m\n" in station.text(
        "yarn-logs", jobs["driver"], "--log-files", "stdout", "--no-diagnose", "--raw"
    )


def test_the_cause_of_a_failed_executor_is_found_under_the_noise(station: Workstation, jobs: dict[str, str]) -> None:
    causes = station.call("yarn-logs", jobs["executor"]).document["data"]["causes"]
    assert causes[0]["summary"] == "ValueError: row 7 is bad"


def test_logs_are_written_to_files_whole(station: Workstation, jobs: dict[str, str], tmp_path: Path) -> None:
    answer = station.call("yarn-logs", jobs["executor"], "--all", "--no-diagnose", "-o", f"{tmp_path}/logs/")
    written = {Path(each["path"]): each["bytes"] for each in answer.document["data"]["written"]}
    assert len(written) >= 4
    assert all(path.stat().st_size == size for path, size in written.items())
    one = tmp_path / "one.txt"
    station.call("yarn-logs", jobs["succeeds"], "--log-files", "stdout", "-o", str(one))
    assert one.read_text() == "the answer is 499500\n"


def test_yarns_own_program_says_the_same_as_the_log_server(
    station: Workstation, cluster: Kubernetes, jobs: dict[str, str], tmp_path: Path
) -> None:
    found = []
    for history in ("spark-lama-exps/svc/yarn-jobhistory:19888", "spark-lama-exps/svc/nothing:19888"):
        environ = {"HOME": str(tmp_path), "REPLAYCTL_TARGETS_JOBHISTORY": history}
        reporter = RecordingReporter()
        with Yarn(cluster, load_settings(None, environ=environ, cwd=tmp_path), reporter) as yarn:
            app = yarn.manager.application(jobs["driver"])
            files = yarn.files(app, wait_s=30)
            text = {
                (file.container, file.name): b"".join(piece.data for piece in yarn.pieces(app, file))
                for file in files
                if file.name == "stdout"
            }
            found.append(({(file.container, file.name, file.size) for file in files}, text))
        assert bool(reporter.messages("note")) == ("nothing" in history)
    assert found[0] == found[1]


def test_a_running_application_is_followed_and_killed(station: Workstation, jobs: dict[str, str]) -> None:
    command = [sys.executable, "-m", "replayctl", "yarn-logs", jobs["long"], "--follow", "--log-files", "stdout"]
    following = subprocess.Popen(
        command, cwd=ROOT, env=station.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert following.stdout
    assert following.stdout.readline() == "tick 0\n"
    unasked = station.call("yarn-kill", "--mine")
    assert unasked.code == 2
    assert "--yes" in unasked.document["errors"][0]["hint"]
    planned = station.call("yarn-kill", "--mine", "--dry-run").document["data"]
    assert [each["id"] for each in planned["applications"]] == [jobs["long"]]
    killed = station.call("yarn-kill", "--mine", "--yes")
    assert killed.code == 0, killed.document
    assert [(each["id"], each["state"]) for each in killed.document["data"]["outcomes"]] == [(jobs["long"], "KILLED")]
    rest = following.stdout.read()
    _, stderr = following.communicate(timeout=120)
    assert following.returncode == 0, stderr
    ticks = [int(line.split()[1]) for line in rest.splitlines()]
    # Nothing twice and nothing left out, over the change from the running container to what was gathered.
    assert ticks == list(range(1, len(ticks) + 1))
    again = station.call("yarn-kill", jobs["long"], "--yes")
    assert (again.code, again.document["status"]) == (0, "nothing-to-do")
