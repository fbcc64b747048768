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

from replayctl.console.events import Reporter
from replayctl.errors import Conflict, ReplayctlError
from replayctl.storage.target import LockHolder, Target, TargetState

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
    releases: Sequence[str] = (),
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[tuple[str, TargetState]]:
    """Holds the lock while the block runs; gives the token that the target's changes want, and the target's state.

    A holder that has died on this machine is taken over at once; any other is waited for, or with `break_lock` loses
    its lock. Raises Conflict that names the holder when it still has it after `timeout_s`.
    """
    token = secrets.token_hex(8)
    try:
        take = functools.partial(target.lock, token, whoami() | {"for": what}, names=names, releases=releases)
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
    stolen = ""
    while True:
        found = take(stolen=stolen)
        if isinstance(found, TargetState):
            return found
        stolen = ""
        if is_dead(found):
            reporter.warn(f"taking over the lock of {found}, which does not run any more")
            stolen = found.words
        elif break_lock:
            reporter.warn(f"breaking the lock of {found}")
            stolen = found.words
        elif time.monotonic() > deadline:
            raise Conflict(
                f"the namespace {target.owner} on {target.shell.name} is locked by {found}; waited {timeout_s:.0f} s",
                hint="wait for it; or, if you know that it is dead: the same command with --break-lock",
            )
        else:
            reporter.status(f"waiting for {found}, who deploys to {target.owner}")
            sleep(_POLL_S)


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

    who = holder.who
    pid, started = who.get("pid"), who.get("started")
    if who.get("host") != socket.gethostname() or not isinstance(pid, int) or not isinstance(started, (int, float)):
        return False
    if who.get("boot") != _machine_run():
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
