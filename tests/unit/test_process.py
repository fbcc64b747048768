"""Programs: their output, their end, and no leftover processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from replayctl import process
from replayctl.errors import NotFound, RemoteCommandFailed, TimedOut


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_lines_come_as_they_are_printed_from_both_streams() -> None:
    lines: list[str] = []
    code = (
        "import sys; print('a'); sys.stdout.flush(); print('b', file=sys.stderr); sys.stderr.buffer.write(b'\\xff\\n')"
    )
    result = process.run(python(code), on_line=lines.append)
    assert lines == ["a", "b", "\ufffd"]
    assert result.tail == "a\nb\n\ufffd"


def test_a_bad_end_is_an_error_with_the_last_lines() -> None:
    with pytest.raises(RemoteCommandFailed, match="status 3") as excinfo:
        process.run(python("print('why'); raise SystemExit(3)"))
    assert excinfo.value.details == "why"
    assert process.run(python("raise SystemExit(3)"), check=False).returncode == 3


def test_a_missing_program_is_named() -> None:
    with pytest.raises(NotFound, match="no-such-program"):
        process.run(["no-such-program"])


def test_words_are_never_read_by_a_shell(tmp_path: Path) -> None:
    word = f"$(touch {tmp_path}/x); `touch {tmp_path}/y` *"
    assert process.run([sys.executable, "-c", "import sys; print(sys.argv[1])", word]).tail == word
    assert list(tmp_path.iterdir()) == []


def test_only_the_last_lines_are_kept() -> None:
    result = process.run(python("for n in range(100_000): print(n)"))
    assert result.tail.splitlines()[-1] == "99999"
    assert len(result.tail.splitlines()) == 200


def test_a_deadline_ends_the_whole_group() -> None:
    code = (
        "import subprocess, sys, time; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True); time.sleep(60)"
    )
    pids: list[str] = []
    with pytest.raises(TimedOut, match="within 1 s"):
        process.run(python(code), on_line=pids.append, timeout_s=1)
    # Killed, but nobody has collected it yet: that is up to init.
    until = time.monotonic() + 10
    while is_alive(int(pids[0])) and time.monotonic() < until:
        time.sleep(0.05)
    assert not is_alive(int(pids[0]))


def test_a_grandchild_that_holds_the_pipe_does_not_hold_us() -> None:
    started = time.monotonic()
    result = process.run(python("import subprocess; print(subprocess.Popen(['sleep', '30']).pid)"))
    assert time.monotonic() - started < 15
    os.kill(int(result.tail), signal.SIGKILL)


def test_a_grandchild_that_goes_on_writing_does_not_hold_us() -> None:
    started = time.monotonic()
    argv = ["sh", "-c", "(for i in $(seq 300); do echo on; sleep 0.1; done) & echo mine"]
    result = process.run(argv)
    assert time.monotonic() - started < 15
    assert "mine" in result.tail.splitlines()


_INTERRUPTED = """
import sys
from replayctl import process
process.run([sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(60)"],
            on_line=lambda line: print(line, flush=True))
"""


def test_ctrl_c_ends_the_program_too() -> None:
    child = subprocess.Popen(
        python(_INTERRUPTED), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=Path(__file__).parents[2]
    )
    assert child.stdout is not None
    pid = int(child.stdout.readline())
    child.send_signal(signal.SIGINT)
    child.wait(20)
    child.stdout.close()
    assert child.returncode != 0
    assert not psutil.pid_exists(pid)


def test_signals_wait_for_the_end_of_what_must_not_be_cut() -> None:
    order: list[str] = []
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - the order inside is what is tested
        with process.signals_deferred():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)
            order.append("done")
        order.append("never")
    assert order == ["done"]


def test_a_detached_program_outlives_the_call_and_writes_its_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    pid = process.spawn_detached(python("print('hello')"), env={}, cwd=tmp_path, log_path=log)
    psutil.Process(pid).wait(20)
    assert log.read_text() == "hello\n"


def test_what_is_fed_need_not_fit_and_the_answer_comes_whole() -> None:
    chunks = (b"x" * 1_000_000 for _ in range(50))
    result = process.feed(["sh", "-c", "wc -c; echo late >&2"], chunks, silence_s=20)
    assert (result.returncode, result.stdout.strip(), result.stderr) == (0, b"50000000", "late\n")


def test_a_program_that_stops_reading_still_returns_its_output() -> None:
    chunks = (b"x" * 100_000 for _ in range(1000))
    result = process.feed(["sh", "-c", "exec <&-; echo enough; exit 3"], chunks, silence_s=20)
    assert (result.returncode, result.stdout) == (3, b"enough\n")


def test_silence_ends_a_feed_and_its_group_and_slowness_does_not() -> None:
    result = process.feed(["sh", "-c", "for n in 1 2 3 4; do sleep 0.4; echo $n; done"], (), silence_s=1.2)
    assert result.stdout == b"1\n2\n3\n4\n"
    with pytest.raises(TimedOut, match="anything for 0.5 s"):
        process.feed(["sh", "-c", "sleep 600"], (b"x" * 1_000_000 for _ in range(5)), silence_s=0.5)


def test_an_error_of_the_source_ends_the_program() -> None:
    def broken() -> Iterator[bytes]:
        yield b"x"
        raise ValueError("the file changed")

    with pytest.raises(ValueError, match="the file changed"):
        process.feed(["cat"], broken(), silence_s=20)


def test_the_start_of_a_process_stays_the_same_when_the_clock_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        started = process.start_of(child.pid)
        assert started == process.start_of(child.pid)
        assert process.start_of(os.getpid()) <= started
        if sys.platform == "linux":
            # What psutil adds to the time since the boot is the date of the boot, which depends on the clock.
            monkeypatch.setattr(psutil.Process, "create_time", lambda _: 0.0)
        assert process.start_of(child.pid) == started
        assert child.stdin is not None
        child.stdin.write(b"\n")
    with pytest.raises(psutil.NoSuchProcess):
        process.start_of(child.pid)
