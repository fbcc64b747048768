"""The workloads' wheel: equal content makes equal names and bytes, and it can be imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from replayctl.bundle import workload_wheel
from replayctl.bundle.package_files import Runtime, check_contents, read_package
from replayctl.bundle.workload_wheel import build_project_wheel, build_workload_wheel
from replayctl.errors import RemoteCommandFailed
from tests.conftest import ROOT

RUNTIME = Runtime(python="3.11", scala="2.12", glibc="2.28", machine="x86_64")


def folder_of(path: Path) -> Path:
    path.mkdir()
    return path


def test_equal_content_makes_equal_names_and_bytes(tmp_path: Path) -> None:
    dags = folder_of(tmp_path / "dags")
    (dags / "__init__.py").write_text("")
    (dags / "dag_a.py").write_text("def dag_specs(namespace):\n    return ()\n")
    one = build_workload_wheel(dags, folder_of(tmp_path / "1"), owner="Alice_B", python="3.11")
    os.utime(dags / "dag_a.py", (1, 1))
    (dags / "dag_a.py").chmod(0o600)
    two = build_workload_wheel(dags, folder_of(tmp_path / "2"), owner="Alice_B", python="3.11")
    assert one.name == two.name
    assert "+alice.b.h" in one.name
    assert one.read_bytes() == two.read_bytes()
    (dags / "dag_a.py").write_text("def dag_specs(namespace):\n    return [][:0]\n")
    three = build_workload_wheel(dags, folder_of(tmp_path / "3"), owner="Alice_B", python="3.11")
    assert three.name != one.name


def test_the_shipped_workloads_make_a_wheel_that_fits_and_can_be_imported(tmp_path: Path) -> None:
    path = build_workload_wheel(ROOT / "dags", tmp_path, owner="alice", python="3.11")
    package = read_package(path, RUNTIME)
    check_contents(package)
    assert package.product == "replayctl-workloads"
    assert package.warnings == ()
    code = "import replayctl_workloads.dag_entities as m; print(m.__file__)"
    result = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(path)}, capture_output=True, text=True, check=True
    )
    assert result.stdout.startswith(str(path))


def test_a_build_that_fails_names_what_the_user_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RemoteCommandFailed("uv ended with status 2", details="no space left")

    monkeypatch.setattr(workload_wheel.process, "run", fail)
    with pytest.raises(RemoteCommandFailed, match=f"cannot build the wheel of the workloads in {ROOT / 'dags'}$"):
        build_workload_wheel(ROOT / "dags", tmp_path, owner="alice", python="3.11")


def test_a_project_is_built_by_its_own_backend(tmp_path: Path) -> None:
    project = folder_of(tmp_path / "project")
    (project / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["uv_build"]\nbuild-backend = "uv_build"\n'
        '[project]\nname = "models"\nversion = "0.3"\n'
        '[tool.uv.build-backend]\nmodule-root = ""\n'
    )
    (folder_of(project / "models") / "__init__.py").write_text("")
    path = build_project_wheel(project, folder_of(tmp_path / "built"))
    assert path.name == "models-0.3-py3-none-any.whl"
    assert read_package(path, RUNTIME).size == path.stat().st_size
