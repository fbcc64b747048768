"""The lock of a namespace on a target: acquired with a deadline, its holder named in every message."""

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

from replayctl import process
from replayctl.bundle.release import Release
from replayctl.console.events import Reporter
from replayctl.errors import AuthFailed, Conflict, ReplayctlError
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
    """Holds the lock while the block runs; yields the token that the target's changes require, and the target's state.

    The lock of a dead process of this machine is taken over at once; any other is waited for, or broken with
    `break_lock`. Raises Conflict with the holder's name when it is still held after `timeout_s`, or cannot be broken.
    """
    token = secrets.token_hex(8)
    take = functools.partial(
        target.lock, token, whoami() | {"for": what}, names=names, release=release, with_history=with_history
    )
    is_held = False
    try:
        state = _take(target, take, reporter, timeout_s, break_lock, sleep)
        is_held = True
        yield token, state
    finally:
        # Also when acquiring it was interrupted: the script there may have succeeded all the same.
        try:
            target.unlock(token)
        except ReplayctlError as error:
            # An account that is denied access has not acquired a lock either.
            if is_held or not isinstance(error, AuthFailed):
                reporter.warn(f"the lock may not have been released: {error}")


def _take(
    target: Target,
    take: Callable[..., LockHolder | TargetState],
    reporter: Reporter,
    timeout_s: float,
    break_lock: bool,
    sleep: Callable[[float], None],
) -> TargetState:
    deadline = time.monotonic() + timeout_s
    broken: set[str] = set()
    answer = take()
    while isinstance(answer, LockHolder):
        stolen = ""
        # A lock is broken once: one that comes back, or that does not go away, is waited for like any other.
        if answer.mark not in broken and (break_lock or is_dead(answer)):
            reporter.warn(
                f"breaking the lock of {answer}"
                if break_lock
                else f"taking over the lock of {answer}, which is no longer running"
            )
            broken.add(answer.mark)
            stolen = answer.mark
        elif time.monotonic() > deadline:
            raise Conflict(
                f"the namespace {target.owner} on {target.shell.name} is locked by {answer}; waited {timeout_s:.0f} s",
                hint="wait for it to finish; if it is dead, run the same command with --break-lock",
            )
        else:
            reporter.status(f"waiting for {answer}, who is deploying to {target.owner}")
            sleep(_POLL_S)
        answer = take(stolen=stolen)
    return answer


def whoami() -> dict[str, object]:
    """The user, host and process of this call, for a lock or an audit line."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return {
        "user": user,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": process.start_of(os.getpid()),
        "boot": _machine_run(),
    }


def is_dead(holder: LockHolder) -> bool:
    """Whether the holder was a process of this machine that has ended; False when that cannot be determined."""
    import psutil

    if holder.who.get("host") != socket.gethostname() or holder.process is None:
        return False
    pid, started = holder.process
    if holder.who.get("boot") != _machine_run():
        # Another machine or container of the same name, or this one before a reboot: its process ids mean nothing here.
        return False
    try:
        return process.start_of(pid) != started
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False


def _machine_run() -> str:
    """Identifies this boot of this machine and its PID namespace; parts are empty where the system has none."""
    try:
        return f"{_BOOT_ID.read_text().strip()}/{os.readlink(_PID_NAMESPACE)}"
    except OSError:
        return "/"
