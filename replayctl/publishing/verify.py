"""Verifies a deploy: Airflow shows the new release on every task of its DAGs, and no import error names a stub."""

from __future__ import annotations

import contextlib
import datetime
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from replayctl.bundle.specs import dags_text
from replayctl.clients.airflow import DagInfo, ImportProblem
from replayctl.clients.airflow_runs import RunInfo
from replayctl.clients.patience import wait_until
from replayctl.console.events import Reporter
from replayctl.errors import (
    AuthFailed,
    Conflict,
    NotFound,
    OperationFailed,
    ReplayctlError,
    TimedOut,
)
from replayctl.publishing.plan import Plan
from replayctl.settings.declared import Settings
from replayctl.settings.load import LOCAL_PROFILE
from replayctl.storage.target import Publication, Target

# The text that dags/dag_release.py puts on every task.
_RELEASE_LINE = "Release: "
_RELEASE = re.compile(r"\br_[0-9a-f]{16}\b")
_NUDGE_EVERY_S = 5.0
# How often Airflow looks for new files by itself, unless set otherwise.
_REFRESH_INTERVAL_S = 300.0
# `local up` sets min_serialized_dag_update_interval to 0.
_UPDATES_LOCAL = "within seconds"
_UPDATES = "every 30 s unless its min_serialized_dag_update_interval is set otherwise"
_NOTHING_TO_NUDGE = "Airflow looks for new files every refresh_interval, 300 s by default"


@dataclass(frozen=True, slots=True)
class Expected:
    """What the server has to show: each DAG with its tasks (None: any), and each stub.

    `free_stubs` are those whose DAGs only the server knows: it has to show at least one task of each.
    """

    release: str
    dags: Mapping[str, frozenset[str] | None]
    stubs: frozenset[str]
    free_stubs: frozenset[str]


class DagServer(Protocol):
    """What a deploy asks of Airflow."""

    def dags(self) -> Iterable[DagInfo]:
        """All DAGs that the server knows."""

    def tasks_docs(self, dag_id: str) -> Mapping[str, str]:
        """Task → its documentation text."""

    def import_problems(self) -> list[ImportProblem]:
        """Files that do not load."""

    def live_runs(self, dag_ids: Sequence[str]) -> Sequence[RunInfo]:
        """The runs of these DAGs that have not ended."""

    def reparse(self, file_token: str) -> None:
        """Asks for a parse of a file, and for a search for new files."""


def check_owners(plan: Plan, server: DagServer) -> None:
    """Raises Conflict if the server has one of the plan's dag_ids from a file that is not in the plan."""
    ours = {dag.dag_id for dag in plan.dags}
    files = {*plan.stubs, *plan.of("delete")}
    for dag in server.dags():
        if dag.dag_id in ours and not dag.is_stale and Path(dag.fileloc).name not in files:
            raise Conflict(
                f"DAG {dag.dag_id} already exists on the server, from {dag.fileloc}",
                hint="rename your DAG",
            )


def expected_of(plan: Plan) -> Expected:
    """What the server has to show once a plan is published."""
    stubs = dict(zip(plan.release.modules, plan.stubs, strict=True))
    return Expected(
        plan.release.name,
        dags={dag.dag_id: frozenset(step.name for step in dag.steps) for dag in plan.dags},
        stubs=frozenset(plan.stubs),
        free_stubs=frozenset(stubs[module] for module in plan.release.free_modules),
    )


class _DoesNotLoad(OperationFailed):
    """The server cannot load the release."""


