"""Files that remain on the disk are listed with their sizes, and a purge removes them and nothing else."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from replayctl import cli
from replayctl.clients.airflow_runs import RunInfo
from replayctl.commands.local import format_bytes
from replayctl.local import leftovers, stack
from replayctl.local.disk import size_of
from replayctl.settings.declared import Settings
from replayctl.settings.load import load_settings
from tests.reporters import RecordingReporter

SOURCE = "source '{}'"


@pytest.fixture
def populated(clean_environment: Path, tmp_path: Path) -> Settings:
    settings = load_settings(None, environ={}, cwd=tmp_path)
    home, environments = settings.local.home, settings.cache_dir / "environments"
    for name in ("data/replay", "artifacts/a", "mlflow", "airflow", "dags", "logs", "notes"):
        (home / name).mkdir(parents=True)
        (home / name / "file").write_text("x" * 10_000)
    for name in ("stack.json", "identity", "lock"):
        (home / name).write_text("")
    for name in ("airflow-0123456789ab", "my-own-folder"):
        (environments / name / "bin").mkdir(parents=True)
    (environments / "airflow-0123456789ab.lock").write_text("")
    script = clean_environment / ".bash_completions" / "replayctl.sh"
    script.parent.mkdir()
    script.write_text("complete")
    (clean_environment / ".bashrc").write_text(f"alias ll='ls -l'\n{SOURCE.format(script)}\nexport A=1\n")
    (clean_environment / ".bashrc").chmod(0o640)
    return settings


def test_a_purge_removes_what_was_listed_and_nothing_else(populated: Settings, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    (populated.local.home / "artifacts" / "link").symlink_to(outside)
    (populated.local.home / "spark").symlink_to(outside)
    listing = leftovers.find_leftovers(populated)
    assert {leftover.path.name for leftover in listing} == {
        *("data", "artifacts", "mlflow", "airflow", "dags", "logs", "spark"),
        *("airflow-0123456789ab", "replayctl.sh"),
    }
    assert all(leftover.bytes >= 10_000 for leftover in listing if leftover.path.name in ("data", "mlflow"))
    leftovers.purge(populated, listing, RecordingReporter())
    assert leftovers.find_leftovers(populated) == ()
    assert (outside / "kept").exists()
    # Not of our making.
    assert [path.name for path in populated.local.home.iterdir()] == ["notes"]
    assert [path.name for path in (populated.cache_dir / "environments").iterdir()] == ["my-own-folder"]
    rc_file = Path.home() / ".bashrc"
    assert rc_file.read_text() == "alias ll='ls -l'\nexport A=1\n"
    assert rc_file.stat().st_mode & 0o777 == 0o640


@pytest.fixture
def running(populated: Settings) -> Iterator[Callable[[str], int]]:
    """Starts programs of the environment with a mark; returns their process ids."""
    python = populated.cache_dir / "environments" / "airflow-0123456789ab" / "bin" / "python"
    python.symlink_to(sys.executable)
    started: list[subprocess.Popen[bytes]] = []

    def start(mark: str) -> int:
        user = subprocess.Popen(
            [str(python), "-c", "print(flush=True); input()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "REPLAYCTL_MARK": mark},
        )
        started.append(user)
        assert user.stdout is not None
        user.stdout.readline()
        return user.pid

    yield start
    for user in started:
        user.kill()
        user.communicate()


@pytest.mark.parametrize(
    ("mark", "name"), [("stack 0a mlflow /other", "the local stack in /other"), ("", r"\d+ \(\S+\)")]
)
def test_environments_that_others_use_stay_and_the_rest_goes(
    populated: Settings, running: Callable[[str], int], capfd: pytest.CaptureFixture[str], mark: str, name: str
) -> None:
    running(mark)
    code, answer = call(capfd, "local", "down", "--purge", "--yes")
    assert (code, answer["status"]) == (0, "ok")
    (warning,) = answer["warnings"]
    assert re.fullmatch(f"keeping the environments, since they are in use by {name}", warning)
    assert [Path(leftover["path"]).name for leftover in answer["data"]["kept"]] == ["airflow-0123456789ab"]
    assert not (populated.local.home / "data").exists()
    assert (populated.cache_dir / "environments" / "airflow-0123456789ab" / "bin" / "python").exists()


def test_programs_of_this_stack_do_not_keep_its_environments(
    populated: Settings, running: Callable[[str], int], capfd: pytest.CaptureFixture[str]
) -> None:
    running(f"stack 0a mlflow {populated.local.home}")
    _, answer = call(capfd, "local", "down", "--purge", "--dry-run")
    assert (answer["data"]["stopped"], answer["data"]["kept"]) == (["mlflow"], [])


def call(capfd: pytest.CaptureFixture[str], *argv: str) -> tuple[int, dict]:
    code = cli.run(["--output", "json", *argv])
    return code, json.loads(capfd.readouterr().out)


def test_down_says_what_stays_and_a_purge_has_to_be_agreed_to(
    populated: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    code, answer = call(capfd, "local", "down")
    assert (code, answer["status"], answer["data"]["removed"]) == (0, "nothing-to-do", [])
    assert {Path(row["path"]).name for row in answer["data"]["kept"]} >= {"data", "airflow-0123456789ab"}
    code, answer = call(capfd, "local", "down", "--purge", "--dry-run")
    assert (code, answer["data"]["dry_run"]) == (0, True)
    code, answer = call(capfd, "local", "down", "--purge")
    assert (code, answer["errors"][0]["code"]) == (2, "usage")
    assert call(capfd, "local", "down", "--yes")[0] == 0
    assert (populated.local.home / "data").exists()
    code, answer = call(capfd, "local", "down", "--purge", "--yes")
    assert (code, answer["status"], answer["data"]["kept"]) == (0, "ok", [])
    assert not (populated.local.home / "data").exists()
    code, answer = call(capfd, "local", "down", "--purge", "--yes")
    assert (code, answer["status"]) == (0, "nothing-to-do")


def test_down_asks_before_it_interrupts_a_run(
    populated: Settings, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunInfo("two_stage_alice", "run1", "running", None, None)
    monkeypatch.setattr(stack, "running_runs", lambda settings: [run])
    code, answer = call(capfd, "local", "down", "--dry-run")
    assert (code, answer["warnings"]) == (0, ["this interrupts run run1 of two_stage_alice"])
    code, answer = call(capfd, "local", "down")
    assert (code, answer["errors"][0]["code"]) == (2, "usage")
    assert "interrupt 1 run?" in answer["errors"][0]["message"]
    assert call(capfd, "local", "down", "--yes")[0] == 0


def test_sizes_count_shared_blocks_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 1_000_000)
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    (tmp_path / "c").symlink_to("/usr")
    assert 1_000_000 <= size_of(tmp_path) < 1_100_000
    assert size_of(tmp_path / "nothing") == 0


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (23_456, "23 kB"), (999_600, "1.0 MB"), (2_900_000_000, "2.9 GB")],
)
def test_sizes_are_written_shortly(size: int, text: str) -> None:
    assert format_bytes(size) == text


def test_the_cache_of_uv_is_named_and_kept(
    populated: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    assert call(capfd, "local", "down")[1]["data"]["uv_cache"] is None
    (tmp_path / "cache").mkdir()
    assert cli.run(["local", "down", "--purge", "--yes"]) == 0
    assert f"{tmp_path / 'cache'}, shared with your other projects" in capfd.readouterr().out
    assert (tmp_path / "cache").exists()
