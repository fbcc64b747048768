"""The wheel, installed in empty environments the ways people install it."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    # From the sdist, so that both are complete.
    subprocess.run([sys.executable, "-m", "build", "-o", str(out), str(ROOT)], check=True, capture_output=True)
    (path,) = out.glob("*.whl")
    return path


def find_python(version: str) -> str | None:
    candidates = [
        f"python{version}",
        *map(str, Path(os.path.expanduser("~root/.pyenv/versions")).glob(f"{version}.*/bin/python")),
    ]
    for candidate in candidates:
        program = shutil.which(candidate)
        if program and not subprocess.run([program, "-c", "import venv"], check=False, capture_output=True).returncode:
            return program
    return None


def check(program: Path, home: Path) -> None:
    """The installed program finds what is shipped inside it, from a folder that has nothing of ours."""
    environ = {"HOME": str(home), "PATH": os.environ["PATH"], "USERNAME_ON_CLUSTER": "alice"}
    (home / ".local/state/replayctl/local/dags").mkdir(parents=True, exist_ok=True)

    def run(*argv: str) -> str:
        return subprocess.run(
            [str(program), *argv], cwd=home, env=environ, check=True, capture_output=True, text=True
        ).stdout

    assert run("--version") == "replayctl 0.1.0\n"
    document = json.loads(run("sync-dags", "--dry-run", "--output", "json"))
    assert len(document["data"]["dags"]) == 27
    assert document["data"]["dags"][0] == "two_stage_ml100k_alice"
    environments = json.loads(run("local", "environments", "--dry-run", "--output", "json"))
    assert set(environments["data"]["environments"]) == {"airflow", "workload", "mlflow"}


def test_the_wheel_holds_dags_and_docker_and_no_top_level_of_theirs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.partition("/")[0] for name in names} == {"replayctl", "replayctl-0.1.0.dist-info"}
    assert "replayctl/shipped/dags/workloads/split.py" in names
    assert "replayctl/shipped/docker/requirements/airflow.txt" in names
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_pip_installs_it(wheel: Path, tmp_path: Path, version: str) -> None:
    python = find_python(version)
    if python is None:
        pytest.skip(f"no Python {version} on this machine")
    subprocess.run([python, "-m", "venv", str(tmp_path / "venv")], check=True)
    subprocess.run([str(tmp_path / "venv/bin/python"), "-m", "pip", "install", "-q", str(wheel)], check=True)
    check(tmp_path / "venv/bin/replayctl", tmp_path)


def test_pipx_installs_it(wheel: Path, tmp_path: Path) -> None:
    environ = os.environ | {"PIPX_HOME": str(tmp_path / "pipx"), "PIPX_BIN_DIR": str(tmp_path / "bin")}
    pipx = [sys.executable, "-m", "pipx", "install", "--python", sys.executable, str(wheel)]
    subprocess.run(pipx, check=True, env=environ, capture_output=True)
    check(tmp_path / "bin/replayctl", tmp_path)


def test_uv_installs_it(wheel: Path, tmp_path: Path) -> None:
    environ = os.environ | {"UV_TOOL_DIR": str(tmp_path / "tools"), "UV_TOOL_BIN_DIR": str(tmp_path / "bin")}
    uv = [sys.executable, "-m", "uv", "tool", "install", "--python", sys.executable, str(wheel)]
    subprocess.run(uv, check=True, env=environ, capture_output=True)
    check(tmp_path / "bin/replayctl", tmp_path)
