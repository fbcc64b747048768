"""Finds the processes that replayctl has started, without knowing who started them.

A mark in the environment is inherited by every descendant and outlives every parent: a process whose leader was killed
is still known by it. Processes are compared by id and start time, so an id that the system has given to something
else is never taken for ours.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from replayctl.process import start_of

if TYPE_CHECKING:
    import psutil

# Settings ignore this name, since a task may call replayctl.
MARK_VARIABLE = "REPLAYCTL_MARK"
_STOP_DEADLINE_S = 30.0
_KILL_DEADLINE_S = 5.0
_KILL_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Leader:
    """A process that replayctl has started, in a session of its own."""

    pid: int
    started_s: float


def is_alive(leader: Leader) -> bool:
    """Whether this process still runs."""
    import psutil

    try:
        process = psutil.Process(leader.pid)
        return _is(process, leader) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def leader_of(pid: int) -> Leader:
    """The process with its start time; raises psutil.NoSuchProcess when it has already ended."""

    return Leader(pid, start_of(pid))


def find_marked(accepts: Callable[[str], bool], leaders: Collection[Leader] = ()) -> dict[psutil.Process, str]:
    """Every process whose mark is accepted and its descendants, each with its mark or that of its ancestor.

    A process that has lost its environment and its parents is found by its session, when that is one of `leaders`.
    The current process is excluded.
    """
    import psutil

    everything: list[tuple[psutil.Process, int, str | None]] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            parent = process.ppid()
            # The environments of other users' processes and of zombies are not readable.
            with contextlib.suppress(psutil.Error, OSError):
                everything.append((process, parent, process.environ().get(MARK_VARIABLE)))
                continue
            everything.append((process, parent, None))
    belonging = {process: mark for process, _, mark in everything if mark is not None and accepts(mark)}
    unmarked = [process for process, _, mark in everything if mark is None]
    belonging |= {process: "" for process in unmarked if _in_session_of(process, leaders, belonging)}
    by_pid = {process.pid: process for process in belonging}
    added = True
    while added:
        added = False
        for process, parent, mark in everything:
            ancestor = by_pid.get(parent)
            # A process with another mark belongs elsewhere.
            if ancestor is None or process in belonging or mark is not None:
                continue
            with contextlib.suppress(psutil.Error):
                if start_of(process.pid) >= start_of(ancestor.pid):
                    belonging[process] = belonging[ancestor]
                    by_pid[process.pid] = process
                    added = True
    return {
        process: mark
        for process, mark in belonging.items()
        if process.pid != os.getpid() and _status(process) != psutil.STATUS_ZOMBIE
    }


def end(find: Callable[[], Iterable[psutil.Process]]) -> list[psutil.Process]:
    """Ends all processes that `find` returns, with SIGTERM first, also new ones; returns those that survive."""
    import psutil

    processes = list(find())
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    psutil.wait_procs(processes, timeout=_STOP_DEADLINE_S)
    for _ in range(_KILL_ROUNDS):
        processes = list(find())
        if not processes:
            return []
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(processes, timeout=_KILL_DEADLINE_S)
    return list(find())


def is_listened_by(leader: Leader, port: int) -> bool:
    """Whether the socket that listens on the port of the loopback address belongs to the process or one below it."""
    import psutil

    if not is_alive(leader):
        return False
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(leader.pid)
        return any(_listens(member, port) for member in (process, *process.children(recursive=True)))
    return False


def is_taken(port: int) -> bool:
    """Whether anything accepts connections on the port of the loopback address."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def find_running_from(folders: Collection[Path]) -> list[psutil.Process]:
    """Processes whose program, or the script that their interpreter runs, is below one of the folders."""
    import psutil

    prefixes = tuple(f"{folder}{os.sep}" for folder in folders)
    users = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if prefixes and any(word.startswith(prefixes) for word in process.cmdline()[:2]):
                users.append(process)
    return users


def mark_of(process: psutil.Process) -> str:
    """The mark in a process's environment; empty without one, and where the environment is not readable."""
    import psutil

    with contextlib.suppress(psutil.Error, OSError):
        return str(process.environ().get(MARK_VARIABLE, ""))
    return ""


def describe(processes: Sequence[psutil.Process]) -> str:
    """Process ids and program names, for messages."""
    import psutil

    words = []
    for process in processes:
        with contextlib.suppress(psutil.Error):
            words.append(f"{process.pid} ({process.name()})")
    return ", ".join(words)


def _listens(process: psutil.Process, port: int) -> bool:
    import psutil

    try:
        connections = process.net_connections(kind="tcp4")
    except psutil.Error:
        return False
    return any(
        connection.status == psutil.CONN_LISTEN and connection.laddr[:2] in (("127.0.0.1", port), ("0.0.0.0", port))  # noqa: S104 (compared, not bound)
        for connection in connections
    )


def _in_session_of(process: psutil.Process, leaders: Collection[Leader], belonging: Collection[psutil.Process]) -> bool:
    """Whether the process is in the session of a leader that belongs to us, or did while it lived.

    The system gives no id of a session away while the session has members, so whoever is in it while its leader is
    gone was in it before.
    """
    import psutil

    try:
        session = os.getsid(process.pid)
        for leader in leaders:
            if session == leader.pid and start_of(process.pid) >= leader.started_s:
                return not psutil.pid_exists(session) or psutil.Process(session) in belonging
    except (OSError, psutil.Error):
        return False
    return False


def _is(process: psutil.Process, leader: Leader) -> bool:
    return bool(process.pid == leader.pid and start_of(process.pid) == leader.started_s)


def _status(process: psutil.Process) -> str:
    import psutil

    try:
        return str(process.status())
    except psutil.Error:
        return str(psutil.STATUS_ZOMBIE)
