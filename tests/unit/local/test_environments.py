"""Environments are checked before they are used, repaired if damaged, and created by one process at a time."""

import functools
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from replayctl import shipped
from replayctl.errors import NotFound, OperationFailed
from replayctl.local import environments, installer, packages
from replayctl.local.environments import Environment
from tests.reporters import RecordingReporter

UV = """#!{python}
import os, pathlib, sys
# Stands for uv: `venv` makes an environment with a Python that runs, `pip install` puts packages into it.
arguments = sys.argv[1:]
if arguments[0] == "venv":
    program = pathlib.Path(arguments[-1], "bin", "python")
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\\n")
    program.chmod(0o755)
else:
    python = pathlib.Path(arguments[arguments.index("--python") + 1])
    site = python.parent.parent / "lib" / "python3.11" / "site-packages"
    (site / "left.py").mkdir(parents=True)
    (site / "pkg_a").mkdir()
    (site / "pkg_a" / "__init__.py").write_text("")
    (site / "pkg_a-1.2.dist-info").mkdir()
    (site / "pkg_a-1.2.dist-info" / "RECORD").write_text("pkg_a/__init__.py,,\\n../../../bin/prog,,\\n")
    with open({log!r}, "a") as log:
        print(*arguments, os.environ.get("UV_DEFAULT_INDEX"), file=log)
    {then}
"""


@pytest.fixture
def pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "pinned.txt"
    path.write_text("# A list.\nPkg.A[extra]==1.2  # why\nother==3; sys_platform == 'win32'\n")
    monkeypatch.setattr(environments, "requirements", lambda name: path)
    uv = make_uv(tmp_path)
    monkeypatch.setattr(shipped, "uv_program", lambda: str(uv))
    return path


def make_uv(tmp_path: Path, then: str = "pass") -> Path:
    """A program that makes environments as uv does, runs `then`, and writes its arguments to `uv.log`."""
    uv = tmp_path / "uv"
    uv.write_text(UV.format(python=sys.executable, log=str(tmp_path / "uv.log"), then=then))
    uv.chmod(0o755)
    return uv


def make_python(tmp_path: Path) -> Path:
    """A Python of the right version whose pip knows an index."""
    python = tmp_path / "python"
    python.write_text(
        f"#!{sys.executable}\nimport sys\n"
        f"""if '-c' in sys.argv: print({environments.python_versions("mlflow")[0]!r})\n"""
        """else: print("global.index-url='https://mirror/simple'")\n"""
    )
    python.chmod(0o755)
    return python


def ensure(tmp_path: Path, reporter: RecordingReporter | None = None, *, thorough: bool = False) -> Environment:
    return environments.ensure(
        "mlflow", tmp_path / "cache", make_python(tmp_path), reporter or RecordingReporter(), thorough=thorough
    )


def test_a_whole_environment_is_left_alone(tmp_path: Path, pinned: Path) -> None:
    environment = ensure(tmp_path)
    assert environments.find_damage("mlflow", tmp_path / "cache", thorough=True) is None
    reporter = RecordingReporter()
    assert ensure(tmp_path, reporter, thorough=True) == environment
    assert reporter.events == []


@pytest.mark.parametrize(
    ("fault", "reason", "thorough"),
    [
        (lambda env: env.program("python").unlink(), "Python does not run", False),
        (lambda env: env.program("python").write_text("#!/no/such/interpreter\n"), "Python does not run", False),
        (lambda env: (env.site_packages / "pkg_a").rename(env.path / "elsewhere"), "missing: pkg_a", False),
        (lambda env: (env.site_packages / "pkg_a-1.2.dist-info").rename(env.path / "x"), "pkg-a", False),
        (
            lambda env: (env.site_packages / "pkg_a-1.2.dist-info").rename(env.site_packages / "pkg_a-1.3.dist-info"),
            "have another version: pkg-a",
            False,
        ),
        (lambda env: (env.site_packages / "pkg_a" / "__init__.py").unlink(), "__init__.py", True),
    ],
)
def test_damage_is_detected_reported_and_repaired(
    tmp_path: Path, pinned: Path, fault, reason: str, thorough: bool
) -> None:
    environment = ensure(tmp_path)
    fault(environment)
    damage = environments.find_damage("mlflow", tmp_path / "cache", thorough=thorough)
    assert damage is not None
    assert reason in damage
    reporter = RecordingReporter()
    ensure(tmp_path, reporter, thorough=thorough)
    assert any("is damaged" in text and reason in text for _, text in reporter.events)
    assert environments.find_damage("mlflow", tmp_path / "cache", thorough=True) is None


def test_a_damaged_environment_is_not_healed_from_the_cache_that_shares_its_files(tmp_path: Path, pinned: Path) -> None:
    environment = ensure(tmp_path)
    log = tmp_path / "uv.log"
    assert log.read_text().count("--no-deps") == 1
    assert "--no-cache" not in log.read_text()
    environment.program("python").unlink()
    ensure(tmp_path)
    assert log.read_text().count("--no-cache") == 1


