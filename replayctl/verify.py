"""The proof of a deploy: Airflow shows the new release on every task of its DAGs, and no import error names a stub."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from replayctl.airflow_api import DagInfo, ImportProblem
from replayctl.errors import Conflict, NotFound, OperationFailed, TimedOut, Unreachable
from replayctl.events import Reporter
from replayctl.plan import Plan
from replayctl.settings import Settings
from replayctl.target import Publication, Target

# The text that dags/dag_release.py puts on every task: the server showing it is the proof.
_RELEASE_LINE = "Release: "
_NUDGE_EVERY_S = 5.0
_NOTHING_TO_NUDGE = "it knows no DAG yet, and finds the first ones by itself, every refresh_interval (300 s unless set)"


@dataclass(frozen=True, slots=True)
class Expected:
    """What the server has to show: each DAG with its tasks (None: whatever tasks it has), and each stub.

    `free_stubs` are those whose DAGs nobody knows beforehand: all that the server finds in them, at least one.
    """

    release: str
    dags: Mapping[str, frozenset[str] | None]
    stubs: frozenset[str]
    free_stubs: frozenset[str]


class DagServer(Protocol):
    """What a deploy asks of Airflow."""

    def dags(self) -> Iterable[DagInfo]:
        """All DAGs known."""

    def tasks_docs(self, dag_id: str) -> Mapping[str, str]:
        """Task → its documentation text."""

    def import_problems(self) -> list[ImportProblem]:
        """Files that do not load."""

    def reparse(self, file_token: str) -> None:
        """Parse now, and look for new files."""


def check_owners(made: Plan, server: DagServer) -> None:
    """Raises Conflict when another file than ours shows one of our dag_ids on the server."""
    ours = {dag.dag_id for dag in made.dags}
    files = {*made.stubs, *made.of("delete")}
    for dag in server.dags():
        if dag.dag_id in ours and not dag.is_stale and Path(dag.fileloc).name not in files:
            raise Conflict(
                f"DAG {dag.dag_id} is another's on the server: it comes from {dag.fileloc}",
                hint="give your DAG another name",
            )


def expected_of(made: Plan) -> Expected:
    """What the server shows once a plan is published."""
    stubs = dict(zip(made.release.modules, made.stubs, strict=True))
    return Expected(
        made.release.name,
        dags={dag.dag_id: frozenset(step.name for step in dag.steps) for dag in made.dags},
        stubs=frozenset(made.stubs),
        free_stubs=frozenset(stubs[module] for module in made.release.free_modules),
    )


class Watcher:
    """Waits for a server to show a release. Made before the publish: import errors from before it are not ours."""

    def __init__(self, server: DagServer, settings: Settings, reporter: Reporter) -> None:
        self.server = server
        self._timeout_s = settings.deploy.timeout_s
        self._poll_s = settings.deploy.poll_s
        self._reporter = reporter
        self._old_problems = {(problem.filename, problem.timestamp) for problem in server.import_problems()}

    def wait_or_give_back(self, expected: Expected, target: Target, token: str, back: Publication | None) -> float:
        """`wait`; when the server cannot load the release, `back` is published before the error. Needs the lock."""
        try:
            return self.wait(expected)
        except Unreachable as error:
            raise Unreachable(
                f"{error}; {expected.release} is published, but nobody has seen whether it loads",
                hint="look again with: replayctl sync-dags",
            ) from error
        except OperationFailed as error:
            if back is None:
                raise
            target.publish(token, back)
            # Airflow forgets the DAGs of a file that does not load: without a parse they would stay away for a while.
            nudge(self.server, expected.stubs)
            what = f"{back.release} is published again" if back.release else "the stubs were removed again"
            raise OperationFailed(f"{error}; {what}", details=error.details, hint=error.hint) from error

    def wait(self, expected: Expected, sleep: Callable[[float], None] = time.sleep) -> float:
        """Returns the seconds until every expected DAG shows the release on each of its tasks.

        Raises OperationFailed with the server's traceback when a stub of the release does not load, TimedOut when the
        server does not show it in time.
        """
        started = time.monotonic()
        pending = dict(expected.dags)
        stubs = set(expected.free_stubs)
        next_nudge = started
        known_before = {dag.dag_id for dag in self.server.dags() if not dag.is_stale}
        while True:
            if time.monotonic() >= next_nudge:
                nudged = nudge(self.server, expected.stubs)
                next_nudge = time.monotonic() + _NUDGE_EVERY_S
            shown = [dag for dag, tasks in pending.items() if _shows(self.server, dag, tasks, expected.release)]
            for dag_id in shown:
                del pending[dag_id]
            stubs -= {name for name in stubs if _stub_shows(self.server, name, expected.release)}
            self._refuse_new_problems(expected)
            if not pending and not stubs:
                return time.monotonic() - started
            waited, missing = time.monotonic() - started, sorted({*pending, *stubs})
            if waited > self._timeout_s:
                raise TimedOut(
                    f"Airflow does not show {expected.release} in {', '.join(missing[:5])} after {waited:.0f} s",
                    hint="the copy is published; look again with: replayctl sync-dags"
                    if nudged
                    else f"the copy is published, but {_NOTHING_TO_NUDGE}; look again then: replayctl sync-dags",
                )
            changed = len(known_before.intersection(pending))
            why = f" ({changed} it knows already: read anew every min_serialized_dag_update_interval)" * bool(changed)
            why = why if nudged else f" ({_NOTHING_TO_NUDGE})"
            self._reporter.status(f"waiting until Airflow shows {expected.release}: {len(missing)} DAGs to come{why}")
            sleep(self._poll_s)

    def _refuse_new_problems(self, expected: Expected) -> None:
        for problem in self.server.import_problems():
            name = Path(problem.filename).name
            if name in expected.stubs and (problem.filename, problem.timestamp) not in self._old_problems:
                raise OperationFailed(f"Airflow cannot load {name}", details=problem.stack_trace.strip())


def nudge(server: DagServer, files: Set[str]) -> bool:
    """Asks for a parse of our files by name; one of any DAG makes the processor look for new files too.

    False when the server knows no DAG at all: then there is nothing to ask with.
    """
    tokens = {Path(dag.fileloc).name: dag.file_token for dag in server.dags()}
    ours = [token for name, token in tokens.items() if name in files]
    for token in ours or list(tokens.values())[:1]:
        server.reparse(token)
    return bool(tokens)


def _shows(server: DagServer, dag_id: str, tasks: Set[str] | None, release: str) -> bool:
    try:
        shown = server.tasks_docs(dag_id)
    except NotFound:
        return False
    whole = tasks is None or set(shown) == tasks
    return whole and all(f"{_RELEASE_LINE}{release}" in text for text in shown.values())


def _stub_shows(server: DagServer, stub: str, release: str) -> bool:
    found = [dag.dag_id for dag in server.dags() if Path(dag.fileloc).name == stub and not dag.is_stale]
    return bool(found) and all(_shows(server, dag_id, None, release) for dag_id in found)
