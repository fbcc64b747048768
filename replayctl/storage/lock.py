"""The lock of a namespace on a target: taken with a deadline, named in every message, taken over from the dead."""

from __future__ import annotations

import contextlib
import functools
import getpass
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from replayctl.bundle.release import Release
from replayctl.console.events import Reporter
from replayctl.errors import Conflict, ReplayctlError
from replayctl.storage.answers import LockHolder, TargetState
from replayctl.storage.target import Target

_POLL_S = 1.0
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_PID_NAMESPACE = Path("/proc/self/ns/pid")


@contextlib.contextmanager
def held(
    target: Target,
    reporter: Reporter,
    *,
    what: str,
    timeout_s: float,
    break_lock: bool = False,
    names: Sequence[str] = (),
    release: Release | None = None,
    with_history: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[tuple[str, TargetState]]:
    """Holds the lock while the block runs; gives the token that the target's changes want, and the target's state.

    A holder that has died on this machine is taken over at once; any other is waited for, or with `break_lock` loses
    its lock. Raises Conflict that names the holder when it still has it after `timeout_s`, or when it cannot be taken
    away.
    """
    token = secrets.token_hex(8)
    take = functools.partial(
        target.lock, token, whoami() | {"for": what}, names=names, release=release, with_history=with_history
    )
    try:
        yield token, _take(target, take, reporter, timeout_s, break_lock, sleep)
    finally:
        # Also when taking it was interrupted: the script there may have come to its end all the same.
        try:
            target.unlock(token)
        except ReplayctlError as error:
            reporter.warn(f"the lock may have stayed behind: {error}")


def _take(
    target: Target,
    take: Callable[..., LockHolder | TargetState],
    reporter: Reporter,
    timeout_s: float,
    break_lock: bool,
    sleep: Callable[[float], None],
) -> TargetState:
    deadline = time.monotonic() + timeout_s
    taken_from: set[str] = set()
    answer = take()
    while isinstance(answer, LockHolder):
        stolen = ""
        # Each lock is taken away once: one that comes back, or that does not go, is waited for like any other.
        if answer.mark not in taken_from and (break_lock or is_dead(answer)):
            reporter.warn(
                f"breaking the lock of {answer}"
                if break_lock
                else f"taking over the lock of {answer}, which does not run any more"
            )
            taken_from.add(answer.mark)
            stolen = answer.mark
        elif time.monotonic() > deadline:
            raise Conflict(
                f"the namespace {target.owner} on {target.shell.name} is locked by {answer}; waited {timeout_s:.0f} s",
                hint="wait for it; or, if you know that it is dead: the same command with --break-lock",
            )
        else:
            reporter.status(f"waiting for {answer}, who deploys to {target.owner}")
            sleep(_POLL_S)
        answer = take(stolen=stolen)
    return answer


def whoami() -> dict[str, object]:
    """Who and which process asks, for a lock or an audit line."""
    import psutil

    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return {
        "user": user,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
        "boot": _machine_run(),
    }


def is_dead(holder: LockHolder) -> bool:
    """Whether the holder was a process of this machine that is gone; False when that cannot be known from here."""
    import psutil

    if holder.who.get("host") != socket.gethostname() or holder.process is None:
        return False
    pid, started = holder.process
    if holder.who.get("boot") != _machine_run():
        # Another machine or container of the same name, or this one before it was started anew: its words do not tell.
        return False
    try:
        return bool(abs(psutil.Process(pid).create_time() - started) > 1.0)
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False


def _machine_run() -> str:
    """This start of this machine and the process list that we see, as text; empty parts where the system tells none."""
    try:
        return f"{_BOOT_ID.read_text().strip()}/{os.readlink(_PID_NAMESPACE)}"
    except OSError:
        return "/"
