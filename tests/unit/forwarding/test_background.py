"""What a background forward leaves behind when its start does not come to an end: nothing."""

import errno
import json
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil
import pytest

from replayctl import process
from replayctl.errors import OperationFailed
from replayctl.forwarding import background
from replayctl.settings.declared import Settings
from replayctl.settings.load import load_settings

ANSWER = {"status": "ok", "data": {"forwards": {"yarn": "http://127.0.0.1:1"}}}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    environ = {"HOME": str(tmp_path), "REPLAYCTL_STATE_DIR": str(tmp_path / "state")}
    return load_settings("local", environ=environ, cwd=tmp_path)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[psutil.Process]]:
    """The processes that stand in for a forward, which says what $SAYS has and stays."""
    started: list[psutil.Process] = []
    spawn = process.spawn_detached

    def stand_in(argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, log_path: Path) -> int:
        pid = spawn(["sh", "-c", 'echo "$SAYS"; exec sleep 60'], env=env, cwd=cwd, log_path=log_path)
        started.append(psutil.Process(pid))
        return pid

    monkeypatch.setattr(process, "spawn_detached", stand_in)
    yield started
    for child in started:
        if child.is_running():
            child.kill()
            child.wait(10)


def test_a_forward_that_is_open_is_recorded_until_it_is_stopped(
    settings: Settings, started: list[psutil.Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAYS", json.dumps(ANSWER))
    forward = background.start(["yarn"], [], settings)
    assert background.running(settings) == [forward]
    assert forward.pid == started[0].pid
    assert background.stop([forward.id], settings, every=False) == [forward]
    assert not started[0].is_running()
    assert not list((settings.state_dir / "forwards").iterdir())


def test_ctrl_c_during_the_start_ends_the_process(
    settings: Settings, started: list[psutil.Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAYS", "")
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        background.start(["yarn"], [], settings)
    timer.join()
    assert not started[0].is_running()
    assert not list((settings.state_dir / "forwards").iterdir())


def test_a_forward_that_cannot_be_recorded_ends(
    settings: Settings, started: list[psutil.Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAYS", json.dumps(ANSWER))

    def refuse(path: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="No space"):
        background.start(["yarn"], [], settings)
    assert not started[0].is_running()
    assert not list((settings.state_dir / "forwards").iterdir())


def test_the_error_of_the_process_is_raised(
    settings: Settings, started: list[psutil.Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAYS", json.dumps({"status": "error", "errors": [{"code": "failed", "message": "no"}]}))
    with pytest.raises(OperationFailed, match="^no$"):
        background.start(["yarn"], [], settings)
    assert not started[0].is_running()
    assert not list((settings.state_dir / "forwards").iterdir())


@pytest.mark.parametrize(
    "record", ["[]", "{}", '{"pid": -1, "started": 0, "profile": "p", "addresses": {}}', "[" * 10_000, '{"pid": 1e400}']
)
def test_a_damaged_record_hides_no_other_forward(
    settings: Settings, started: list[psutil.Process], monkeypatch: pytest.MonkeyPatch, record: str
) -> None:
    monkeypatch.setenv("SAYS", json.dumps(ANSWER))
    forward = background.start(["yarn"], [], settings)
    (settings.state_dir / "forwards" / "0.json").write_text(record)
    assert background.running(settings) == [forward]
