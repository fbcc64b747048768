"""The state of the embedded stack, read from its processes and servers; changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from replayctl.clients.airflow import AirflowApi
from replayctl.clients.mlflow import MlflowApi
from replayctl.errors import AuthFailed, NotReady, OperationFailed, Unreachable
from replayctl.local import processes, record
from replayctl.local.parts import API_SERVER, MLFLOW, PARTS
from replayctl.local.record import Part

if TYPE_CHECKING:
    import psutil

ENDED = "has ended"
# The names of the parts without pages in Airflow's health response.
_HEARTBEATS = {"scheduler": "scheduler", "dag-processor": "dag_processor", "triggerer": "triggerer"}


@dataclass(frozen=True, slots=True)
class PartState:
    """One part as it is now; `problem` is None when it works."""

    name: str
    pid: int
    port: int | None
    problem: str | None = None

    @property
    def url(self) -> str | None:
        """The address of its pages, if it has any."""
        return f"http://127.0.0.1:{self.port}" if self.port else None


@dataclass(frozen=True, slots=True)
class Stack:
    """The embedded stack: its folder, its parts, and its processes that have no living leader.

    `existed` when it was already running.
    """

    home: Path
    parts: tuple[PartState, ...] = ()
    orphans: tuple[int, ...] = ()
    existed: bool = False

    @property
    def running(self) -> bool:
        """Whether every part works."""
        return {part.name for part in self.parts if part.problem is None} == set(PARTS)

    @property
    def complete(self) -> bool:
        """Whether every part is alive, working or not, and there are no orphaned processes."""
        alive = {part.name for part in self.parts if part.problem != ENDED}
        return alive == set(PARTS) and not self.orphans

    @property
    def stopped(self) -> bool:
        """Whether no part runs and none is recorded."""
        return not self.parts and not self.orphans

    def url(self, name: str) -> str | None:
        """The address of a part's pages."""
        return next((part.url for part in self.parts if part.name == name), None)


@dataclass(frozen=True, slots=True)
class _Members:
    """The stack's processes as the system reports them, and its record."""

    parts: tuple[Part, ...]
    marks: Mapping[psutil.Process, str]

    def leads(self, part: Part) -> bool:
        """Whether the part's leader is alive and belongs to this stack."""
        return any(member.pid == part.leader.pid for member in self.marks) and processes.is_alive(part.leader)


def state_in(home: Path) -> Stack:
    """The stack in a folder, read from its processes and servers."""
    return _judge(home, _members(home), _problems_of_servers)


def processes_in(home: Path) -> Mapping[psutil.Process, str]:
    """Every process of the stack in a folder, with its mark."""
    return _members(home).marks


def running_parts(home: Path) -> tuple[str, ...]:
    """The names of the parts with running processes."""
    names = {record.part_in_mark(mark) for mark in processes_in(home).values()}
    return tuple(name for name in (*PARTS, "db") if name in names) or (("unnamed",) if names else ())


def address_in(home: Path, name: str, *needed: str) -> str:
    """The address of a part; raises NotReady when it or one of the `needed` parts does not run."""
    members = _members(home)
    hint = "run `replayctl local up`"
    if not members.parts and not members.marks:
        raise NotReady("the local stack is not running", hint=hint)
    stack = _judge(home, members, lambda _parts: {})
    for required in (name, *needed):
        part = next((part for part in stack.parts if part.name == required), None)
        problem = "is not running" if part is None else part.problem
        if problem is not None:
            raise NotReady(f"the local {required} {problem}", hint=hint)
    return str(stack.url(name))


def _members(home: Path) -> _Members:
    recorded = record.read_record(home)
    leaders = [part.leader for part in recorded]
    return _Members(recorded, processes.find_marked(lambda mark: record.is_marked_by(home, mark), leaders))


def _judge(home: Path, members: _Members, ask: Callable[[tuple[Part, ...]], Mapping[str, str]]) -> Stack:
    """The state of each part by its process and socket and, if those are right, by what `ask` returns."""
    problems: dict[str, str] = {}
    for part in members.parts:
        if not members.leads(part):
            problems[part.name] = ENDED
        elif part.port and not processes.is_listened_by(part.leader, part.port):
            taken = processes.is_taken(part.port)
            problems[part.name] = (
                f"does not listen on port {part.port}, which another program uses" if taken else "does not listen yet"
            )
    problems |= ask(tuple(part for part in members.parts if part.name not in problems))
    states = tuple(PartState(part.name, part.leader.pid, part.port, problems.get(part.name)) for part in members.parts)
    led = {part.name for part in members.parts if members.leads(part)}
    orphans = tuple(
        sorted(member.pid for member, mark in members.marks.items() if record.part_in_mark(mark) not in led)
    )
    return Stack(home, states, orphans)


def _problems_of_servers(listening: tuple[Part, ...]) -> dict[str, str]:
    """The problems that the servers report of themselves and of the parts without pages."""
    ports = {part.name: part.port for part in listening}
    problems = {}
    if ports.get(MLFLOW) and not MlflowApi(f"http://127.0.0.1:{ports[MLFLOW]}").is_healthy():
        problems[MLFLOW] = "does not answer"
    if not ports.get(API_SERVER):
        return problems
    try:
        health = AirflowApi(f"http://127.0.0.1:{ports[API_SERVER]}", username="", password="").health()
    except (Unreachable, OperationFailed, AuthFailed):
        return problems | {API_SERVER: "does not answer"}
    if health.get("metadatabase") != "healthy":
        problems[API_SERVER] = "cannot use its database"
    silent = [name for name, key in _HEARTBEATS.items() if name in ports and health.get(key) != "healthy"]
    return problems | dict.fromkeys(silent, "does not send heartbeats")
