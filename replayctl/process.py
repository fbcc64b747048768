"""Runs local programs by argument list, in a process group of their own that never outlives the call."""

from __future__ import annotations

import contextlib
import fcntl
import os
import queue
import selectors
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from replayctl.errors import NotFound, RemoteCommandFailed, TimedOut

_TAIL_LINES = 200
_TAIL_CHARACTERS = 20_000
_GRACE_S = 5.0
_TICK_S = 0.2
# How long the lines of a program that has ended may take to be read.
_LAST_LINES_S = 2.0
_READ_BYTES = 65536
_PIPE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Completed:
    """How a program ended; `tail` are the last lines of what it printed, both streams in one."""

    argv: tuple[str, ...]
    returncode: int
    tail: str


def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    on_line: Callable[[str], None] | None = None,
    timeout_s: float | None = None,
    check: bool = True,
) -> Completed:
    """Runs a program to its end; each line goes to `on_line` as it comes.

    Raises NotFound when the program does not exist, TimedOut after `timeout_s`, and with `check` RemoteCommandFailed
    when its status is not 0. An early end of this call, such as by Ctrl-C, also ends the program's whole group.
    """
    child = _start(argv, env, cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    try:
        for line in _lines(child, timeout_s, argv):
            tail.append(line)
            if on_line is not None:
                on_line(line)
        returncode = child.wait()
    except BaseException:
        _end_group(child)
        raise
    done = Completed(tuple(argv), returncode, "\n".join(tail))
    if check and returncode != 0:
        raise RemoteCommandFailed(
            f"{shlex.join(argv[:3])}{' …' if len(argv) > 3 else ''} ended with status {returncode}",
            details="\n".join(list(tail)[-20:]),
        )
    return done


@dataclass(frozen=True, slots=True)
class Exchanged:
    """The result of a program that read input; `stderr` is text, cut to its last part."""

    returncode: int
    stdout: bytes
    stderr: str


def exchange(
    argv: Sequence[str], data: bytes, *, env: Mapping[str, str] | None = None, timeout_s: float | None = None
) -> Exchanged:
    """Runs a program to its end with `data` on its stdin; stdout and stderr are kept separate.

    Raises NotFound when the program does not exist and TimedOut after `timeout_s`. An early end of this call, such as
    by Ctrl-C, also ends the program's whole group.
    """
    child = _start(argv, env, None, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with child:
        try:
            stdout, stderr = child.communicate(data, timeout=timeout_s)
        except BaseException as error:
            _end_group(child)
            if isinstance(error, subprocess.TimeoutExpired):
                raise _too_late(argv, timeout_s) from None
            raise
    return Exchanged(child.returncode, stdout, stderr.decode("utf-8", errors="replace")[-_TAIL_CHARACTERS:])


def feed(
    argv: Sequence[str],
    chunks: Iterable[bytes],
    *,
    env: Mapping[str, str] | None = None,
    silence_s: float,
) -> Exchanged:
    """Runs a program to its end while `chunks` go to its stdin one at a time, so that memory stays flat.

    Raises NotFound without the program, and TimedOut when for `silence_s` it neither takes nor says anything: the
    whole may last as long as it has to. A program that closes its stdin early is listened to until its end. Whatever
    ends this call early, an error of `chunks` and Ctrl-C among it, ends the program's whole group too.
    """
    child = _start(argv, env, None, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with child:
        try:
            stdout, stderr = _feed(child, iter(chunks), argv, silence_s)
            child.wait(silence_s)
        except BaseException as error:
            _end_group(child)
            if isinstance(error, subprocess.TimeoutExpired):
                raise _silent(argv, silence_s) from None
            raise
    return Exchanged(child.returncode, stdout, stderr.decode("utf-8", errors="replace"))


def _feed(
    child: subprocess.Popen[bytes], chunks: Iterator[bytes], argv: Sequence[str], silence_s: float
) -> tuple[bytes, bytes]:
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stderr is not None
    stdout, stderr = bytearray(), bytearray()
    rest = memoryview(b"")
    stdin = child.stdin
    os.set_blocking(stdin.fileno(), False)
    _widen(stdin.fileno())
    with selectors.DefaultSelector() as selector:
        selector.register(stdin, selectors.EVENT_WRITE)
        selector.register(child.stdout, selectors.EVENT_READ, stdout)
        selector.register(child.stderr, selectors.EVENT_READ, stderr)
        while selector.get_map():
            ready = selector.select(silence_s)
            if not ready:
                raise _silent(argv, silence_s)
            for key, _ in ready:
                if key.fileobj is not stdin:
                    data = os.read(key.fd, _READ_BYTES)
                    key.data.extend(data)
                    if not data:
                        selector.unregister(key.fileobj)
                    continue
                if not rest:
                    rest = memoryview(next(chunks, b""))
                written = _write_some(key.fd, rest)
                rest = rest[written or 0 :]
                # Either all is sent, or the program wants no more of it.
                if not written:
                    selector.unregister(stdin)
                    with contextlib.suppress(BrokenPipeError):
                        stdin.close()
            del stderr[:-_TAIL_CHARACTERS]
    return bytes(stdout), bytes(stderr)


def _widen(descriptor: int) -> None:
    """Lets a pipe hold more, where the system can, so that the two ends take turns less often."""
    if sys.platform == "linux":
        # Users may only have so many large pipes.
        with contextlib.suppress(OSError):
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _write_some(descriptor: int, data: memoryview) -> int:
    """How many bytes went into a pipe that is ready; 0 without data, and when nobody reads it any more."""
    try:
        return os.write(descriptor, data) if data else 0
    except BrokenPipeError:
        return 0


def spawn_detached(argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, log_path: Path) -> int:
    """Starts a program that keeps running after us, in a session of its own; returns its process id.

    Raises NotFound when the program does not exist.
    """
    with log_path.open("ab") as log:
        child = _start(argv, env, cwd, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
    # The child is not waited for here on purpose; Popen would complain about that when it is collected.
    child.returncode = 0
    return child.pid


def _start(
    argv: Sequence[str],
    env: Mapping[str, str] | None,
    cwd: Path | None,
    *,
    stdin: int,
    stdout: int | IO[bytes],
    stderr: int,
) -> subprocess.Popen[bytes]:
    """The program in a session of its own, so that its whole group can be ended; raises NotFound when it is missing."""
    try:
        return subprocess.Popen(
            list(argv),
            env=dict(env) if env is not None else None,
            cwd=cwd,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        raise NotFound(f"cannot run {argv[0]}: {error.strerror}") from error


def start_of(pid: int) -> float:
    """When a process of this machine started, in seconds: the same whenever it is asked, and only good to compare.

    On Linux it counts from the boot, since the date of the start moves with every step of the clock. Raises
    psutil.NoSuchProcess, or another psutil.Error if the system does not tell.
    """
    import psutil

    if sys.platform != "linux":
        return float(psutil.Process(pid).create_time())
    try:
        status = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        raise psutil.NoSuchProcess(pid) from None
    except OSError:
        raise psutil.AccessDenied(pid) from None
    # proc_pid_stat(5): the 22nd field. The second one is a name, which may have anything in it but ends the brackets.
    return int(status.rpartition(b")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def signals_deferred() -> Iterator[None]:
    """Defers Ctrl-C, TERM and HUP for the few moments in which a partial change could be lost.

    Works in the main thread; elsewhere signals do not arrive anyway.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for number in kept:
        # A handler, not SIG_IGN: children inherit what is ignored, not what is handled.
        signal.signal(number, lambda number, _frame: arrived.append(number))
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
        for late in arrived:
            os.kill(os.getpid(), late)


def _lines(child: subprocess.Popen[bytes], timeout_s: float | None, argv: Sequence[str]) -> Iterator[str]:
    """The child's lines until it closes its output; a thread reads, so that a silent child cannot block the timeout."""
    lines: queue.SimpleQueue[tuple[float, bytes] | None] = queue.SimpleQueue()
    abandoned = threading.Event()
    assert child.stdout is not None
    stream = child.stdout

    def read() -> None:
        with stream:
            for line in stream:
                if abandoned.is_set():
                    break
                lines.put((time.monotonic(), line))
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    ended_at: float | None = None
    try:
        while True:
            if ended_at is None and child.poll() is not None:
                ended_at = time.monotonic()
            try:
                entry = lines.get(timeout=_TICK_S)
            except queue.Empty:
                # A grandchild may hold the pipe open for longer than the child lives.
                if ended_at is not None:
                    return
            else:
                if entry is None:
                    # The output is closed, but the child may still run.
                    _wait(child, deadline, timeout_s, argv)
                    return
                read_at, line = entry
                if ended_at is not None and read_at > ended_at + _LAST_LINES_S:
                    # It may also write to it.
                    return
                yield line.decode("utf-8", errors="replace").rstrip("\r\n")
            if deadline is not None and time.monotonic() > deadline:
                raise _too_late(argv, timeout_s)
    finally:
        abandoned.set()


def _wait(child: subprocess.Popen[bytes], deadline: float | None, timeout_s: float | None, argv: Sequence[str]) -> None:
    try:
        child.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise _too_late(argv, timeout_s) from None


def _too_late(argv: Sequence[str], timeout_s: float | None) -> TimedOut:
    return TimedOut(f"{argv[0]} did not end within {timeout_s or 0:g} s")


def _silent(argv: Sequence[str], silence_s: float) -> TimedOut:
    return TimedOut(f"{argv[0]} did not read or write anything for {silence_s:g} s")


def _end_group(child: subprocess.Popen[bytes]) -> None:
    with signals_deferred():
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, number)
            # SIGKILL follows even a clean end: children may outlive their leader.
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(_GRACE_S)
