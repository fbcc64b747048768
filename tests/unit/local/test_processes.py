"""All processes of a stack are found, whichever of them were killed, and no others."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from replayctl.local import processes, record
from replayctl.local.processes import MARK_VARIABLE, Leader


def wait_for(condition: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def run(script: str, mark: str | None = None) -> subprocess.Popen[str]:
        environ = {**os.environ, **({MARK_VARIABLE: mark} if mark else {})}
        child = subprocess.Popen(
            ["sh", "-c", script], env=environ, start_new_session=True, stdout=subprocess.PIPE, text=True
        )
        started.append(child)
        return child

    yield run
    for child in started:
        for member in processes.find_marked(lambda mark: mark.startswith("test")):
            member.kill()
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        assert child.stdout is not None
        child.stdout.close()


def marked(mark: str) -> set[int]:
    return {process.pid for process in processes.find_marked(lambda candidate: candidate == mark)}


def test_what_a_killed_leader_leaves_is_found_and_ended(start: Callable[..., subprocess.Popen[str]]) -> None:
    # The grandchild has left the session and lost its parent.
    leader = start(
        f"{sys.executable} -c 'import os,time; os.setsid(); print(os.getpid(), flush=True); time.sleep(600)' & wait",
        "test a",
    )
    assert leader.stdout is not None
    orphan = int(leader.stdout.readline())
    leader.kill()
    leader.wait()
    assert marked("test a") == {orphan}
    assert processes.end(lambda: processes.find_marked(lambda mark: mark == "test a")) == []
    assert not psutil.pid_exists(orphan)


def test_a_child_without_environment_is_found_by_its_parent_and_then_by_its_session(
    start: Callable[..., subprocess.Popen[str]],
) -> None:
    leader = start("env -i sh -c 'echo $$; exec sleep 600' & wait", "test b")
    assert leader.stdout is not None
    child = int(leader.stdout.readline())
    identity = processes.leader_of(leader.pid)
    wait_for(lambda: marked("test b") == {leader.pid, child})
    leader.kill()
    leader.wait()
    assert marked("test b") == set()
    by_session = processes.find_marked(lambda mark: mark == "test b", [identity])
    assert {process.pid for process in by_session} == {child}
    # The same id of another time leads nobody.
    assert not processes.find_marked(lambda mark: mark == "test b", [Leader(leader.pid, time.time() + 3600)])
    # The fixture does not find it any more.
    psutil.Process(child).kill()


def test_other_stacks_and_unmarked_processes_are_left_alone(start: Callable[..., subprocess.Popen[str]]) -> None:
    ours, others, plain = start("sleep 600", "test c"), start("sleep 600", "test d"), start("sleep 600")
    assert processes.end(lambda: processes.find_marked(lambda mark: mark == "test c")) == []
    ours.wait(10)
    assert others.poll() is None
    assert plain.poll() is None


def test_who_ignores_a_polite_end_is_killed_with_what_it_has_started_meanwhile(
    start: Callable[..., subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_STOP_DEADLINE_S", 0.5)
    leader = start("trap 'sleep 600 & ' TERM; echo ready; while :; do sleep 0.1; done", "test e")
    assert leader.stdout is not None
    leader.stdout.readline()
    assert processes.end(lambda: processes.find_marked(lambda mark: mark == "test e")) == []
    assert marked("test e") == set()


def test_a_reused_id_is_not_the_leader() -> None:
    me = processes.leader_of(os.getpid())
    assert processes.is_alive(me)
    assert not processes.is_alive(Leader(me.pid, me.started_s - 60))


def test_a_socket_belongs_to_who_listens_on_it(start: Callable[..., subprocess.Popen[str]]) -> None:
    listen = "s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True)"
    script = f"import socket, time; {listen}; time.sleep(600)"
    server = start(f'{sys.executable} -c "{script}" & wait', "test f")
    assert server.stdout is not None
    port = int(server.stdout.readline())
    leader = processes.leader_of(server.pid)
    assert processes.is_listened_by(leader, port)
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        occupied_port = stranger.getsockname()[1]
        assert processes.is_taken(occupied_port)
        assert not processes.is_listened_by(leader, occupied_port)
    assert not processes.is_taken(occupied_port)


def test_a_mark_is_of_one_folder_also_after_it_was_moved_and_not_of_its_copies(tmp_path: Path) -> None:
    home = tmp_path / "with space"
    home.mkdir()
    mark = record.mark(home, record.ensure_identity(home), "scheduler")
    assert record.part_in_mark(mark) == "scheduler"
    assert record.is_marked_by(home, mark)
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "identity").write_text((home / "identity").read_text())
    assert not record.is_marked_by(copy, mark)
    assert record.ensure_identity(copy) != mark.split()[1]
    moved = tmp_path / "moved"
    home.rename(moved)
    assert record.is_marked_by(moved, mark)
    # Whatever else is lost, the path is enough.
    (moved / "identity").unlink()
    assert record.is_marked_by(moved, record.mark(moved, "anything", "mlflow"))
    assert not record.is_marked_by(moved, "environment /somewhere")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"parts": [{"name": "mlflow"}]}', '{"parts": 3}', "\udcff"])
def test_a_truncated_record_is_ignored(tmp_path: Path, text: str) -> None:
    (tmp_path / "stack.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert record.read_record(tmp_path) == ()
