"""Spark applications on a real YARN: one that succeeds, two that fail, one that is killed, and their logs."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from replayctl import yarn
from replayctl.clients.resource_manager import ResourceManager
from replayctl.cluster.api import Kubernetes
from replayctl.errors import NotFound
from replayctl.logs import view
from replayctl.logs.sources import Yarn
from replayctl.settings.load import load_settings
from tests.conftest import ROOT
from tests.reporters import RecordingReporter

from .lab import Lab, why_not
from .yarn_jobs import JOBS, Workstation, submit

pytestmark = [pytest.mark.integration, pytest.mark.skipif(why_not() is not None, reason=why_not() or "")]


def test_applications_are_listed_by_what_people_know(station: Workstation, jobs: dict[str, str]) -> None:
    names = {
        application["name"] for application in station.call("yarn-apps", "--mine").document["data"]["applications"]
    }
    assert names == {f"tests-{name}" for name in JOBS}
    failed = station.call("yarn-apps", "--mine", "--name", "TESTS-driver", "--state", "finished")
    assert [application["id"] for application in failed.document["data"]["applications"]] == [jobs["driver"]]
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
    assert {entry["container"][-6:] for entry in listed} >= {"000001", "000002"}
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
    log = station.text("yarn-logs", jobs["driver"], "--log-files", "stdout", "--no-diagnose")
    assert log.startswith("before\nTraceback")
    assert "before\x1b[31m\n" in station.text(
        "yarn-logs", jobs["driver"], "--log-files", "stdout", "--no-diagnose", "--raw"
    )


def test_the_cause_of_a_failed_executor_is_found_under_the_noise(station: Workstation, jobs: dict[str, str]) -> None:
    causes = station.call("yarn-logs", jobs["executor"]).document["data"]["causes"]
    assert causes[0]["summary"] == "ValueError: row 7 is bad"


def test_logs_are_written_to_files_whole(station: Workstation, jobs: dict[str, str], tmp_path: Path) -> None:
    answer = station.call("yarn-logs", jobs["executor"], "--all", "--no-diagnose", "-o", f"{tmp_path}/logs/")
    written = {Path(file["path"]): file["bytes"] for file in answer.document["data"]["written"]}
    assert len(written) >= 4
    assert all(path.stat().st_size == size for path, size in written.items())
    one = tmp_path / "one.txt"
    station.call("yarn-logs", jobs["succeeds"], "--log-files", "stdout", "-o", str(one))
    assert one.read_text() == "the answer is 499500\n"


def test_a_large_log_comes_whole_or_says_how_much_came(lab: Lab, station: Workstation, jobs: dict[str, str]) -> None:
    command = [sys.executable, "-m", "replayctl", "yarn-logs", jobs["big"], "--log-files", "stdout", "--raw"]

    def reading() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command, cwd=ROOT, env=station.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
        )

    with reading() as whole:
        assert whole.stdout
        hasher = hashlib.sha256()
        while data := whole.stdout.read(1 << 20):
            hasher.update(data)
    assert whole.returncode == 0
    expected = hashlib.sha256(b"".join(b"%1023d\n" % number for number in range(256 * 1024)))
    assert hasher.digest() == expected.digest()
    with reading() as cut:
        assert cut.stdout
        assert cut.stderr
        size = len(cut.stdout.read(1 << 20))
        (server,) = lab.kubectl(
            "-n", "spark-lama-exps", "get", "pods", "-l", "app=yarn-jobhistory", "-o", "name"
        ).split()
        lab.kill_processes("spark-lama-exps", server)
        while data := cut.stdout.read(1 << 20):
            size += len(data)
        stderr = cut.stderr.read().decode()
    lab.kubectl("-n", "spark-lama-exps", "delete", server, "--force", "--grace-period=0")
    lab.wait_for_pod("spark-lama-exps", "app=yarn-jobhistory", after=server)
    assert cut.returncode == 1, stderr
    assert f"was cut off: received {size} of {256 << 20} bytes" in stderr


def test_yarns_own_program_says_the_same_as_the_log_server(
    station: Workstation, cluster: Kubernetes, jobs: dict[str, str], tmp_path: Path
) -> None:
    logs = []
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
            logs.append(({(file.container, file.name, file.size) for file in files}, text))
        assert bool(reporter.messages("note")) == ("nothing" in history)
    assert logs[0] == logs[1]


@pytest.mark.parametrize("history", ["spark-lama-exps/svc/yarn-jobhistory:19888", "spark-lama-exps/svc/nothing:19888"])
def test_what_the_resource_manager_has_forgotten_is_found_by_its_logs(
    cluster: Kubernetes, jobs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, history: str
) -> None:
    def forget(manager: ResourceManager, name: str) -> None:
        raise NotFound(f"the ResourceManager cannot find {name}")

    monkeypatch.setattr(ResourceManager, "application", forget)
    environ = {"HOME": str(tmp_path), "REPLAYCTL_TARGETS_JOBHISTORY": history}
    settings = load_settings(None, environ=environ, cwd=tmp_path)
    with Yarn(cluster, settings, RecordingReporter()) as yarn:
        app = yarn.application(jobs["driver"])
        files = yarn.files(app, wait_s=0)
        assert app.am_container == files[0].container
        # The driver has said how it ended; by the program nobody asks it.
        assert app.outcome == ("FORGOTTEN" if "nothing" in history else "FAILED")
        assert view.causes(yarn, app, files, RecordingReporter())[0].summary == "KeyError: 'user_id'"
        with pytest.raises(NotFound, match="no logs of it"):
            yarn.application("application_1_0001")


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
    plan = station.call("yarn-kill", "--mine", "--dry-run").document["data"]
    assert [application["id"] for application in plan["applications"]] == [jobs["long"]]
    killed = station.call("yarn-kill", "--mine", "--yes")
    assert killed.code == 0, killed.document
    assert [(outcome["id"], outcome["state"]) for outcome in killed.document["data"]["outcomes"]] == [
        (jobs["long"], "KILLED")
    ]
    rest = following.stdout.read()
    _, stderr = following.communicate(timeout=120)
    assert following.returncode == 0, stderr
    assert "the application was killed" in rest
    ticks = [int(line.split()[1]) for line in rest.splitlines() if line.startswith("tick ")]
    # Nothing twice and nothing left out, over the change from the running container to what was gathered.
    assert ticks == list(range(1, len(ticks) + 1))
    second_kill = station.call("yarn-kill", jobs["long"], "--yes")
    assert (second_kill.code, second_kill.document["status"]) == (0, "nothing-to-do")


def test_what_the_rest_api_does_not_end_yarns_own_program_ends(
    lab: Lab, station: Workstation, cluster: Kubernetes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(lab, {"long": JOBS["long"]})
    application, *_ = station.call("yarn-kill", "--mine", "--dry-run").document["data"]["applications"]
    monkeypatch.setattr(ResourceManager, "kill", lambda *_: False)
    settings = load_settings(None, environ={"HOME": str(tmp_path)}, cwd=tmp_path)
    with Yarn(cluster, settings, RecordingReporter()) as connection:
        app = connection.manager.application(application["id"])
        (outcome,) = yarn.kill(connection, [app], RecordingReporter(), timeout_s=60)
    assert (outcome.state, outcome.note) == ("KILLED", "killed")
