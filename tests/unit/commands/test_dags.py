"""undeploy: nothing is removed without a confirmation."""

import json
from pathlib import Path

import pytest

from dags.dag_entities import Namespace
from replayctl import cli
from replayctl.commands import dags
from tests.publishing import deploy, release_of, target_of, write_dags


@pytest.fixture
def deployed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "local"
    (home / "dags").mkdir(parents=True)
    monkeypatch.setenv("REPLAYCTL_LOCAL_HOME", str(home))
    monkeypatch.setenv("USERNAME_ON_CLUSTER", "alice")
    monkeypatch.setattr(dags, "_server", lambda _ctx: None)
    target = target_of({"dags": str(home / "dags"), "files": str(home / "spark_submit_files"), "owner": "alice"})
    deploy(target, Namespace("alice"), release_of(write_dags(tmp_path / "own", 1), "alice"))
    return home / "dags"


def test_undeploy_removes_nothing_unconfirmed(deployed: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code = cli.run(["undeploy", "--output", "json"])
    (error,) = json.loads(capfd.readouterr().out)["errors"]
    assert (code, error["hint"]) == (2, "pass --yes to confirm")
    assert "Remove 3 DAG files and 1 release in " in error["message"]
    assert len(list(deployed.glob("dag_*_alice.py"))) == 3
    assert cli.run(["undeploy", "--yes"]) == 0
    assert list(deployed.glob("dag_*_alice.py")) == []


def test_an_undeploy_of_nothing_asks_nothing(deployed: Path, capfd: pytest.CaptureFixture[str]) -> None:
    cli.run(["undeploy", "--yes"])
    capfd.readouterr()
    assert cli.run(["undeploy", "--output", "json"]) == 0
    assert json.loads(capfd.readouterr().out)["status"] == "nothing-to-do"
