"""sync-dags and its undo commands, with the program itself: over a real sshd, to a folder that a real Airflow reads."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.sshd import WHY_NOT, SshServer

from .conftest import Answer, Stack

pytestmark = [pytest.mark.integration, pytest.mark.skipif(WHY_NOT is not None, reason=WHY_NOT or "")]

_SPECS = '''"""One DAG of one step."""

from .dag_specs import DagSpec, StepSpec

VALUE = {value}


def dag_specs(namespace):
    """One DAG."""
    step = StepSpec("{task}", "split", "nothing", {{"value": VALUE}})
    return (DagSpec(namespace.dag_id("{name}"), "", namespace.mlflow_experiment("{name}"), (step,)),)
'''


@dataclass
class Person:
    """Somebody with a workstation: own name, own settings, own DAG folder."""

    user: str
    home: Path
    dags: Path
    share: Path
    environ: dict[str, str]

    def call(self, *argv: str, **environ: str) -> Answer:
        command = [sys.executable, "-m", "replayctl", "--output", "json", "--profile", "cluster", *argv]
        result = subprocess.run(
            command,
            cwd=self.home,
            env={**self.environ, **environ},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert result.stdout, result.stderr
        return Answer(result.returncode, json.loads(result.stdout), result.stderr)

    def write(self, module: str, value: object = 1, *, name: str | None = None, task: str = "one") -> None:
        """A DAG module whose content is `value`."""
        text = _SPECS.format(value=value, task=task, name=name or module.removeprefix("dag_"))
        (self.dags / f"{module}.py").write_text(text)

    @property
    def store(self) -> Path:
        return self.share / "dags" / "replayctl_releases" / self.user

    @property
    def pointer(self) -> str | None:
        return (self.store / "current").read_text().strip() if (self.store / "current").exists() else None

    def stubs(self) -> list[str]:
        return sorted(path.name for path in (self.share / "dags").glob(f"dag_*_{self.user}.py"))


@pytest.fixture
def person(stack: Stack, storage: SshServer, tmp_path: Path) -> Callable[[str], Person]:
    """Makes people, each with a small DAG folder."""
    url = next(
        service["url"] for service in stack.call("local", "status").data["services"] if service["name"] == "airflow"
    )
    share = storage.folder / "share"

    def make(user: str, *, airflow: bool = True) -> Person:
        home = tmp_path / user
        (home / ".ssh").mkdir(parents=True)
        storage.client_config(home / ".ssh" / "config")
        server = {"url": url, "username": "admin", "password_file": str(stack.home / "airflow" / "admin_password")}
        profile = {
            "user": user,
            "ssh": {"host": "cluster", "user": storage.login(f"rctl-{os.getpid()}-i")},
            "folders": {
                "dags": str(share / "dags"),
                "spark_submit_files": str(share / "files"),
                "data_in_pods": "/opt/spark_data",
                "artifacts_in_pods": "/opt/spark_data/replay",
            },
            **({"airflow": server} if airflow else {}),
        }
        # JSON is YAML.
        (home / "replayctl.yaml").write_text(json.dumps({"profiles": {"cluster": profile}}))
        dags = home / "dags"
        shutil.copytree(ROOT / "dags", dags, ignore=shutil.ignore_patterns("__pycache__", "dag_two_stage*"))
        account = Person(user, home, dags, share, {"HOME": str(home), "PATH": os.environ["PATH"]})
        account.write("dag_small")
        return account

    return make


def test_the_rule_of_the_manual_from_an_empty_folder(person: Callable[[str], Person]) -> None:
    carol = person("carol")
    shutil.rmtree(carol.dags)
    assert carol.call("init", ".").code == 0
    assert carol.call("new-dag", "my_experiment").code == 0
    assert carol.call("new-dag", "by_hand", "--free-form").code == 0
    plan = carol.call("sync-dags", "--dry-run")
    assert plan.code == 0, plan.document
    assert [action["action"] for action in plan.data["actions"] if action["action"] != "foreign"] == [
        "upload", "create", "create", "create", "publish",
    ]  # fmt: skip
    assert carol.stubs() == []
    answer = carol.call("sync-dags")
    assert answer.code == 0, answer.stderr
    assert len(answer.data["dags"]) == 28
    assert all(dag.endswith("_carol") for dag in answer.data["dags"])
    assert carol.stubs() == ["dag_by_hand_carol.py", "dag_my_experiment_carol.py", "dag_two_stage_scenarios_carol.py"]
    print(f"\n{len(answer.data['dags']) + 1} new DAGs seen after {answer.data['seen_after_s']:.1f} s")
    second_deploy = carol.call("sync-dags")
    assert (second_deploy.code, second_deploy.document["status"]) == (0, "nothing-to-do")
    started = carol.call("run", "by_hand", "--wait")
    assert started.code == 0, started.stderr


def test_a_change_is_shown_and_taken_back_by_rollback(person: Callable[[str], Person]) -> None:
    dave = person("dave")
    deployed = dave.call("sync-dags")
    first = deployed.data["release"]
    print(f"\na new DAG seen after {deployed.data['seen_after_s']:.1f} s")
    dave.write("dag_small", 2, task="another")
    dave.write("dag_more")
    second = dave.call("sync-dags")
    assert second.data["previous"] == first
    print(f"a changed DAG seen after {second.data['seen_after_s']:.1f} s")
    records = dave.call("releases").data["releases"]
    assert [(record["name"], record["current"]) for record in records] == [
        (second.data["release"], True),
        (first, False),
    ]
    assert records[0]["dags"] == {"dag_more": ["more_dave"], "dag_small": ["small_dave"]}
    plan = dave.call("rollback", "--dry-run")
    assert (plan.data["release"], dave.pointer) == (first, second.data["release"])
    back = dave.call("rollback")
    assert back.code == 0, back.stderr
    assert (dave.pointer, dave.stubs()) == (first, ["dag_small_dave.py"])
    assert back.data["seen_after_s"] is not None
    forward = dave.call("rollback", second.data["release"][:8])
    assert forward.code == 0, forward.stderr
    assert dave.stubs() == ["dag_more_dave.py", "dag_small_dave.py"]
    audit = dave.call("releases", "--audit").data["audit"]
    assert [line["action"] for line in audit] == ["publish", "publish", "rollback", "rollback"]
    assert dave.call("rollback", "r_nothing").code == 6


def test_what_airflow_cannot_load_is_taken_back_with_its_traceback(person: Callable[[str], Person]) -> None:
    erin = person("erin")
    first = erin.call("sync-dags").data["release"]
    (erin.dags / "dag_bad.py").write_text("def build_dags(namespace):\n    raise RuntimeError('only here')\n")
    answer = erin.call("sync-dags")
    assert answer.code == 1
    (error,) = answer.document["errors"]
    assert f"{first} is published again" in error["message"]
    assert "RuntimeError: only here" in error["details"]
    assert (erin.pointer, erin.stubs()) == (first, ["dag_small_erin.py"])
    assert not (erin.store / ".lock").exists()
    assert [line["action"] for line in erin.call("releases", "--audit").data["audit"]][-1] == "withdraw"


def test_a_first_deploy_that_cannot_be_loaded_leaves_no_stub(person: Callable[[str], Person]) -> None:
    frank = person("frank")
    (frank.dags / "dag_bad.py").write_text("def build_dags(namespace):\n    raise RuntimeError('only here')\n")
    answer = frank.call("sync-dags")
    assert answer.code == 1
    assert "the stubs were removed again" in answer.document["errors"][0]["message"]
    assert (frank.pointer, frank.stubs()) == (None, [])


def test_a_dag_id_of_another_file_is_found_before_anything_is_published(person: Callable[[str], Person]) -> None:
    grace = person("grace")
    theirs = grace.share / "dags" / "dag_of_somebody.py"
    theirs.write_text("from airflow.sdk import DAG\nwith DAG('taken_grace', schedule=None):\n    pass\n")
    try:
        assert grace.call("sync-dags").code == 0
        deadline = time.monotonic() + 60
        grace.write("dag_taken")
        while (answer := grace.call("sync-dags", "--dry-run")).code == 0:
            # Until Airflow has found that file.
            assert time.monotonic() < deadline
            time.sleep(0.5)
        before = grace.pointer
        answer = grace.call("sync-dags")
        assert answer.code == 7
        assert "dag_of_somebody.py" in answer.document["errors"][0]["message"]
        assert grace.pointer == before
        assert "dag_taken_grace.py" not in grace.stubs()
    finally:
        theirs.unlink()


def test_hand_edits_on_the_target_are_kept_until_force(person: Callable[[str], Person]) -> None:
    heidi = person("heidi")
    assert heidi.call("sync-dags").code == 0
    stub = heidi.share / "dags" / "dag_small_heidi.py"
    stub.chmod(0o664)
    stub.write_text(stub.read_text() + "# mine\n")
    heidi.write("dag_small", 2)
    answer = heidi.call("sync-dags")
    assert answer.code == 7
    assert "dag_small_heidi.py" in answer.document["errors"][0]["message"]
    assert stub.read_text().endswith("# mine\n")
    assert heidi.call("sync-dags", "--force").code == 0
    assert not stub.read_text().endswith("# mine\n")


def test_a_lock_is_waited_for_named_and_broken_on_request(person: Callable[[str], Person]) -> None:
    ivan = person("ivan")
    assert ivan.call("sync-dags").code == 0
    holder = {"token": "t", "user": "judy", "host": "elsewhere", "pid": 7, "started": 1.0, "boot": "/"}
    (ivan.store / ".lock").write_text(f"{json.dumps(holder)} {int(time.time()) - 90}\n")
    ivan.write("dag_small", 2)
    answer = ivan.call("sync-dags", REPLAYCTL_DEPLOY_LOCK_TIMEOUT_S="1")
    assert answer.code == 7
    assert re.search(r"locked by judy on elsewhere \(process 7, for \d\d s\)", answer.document["errors"][0]["message"])
    assert "--break-lock" in answer.document["errors"][0]["hint"]
    forced = ivan.call("sync-dags", "--break-lock")
    assert forced.code == 0, forced.stderr
    assert "breaking the lock of judy" in forced.stderr
    assert not (ivan.store / ".lock").exists()


def test_ctrl_c_while_airflow_is_waited_for_gives_the_lock_back(person: Callable[[str], Person]) -> None:
    kate = person("kate")
    assert kate.call("sync-dags").code == 0
    # A task that Airflow will never show: the specs say one thing here and another there.
    (kate.dags / "dag_small.py").write_text(
        "from .dag_specs import DagSpec, StepSpec\nimport sys\n\ndef dag_specs(namespace):\n"
        "    name = 'there' if 'airflow' in sys.modules else 'here'\n"
        "    return (DagSpec(namespace.dag_id('small'), '', 'e', (StepSpec(name, 'split', 'x', {}),)),)\n"
    )
    # Where the tests run in the background Ctrl-C is ignored, and children inherit that.
    code = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "from replayctl.cli import main\nmain()"
    command = [sys.executable, "-c", code, "--profile", "cluster", "sync-dags"]
    running = subprocess.Popen(
        command,
        cwd=kate.home,
        env=kate.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stderr
    for line in running.stderr:
        if "waiting for Airflow to show" in line:
            running.send_signal(signal.SIGINT)
            break
    _, stderr = running.communicate(timeout=60)
    assert running.returncode == 130
    assert stderr.rstrip().endswith("error: interrupted")
    assert not (kate.store / ".lock").exists()
    late = kate.call("sync-dags", REPLAYCTL_DEPLOY_TIMEOUT_S="2")
    assert late.code == 8
    assert "does not show" in late.document["errors"][0]["message"]


def test_without_airflow_the_copy_says_that_nobody_looked(person: Callable[..., Person]) -> None:
    leo = person("leo", airflow=False)
    answer = leo.call("sync-dags")
    assert answer.code == 0
    assert "not verified" in answer.document["warnings"][0]
    refusal = leo.call("sync-dags", "--wait")
    assert refusal.code == 2
    assert "airflow.username" in refusal.document["errors"][0]["message"]


def test_old_releases_go_and_undeploy_leaves_nothing_but_the_audit(person: Callable[[str], Person]) -> None:
    mia = person("mia")
    names = []
    for value in range(4):
        mia.write("dag_small", value)
        names.append(mia.call("sync-dags").data["release"])
    gc_plan = mia.call("gc", "--keep", "2", "--dry-run")
    assert sorted(gc_plan.data["removed"]) == sorted(names[:2])
    assert (mia.store / names[0]).exists()
    removal = mia.call("gc", "--keep", "2")
    assert removal.code == 0, removal.stderr
    assert {path.name for path in mia.store.glob("r_*")} == set(names[2:])
    assert {path.name for path in (mia.share / "files" / "mia").iterdir()} == set(names[2:])
    plan = mia.call("undeploy", "--delete-from-airflow", "--dry-run").data
    assert plan["dags_deleted"] == ["small_mia"]
    answer = mia.call("undeploy", "--delete-from-airflow", "--yes")
    assert answer.code == 0, answer.document
    assert answer.data["dags_deleted"] == ["small_mia"]
    assert mia.stubs() == []
    assert [path.name for path in mia.store.iterdir()] == ["audit.log"]
    assert mia.call("undeploy").document["status"] == "nothing-to-do"
    assert mia.call("run", "small").code == 6
    # And again from the beginning.
    assert mia.call("sync-dags").code == 0


def test_bad_names_are_refused_before_anything_is_touched(person: Callable[[str], Person]) -> None:
    nina = person("nina")
    before = sorted(path.name for path in nina.share.rglob("*"))
    for user in ("../x", "a b", "a;touch x", "a\nb", "ä", "", "-x", "x" * 33):
        answer = nina.call("sync-dags", "--no-wait", REPLAYCTL_USER=user)
        assert answer.code in (2, 3), user
    nina.dags.joinpath("dag_x_nina.py").write_text((nina.dags / "dag_small.py").read_text())
    answer = nina.call("sync-dags", "--no-wait")
    assert answer.code == 2
    assert "rename it to dag_x.py" in answer.document["errors"][0]["hint"]
    assert sorted(path.name for path in nina.share.rglob("*")) == before