class Watcher:
    """Waits for a server to show a release. Call `look` right before the publish, to ignore earlier import errors."""

    def __init__(self, server: DagServer, settings: Settings, reporter: Reporter) -> None:
        self.server = server
        self._timeout_s = settings.deploy.timeout_s
        self._poll_s = settings.deploy.poll_s
        self._reporter = reporter
        self._updates = _UPDATES_LOCAL if settings.profile == LOCAL_PROFILE else _UPDATES
        self._old_problems: set[tuple[str, datetime.datetime]] = set()
        self._known_before: set[str] = set()

    def look(self) -> None:
        """Records which DAGs the server knows and which files it cannot load."""
        self._old_problems = {(problem.filename, problem.timestamp) for problem in self.server.import_problems()}
        self._known_before = {dag.dag_id for dag in self.server.dags() if not dag.is_stale}

    def wait_or_give_back(self, expected: Expected, target: Target, token: str, back: Publication | None) -> float:
        """Like `wait`; if the server cannot load the release, publishes `back` before it raises. Needs the lock.

        If that fails as well, the OperationFailed says so beside the server's traceback.
        """
        try:
            return self.wait(expected)
        except _DoesNotLoad as error:
            if back is None:
                raise
            try:
                target.publish(token, back)
            except ReplayctlError as second:
                raise OperationFailed(
                    f"{error}; {back.release or 'the state before it'} could not be published again: {second}",
                    details=error.details,
                    hint=second.hint or "run `replayctl rollback`",
                ) from second
            # Airflow drops the DAGs of a file that does not load; a parse brings them back at once.
            with contextlib.suppress(ReplayctlError):
                nudge(self.server, expected.stubs)
            what = f"{back.release} is published again" if back.release else "the stubs were removed again"
            raise OperationFailed(f"{error}; {what}", details=error.details, hint=error.hint) from error
        except AuthFailed as error:
            message = f"{error}; published {expected.release} without verifying it"
            raise AuthFailed(message, details=error.details, hint=error.hint) from error

    def wait(self, expected: Expected, sleep: Callable[[float], None] = time.sleep) -> float:
        """Returns the seconds until every expected DAG shows the release on each of its tasks.

        Raises OperationFailed with the server's traceback if a stub of the release does not load, AuthFailed if the
        server does not allow the request, TimedOut if it does not show the release in time: five minutes more if no
        parse can be requested. Requests are retried while the server is unavailable.
        """
        started = time.monotonic()
        pending, stubs = dict(expected.dags), set(expected.free_stubs)
        next_nudge, nudged, extra_s = started, True, 0.0

        def look() -> bool | None:
            nonlocal next_nudge, nudged, extra_s
            due = time.monotonic() >= next_nudge
            # A server may have thousands of DAGs: list them once per look.
            known = tuple(self.server.dags()) if due or stubs else ()
            if due:
                nudged = _nudge(self.server, expected.stubs, known)
                next_nudge = time.monotonic() + _NUDGE_EVERY_S
                extra_s = extra_s if nudged else _REFRESH_INTERVAL_S
            for dag_id in list(pending):
                if _shows(self.server, dag_id, pending[dag_id], expected.release):
                    del pending[dag_id]
            stubs.difference_update([name for name in stubs if _stub_shows(self.server, name, known, expected.release)])
            self._refuse_new_problems(expected)
            if not pending and not stubs:
                return True
            self._say(expected, pending, stubs, nudged=nudged)
            return None

        def late(waited: float, trouble: ReplayctlError | None) -> TimedOut:
            return self._too_late(expected, [*pending, *stubs], waited, trouble, nudged=nudged)

        wait_until(
            look,
            late,
            timeout_s=lambda: self._timeout_s + extra_s,
            poll_s=self._poll_s,
            reporter=self._reporter,
            sleep=sleep,
        )
        return time.monotonic() - started

    def _refuse_new_problems(self, expected: Expected) -> None:
        for problem in self.server.import_problems():
            name = Path(problem.filename).name
            if name not in expected.stubs or (problem.filename, problem.timestamp) in self._old_problems:
                continue
            # The server may have parsed the previous release just now: the traceback names the release.
            named = set(_RELEASE.findall(problem.stack_trace))
            if not named or expected.release in named:
                raise _DoesNotLoad(f"Airflow cannot load {name}", details=problem.stack_trace.strip())

    def _too_late(
        self, expected: Expected, missing: Sequence[str], waited: float, trouble: ReplayctlError | None, *, nudged: bool
    ) -> TimedOut:
        last = f"; last error: {trouble}" if trouble else ""
        if not last and any(name in expected.free_stubs for name in missing):
            last = "; a DAG file without tasks cannot be verified"
        why = "" if nudged else f" ({_NOTHING_TO_NUDGE})"
        return TimedOut(
            f"Airflow does not show {expected.release} in {', '.join(sorted(missing)[:5])} after {waited:.0f} s{last}",
            hint=f"run `replayctl sync-dags` to check again; the release is published{why}",
        )

    def _say(self, expected: Expected, pending: Mapping[str, object], stubs: Set[str], *, nudged: bool) -> None:
        changed = len(self._known_before.intersection(pending))
        why = f" ({changed} changed: Airflow updates such DAGs {self._updates})" * bool(changed)
        why = why if nudged else f" ({_NOTHING_TO_NUDGE})"
        rest = dags_text(len(pending), len(stubs))
        self._reporter.status(f"waiting for Airflow to show {expected.release}: {rest} left{why}")


def nudge(server: DagServer, files: Set[str]) -> bool:
    """Asks for a parse of these files, or of any DAG's, which makes the processor look for new files too.

    False if there is no DAG to ask for: the server knows none, or none that this user may change.
    """
    return _nudge(server, files, tuple(server.dags()))


def _nudge(server: DagServer, files: Set[str], known: Iterable[DagInfo]) -> bool:
    tokens = {Path(dag.fileloc).name: dag.file_token for dag in known}
    ours = [token for name, token in tokens.items() if name in files]
    for token in ours or list(tokens.values())[:1]:
        try:
            server.reparse(token)
        except (AuthFailed, NotFound):
            # Another user's DAG that this user may not change, or one that was deleted meanwhile.
            return False
    return bool(tokens)


def _shows(server: DagServer, dag_id: str, tasks: Set[str] | None, release: str) -> bool:
    """Whether a DAG has exactly these tasks (None: at least one), and shows the release on each."""
    docs = _docs(server, dag_id)
    if docs is None or (not docs if tasks is None else set(docs) != tasks):
        return False
    return all(_names(text, release) for text in docs.values())


def _stub_shows(server: DagServer, stub: str, known: Iterable[DagInfo], release: str) -> bool:
    """Whether all tasks of all DAGs in a stub show the release; False without any task."""
    dag_ids = [dag.dag_id for dag in known if Path(dag.fileloc).name == stub and not dag.is_stale]
    texts = [text for dag_id in dag_ids for text in (_docs(server, dag_id) or {}).values()]
    return bool(texts) and all(_names(text, release) for text in texts)


def _names(text: str, release: str) -> bool:
    return f"{_RELEASE_LINE}{release}" in text


def _docs(server: DagServer, dag_id: str) -> Mapping[str, str] | None:
    try:
        return server.tasks_docs(dag_id)
    except NotFound:
        return None