def test_packages_come_from_where_pip_is_configured_to_take_them(
    tmp_path: Path, pinned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UV_DEFAULT_INDEX", raising=False)
    ensure(tmp_path)
    assert (tmp_path / "uv.log").read_text().endswith(" https://mirror/simple\n")
    (tmp_path / "cache").rename(tmp_path / "elsewhere")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://chosen/simple")
    ensure(tmp_path)
    assert (tmp_path / "uv.log").read_text().endswith(" https://chosen/simple\n")


def test_pips_configuration_is_translated_for_uv() -> None:
    listing = """WARNING: a = b
:env:.find-links='/a /b'
:env:.disable-pip-version-check='1'
global.index-url='https://u:p@global/simple'
global.extra-index-url='\\nhttps://one/simple\\nfile:///two/simple'
global.find-links='/c'
install.index-url='https://install/simple'
install.cert='/a b/ca.pem'
user.name=no literal"""
    assert installer.read_configuration(listing) == {
        "UV_DEFAULT_INDEX": "https://install/simple",
        "UV_INDEX": "https://one/simple file:///two/simple",
        "UV_FIND_LINKS": "/a,/b",
        "SSL_CERT_FILE": "/a b/ca.pem",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
    }
    assert installer.read_configuration("") == {}


def test_a_python_without_pip_has_no_configuration(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho No module named pip >&2\nexit 1\n")
    python.chmod(0o755)
    assert installer.pip_variables(python) == {}


def test_an_environment_from_before_the_inventory_counts(tmp_path: Path, pinned: Path) -> None:
    environment = ensure(tmp_path)
    (environment.path / ".replayctl-complete").write_text("")
    assert environments.find_damage("mlflow", tmp_path / "cache") is None


def test_pins_are_read_as_pip_reads_them(pinned: Path) -> None:
    assert packages.read_pins(pinned) == {"pkg-a": "1.2"}


SCRIPT = """
import pathlib, sys
from tests.reporters import RecordingReporter
from replayctl import shipped
from replayctl.local import environments
environments.requirements = lambda name: pathlib.Path(sys.argv[1])
shipped.uv_program = lambda: sys.argv[4]
environments.ensure("mlflow", pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]), RecordingReporter())
"""


def test_an_installation_that_outlives_its_killed_replayctl_is_ended_first(tmp_path: Path, pinned: Path) -> None:
    started = tmp_path / "uv.pid"
    (tmp_path / "slow").mkdir()
    slow = make_uv(
        tmp_path / "slow", f"pathlib.Path({str(started)!r}).write_text(str(os.getpid())); import time; time.sleep(600)"
    )
    arguments = [str(pinned), str(tmp_path / "cache"), str(make_python(tmp_path)), str(slow)]
    child = subprocess.Popen([sys.executable, "-c", SCRIPT, *arguments])
    deadline = time.monotonic() + 30
    while not (started.exists() and started.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    uv = psutil.Process(int(started.read_text()))
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert uv.is_running()
    environment = ensure(tmp_path)
    assert not uv.is_running() or uv.status() == psutil.STATUS_ZOMBIE
    assert environments.find_damage("mlflow", tmp_path / "cache") is None
    assert environment.site_packages.is_dir()


def test_an_unwritable_cache_is_reported(tmp_path: Path, pinned: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(OperationFailed, match="cannot create folder") as excinfo:
        ensure(tmp_path)
    assert "REPLAYCTL_CACHE_DIR" in (excinfo.value.hint or "")


@pytest.mark.parametrize("program", ["java", "python"])
def test_a_program_that_hangs_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    monkeypatch.setattr(environments, "_ANSWER_DEADLINE_S", 0.3)
    (tmp_path / "bin").mkdir()
    hanging = tmp_path / "bin" / program
    hanging.write_text("#!/bin/sh\nexec sleep 600\n")
    hanging.chmod(0o755)
    find_python = functools.partial(environments.find_python, "mlflow")
    find, configured = (environments.find_java_home, tmp_path) if program == "java" else (find_python, hanging)
    with pytest.raises(NotFound, match=str(tmp_path)):
        find(configured)


@pytest.mark.parametrize(("name", "version", "fits"), [("airflow", "3.13", True), ("workload-spark", "3.13", False)])
def test_lists_say_for_which_pythons_they_hold(tmp_path: Path, name: str, version: str, fits: bool) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho {version}\n")
    python.chmod(0o755)
    if fits:
        assert environments.find_python(name, python) == python
        return
    with pytest.raises(NotFound, match=rf"cannot find Python 3.11 for the {name} environment \(tried"):
        environments.find_python(name, python)


def test_spark_is_there_only_where_it_is_asked_for() -> None:
    assert environments.SPARK not in environments.needed(spark=False)
    assert environments.needed(spark=True) == (*environments.NAMES, environments.SPARK)
