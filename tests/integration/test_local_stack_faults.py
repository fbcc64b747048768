"""The embedded stack when it is killed, loses its ports, or runs out of disk space."""

import contextlib
import http.server
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from replayctl.local.parts import PARTS
from tests.conftest import ROOT

from .conftest import Stack, environ_for, processes_of

pytestmark = pytest.mark.integration


def wait_for(condition: object, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


@pytest.fixture
def lone(tmp_path: Path) -> Iterator[Stack]:
    """A stack of its own, stopped at the end with nothing left."""
    home = tmp_path / "lone home"
    environ = environ_for(home, tmp_path, REPLAYCTL_LOCAL_AIRFLOW_PORT="28180", REPLAYCTL_LOCAL_MLFLOW_PORT="28911")
    stack = Stack(home, ROOT / "dags", environ)
    try:
        yield stack
    finally:
        stack.call("local", "down", "--yes")
        wait_for(lambda: not processes_of(home), 15)


def leaders(stack: Stack) -> dict[str, int]:
    return {part["name"]: part["pid"] for part in json.loads((stack.home / "stack.json").read_text())["parts"]}


def kill(pid: int) -> None:
    process = psutil.Process(pid)
    process.kill()
    process.wait(10)


def schedulers(stack: Stack) -> list[int]:
    return [process.pid for process in processes_of(stack.home) if process.cmdline()[-2:-1] == ["scheduler"]]


def test_whatever_is_killed_is_named_and_nothing_is_left_or_doubled(lone: Stack) -> None:
    assert lone.call("local", "up").code == 0
    assert set(leaders(lone)) == set(PARTS)
    # Nothing listens but on loopback.
    for process in processes_of(lone.home):
        for connection in process.net_connections(kind="inet"):
            assert connection.status != psutil.CONN_LISTEN or connection.laddr.ip == "127.0.0.1", process.cmdline()

    before = {process.pid for process in processes_of(lone.home)}
    kill(leaders(lone)["scheduler"])
    state = lone.call("local", "status")
    assert (state.code, state.data["running"]) == (9, False)
    assert state.data["orphans"], "its workers are still there"
    assert any("scheduler has ended" in error["message"] for error in state.document["errors"])
    answer = lone.call("run", "two_stage_ml100k")
    assert (answer.code, answer.document["errors"][0]["code"]) == (6, "not-ready")
    assert "scheduler has ended" in answer.document["errors"][0]["message"]
    assert lone.call("local", "up").code == 0
    assert before.isdisjoint(process.pid for process in processes_of(lone.home))
    assert len(schedulers(lone)) == 1

    # The record may be lost: what runs is known all the same, and no second scheduler starts beside it.
    before = {process.pid for process in processes_of(lone.home)}
    (lone.home / "stack.json").write_text("")
    state = lone.call("local", "status")
    assert (state.code, set(state.data["orphans"])) == (9, before)
    assert lone.call("local", "up").code == 0
    assert before.isdisjoint(process.pid for process in processes_of(lone.home))

    for name, pid in leaders(lone).items():
        kill(pid)
        state = lone.call("local", "status")
        assert state.code == 9
        assert any(f"{name} has ended" in error["message"] for error in state.document["errors"])
    assert processes_of(lone.home), "workers outlive their leaders"
    assert lone.call("local", "down", "--yes").data["stopped"]
    assert not processes_of(lone.home)
    assert lone.call("local", "down", "--yes").document["status"] == "nothing-to-do"


class Stranger(http.server.ThreadingHTTPServer):
    """Answers everything with success, and remembers what it was sent."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        received: list[str] = []
        self.received = received

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self) -> None:
                received.append(f"{self.command} {self.path}")
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"{}")

            do_GET = do_POST = do_PATCH = do_CONNECT = answer

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", port), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


def test_a_program_that_takes_the_ports_first_is_neither_believed_nor_sent_anything(lone: Stack) -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "replayctl", "local", "up", "--output", "json"],
        cwd=ROOT,
        env=lone.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stderr is not None
    # Between the look at the ports and the servers that need seconds to bind them.
    while "starting MLflow" not in (line := child.stderr.readline()):
        assert line, "it ended early"
    assert "port 28911" in line
    assert "port 28180" in line
    strangers = [Stranger(28180), Stranger(28911)]
    try:
        out, story = child.communicate(timeout=300)
        answer = json.loads(out)
        assert (child.returncode, answer["data"]["running"]) == (0, True), story
        assert "another program has taken port" in story
        assert "28180" not in json.dumps(answer["data"]["services"])
        assert "28911" not in json.dumps(answer["data"]["services"])
    finally:
        for stranger in strangers:
            stranger.shutdown()
            stranger.server_close()
    assert [stranger.received for stranger in strangers] == [[], []]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_a_full_disk_ends_up_with_its_cause_and_no_process(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(small)], check=True)
    home = small / "home"
    stack = Stack(home, ROOT / "dags", environ_for(home, tmp_path, REPLAYCTL_LOCAL_AIRFLOW_PORT="28280"))
    try:
        started = stack.call("local", "up")
        assert started.code == 1, started.document
        assert "full" in started.document["errors"][0]["message"] or "space" in started.document["errors"][0]["message"]
        assert "df -h" in started.document["errors"][0]["hint"]
        assert not processes_of(home)
        with (small / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
            while True:
                filler.write(bytes(4096))
        for command in (("local", "up"), ("local", "data"), ("local", "down", "--yes"), ("local", "status")):
            answer = stack.call(*command)
            assert answer.code in (0, 1), (command, answer.document)
        assert not processes_of(home)
    finally:
        stack.call("local", "down", "--yes")
        subprocess.run(["umount", "-l", str(small)], check=True)
