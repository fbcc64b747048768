"""build-python-env: what is known before a build of minutes."""

import json
from pathlib import Path

import pytest

from replayctl import cli
from replayctl.bundle.package_files import Runtime
from replayctl.python_env import build
from replayctl.python_env.recipe import Interpreter, Recipe


def test_without_a_user_nothing_is_built(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(build, "plan_environment", pytest.fail)
    monkeypatch.delenv("LOGNAME", raising=False)
    code = cli.run(["build-python-env", "--publish", "--profile", "lab", "--output", "json"])
    assert (code, json.loads(capfd.readouterr().out)["errors"][0]["code"]) == (2, "usage")


def test_a_dry_run_says_where_it_would_be_published(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    runtime = Runtime("3.11", "2.12", "2.36", "x86_64")
    recipe = Recipe(tmp_path / "list.txt", ("a==1",), runtime, Interpreter("debian", ()))
    monkeypatch.setattr(build, "plan_environment", lambda _: recipe)
    names = ("dags", "spark_submit_files", "data_in_pods", "artifacts_in_pods")
    profile = {"user": "tester", "folders": {name: str(tmp_path / name) for name in names}}
    (tmp_path / "replayctl.yaml").write_text(json.dumps({"profiles": {"mine": profile}}))
    monkeypatch.chdir(tmp_path)
    code = cli.run(["build-python-env", "--publish", "--dry-run", "--profile", "mine", "--output", "json"])
    document = json.loads(capfd.readouterr().out)
    target = f"{tmp_path}/spark_submit_files/tester/packages on this machine"
    assert (code, document["data"]["published"]) == (0, {"outcome": "would be published", "target": target})
    assert not (tmp_path / "spark_submit_files").exists()
