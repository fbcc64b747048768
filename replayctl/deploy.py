"""sync-dags: a plan from the folder and the target as they are, the publish, and the wait until Airflow shows it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from replayctl import resources
from replayctl.airflow_api import DagInfo, ImportProblem
from replayctl.deployment import deployment_json, find_folders
from replayctl.errors import Conflict, NotFound, OperationFailed, TimedOut, UsageProblem
from replayctl.events import Reporter
from replayctl.namespace import Namespace
from replayctl.release import Release, build_release, stub_name, stub_owner, stub_text
from replayctl.settings import Settings
from replayctl.specs import Dag, load_specs
from replayctl.targets import FolderTarget, Target, TargetState

Action = Literal["create", "update", "delete", "same", "publish", "upload"]
# The text that dags/dag_operators.py puts on every task: the server showing it is the proof of a deploy.
_RELEASE_LINE = "Release: "
_NUDGE_EVERY_S = 5.0


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


@dataclass(frozen=True, slots=True)
class PlannedAction:
    """One thing that a deploy does, or finds done."""

    action: Action
    what: str


@dataclass(frozen=True, slots=True)
class Plan:
    """A release, its DAGs, and what publishing it changes on the target."""

    release: Release
    dags: tuple[Dag, ...]
    actions: tuple[PlannedAction, ...]
    previous: str | None

    @property
    def changes(self) -> tuple[PlannedAction, ...]:
        """The actions that write something."""
        return tuple(action for action in self.actions if action.action != "same")


def find_dags_dir(given: Path | None, cwd: Path) -> Path:
    """The folder to deploy: the given one, else `dags/` in the current folder, else the shipped package."""
    if given is not None:
        return given
    return cwd / "dags" if (cwd / "dags").is_dir() else resources.shipped_dir("dags")


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What a sync did, or with `dry_run` would do.

    `seen_after_s` is how long Airflow took to show the release; None when it was not asked.
    """

    release: str
    previous: str | None
    user: str | None
    target: Path
    dry_run: bool
    actions: tuple[PlannedAction, ...]
    dags: tuple[str, ...]
    seen_after_s: float | None

    @property
    def changed(self) -> bool:
        """Whether anything was written, or would be."""
        return any(action.action != "same" for action in self.actions)


def sync(
    dags_dir: Path,
    settings: Settings,
    namespace: Namespace,
    reporter: Reporter,
    *,
    find_server: Callable[[], DagServer] | None,
    dry_run: bool = False,
) -> SyncReport:
    """Deploys the folder under the namespace, and waits until the server shows it (None: does not ask).

    The server is looked for after the folder was found good, and before anything is written.

    Raises what `plan` and `wait_until_shown` raise; after an import error the previous release is published again.
    """
    folders = find_folders(settings)
    target = FolderTarget(folders.dags, folders.spark_submit_files)
    made = plan(dags_dir, settings, namespace, target, reporter)
    seen_after_s = None
    if not dry_run:
        server = find_server() if find_server else None
        problems = server.import_problems() if server else []
        if made.changes:
            publish(made, namespace, target, reporter)
        if server:
            seen_after_s = _wait_or_withdraw(made, namespace, target, server, problems, settings, reporter)
    return SyncReport(
        release=made.release.name,
        previous=made.previous,
        user=namespace.user,
        target=folders.dags,
        dry_run=dry_run,
        actions=made.actions,
        dags=tuple(dag.dag_id for dag in made.dags),
        seen_after_s=seen_after_s,
    )


def _wait_or_withdraw(
    made: Plan,
    namespace: Namespace,
    target: Target,
    server: DagServer,
    problems: Sequence[ImportProblem],
    settings: Settings,
    reporter: Reporter,
) -> float:
    try:
        return wait_until_shown(made, namespace, server, problems, settings, reporter)
    except OperationFailed as error:
        if not made.changes:
            raise
        withdraw(made, namespace, target)
        # Airflow forgets the DAGs of a file that does not load: without a parse they would stay away for a while.
        _nudge(server, {stub_name(module, namespace.suffix) for module in made.release.modules})
        back = f"{made.previous} is published again" if made.previous else "the stubs were removed again"
        raise OperationFailed(f"{error}; {back}", details=error.details, hint=error.hint) from error


def plan(dags_dir: Path, settings: Settings, namespace: Namespace, target: Target, reporter: Reporter) -> Plan:
    """Checks the folder, loads its specs and compares with the target. Writes nothing.

    Raises UsageProblem for a folder that cannot be deployed, Conflict when a stub's name belongs to somebody else.
    """
    text = deployment_json(settings, find_folders(settings), namespace.user)
    release = build_release(dags_dir, text)
    reporter.step(
        f"release {release.name} from {dags_dir}: {len(release.files)} files, {len(release.modules)} DAG modules"
    )
    started = time.monotonic()
    dags = load_specs(release, timeout_s=settings.deploy.load_timeout_s)
    reporter.note(f"{len(dags)} DAGs loaded in {time.monotonic() - started:.2f} s")
    _check_names(dags, namespace)
    state = target.inspect(namespace.directory)
    return Plan(release, dags, tuple(_actions(release, namespace, state)), state.pointer)


def _check_names(dags: Sequence[Dag], namespace: Namespace) -> None:
    for dag in dags:
        if not dag.dag_id.endswith(namespace.suffix):
            raise UsageProblem(
                f"{dag.module}: DAG {dag.dag_id!r} is outside the namespace of {namespace.user}",
                hint="make its id with namespace.dag_id(...)",
            )


def _actions(release: Release, namespace: Namespace, state: TargetState) -> list[PlannedAction]:
    owner = namespace.directory
    actions = []
    stored = release.name in state.releases and release.name in state.submitted
    actions.append(PlannedAction("same" if stored else "upload", f"release {release.name}"))
    wanted = {stub_name(module, namespace.suffix): stub_text(module, owner) for module in release.modules}
    for name, text in sorted(wanted.items()):
        there = state.stubs.get(name)
        if there is None:
            actions.append(PlannedAction("create", name))
            continue
        found = stub_owner(there)
        if found is None or found[0] != owner:
            whose = f"{found[0]}'s" if found else "not made by replayctl"
            raise Conflict(f"the target's {name} is {whose}: not overwritten", hint="rename your DAG module")
        actions.append(PlannedAction("same" if there == text else "update", name))
    for name, text in sorted(state.stubs.items()):
        if (stub_owner(text) or ("", ""))[0] == owner and name not in wanted:
            actions.append(PlannedAction("delete", name))
    actions.append(PlannedAction("same" if state.pointer == release.name else "publish", f"current → {release.name}"))
    return actions


def publish(made: Plan, namespace: Namespace, target: Target, reporter: Reporter) -> None:
    """Makes the target as planned: upload, new stubs, the pointer, removed stubs, in this order."""
    owner = namespace.directory
    by_name = {stub_name(module, namespace.suffix): module for module in made.release.modules}
    target.hide_store()
    if any(action.action == "upload" for action in made.actions):
        reporter.step(f"uploading {made.release.name}")
        target.upload(made.release, owner)
    for action in made.actions:
        if action.action in ("create", "update"):
            target.write_stub(action.what, stub_text(by_name[action.what], owner))
    target.point_to(made.release.name, owner)
    for action in made.actions:
        if action.action == "delete":
            target.remove_stub(action.what)
    reporter.step(f"published {made.release.name} for {namespace.user or 'everybody'}")


def withdraw(made: Plan, namespace: Namespace, target: Target) -> None:
    """Puts the previous release back; after a first deploy removes the stubs instead."""
    if made.previous is not None:
        target.point_to(made.previous, namespace.directory)
        return
    for module in made.release.modules:
        target.remove_stub(stub_name(module, namespace.suffix))


def wait_until_shown(
    made: Plan,
    namespace: Namespace,
    server: DagServer,
    known_problems: Sequence[ImportProblem],
    settings: Settings,
    reporter: Reporter,
    sleep: Callable[[float], None] = time.sleep,
) -> float:
    """Returns the seconds until every DAG of the release shows the release on each of its tasks.

    Raises OperationFailed with the server's traceback when a stub of the release does not load, TimedOut when the
    server does not show it in time. `known_problems` are the import errors from before the publish.
    """
    started = time.monotonic()
    files = {stub_name(module, namespace.suffix) for module in made.release.modules}
    old = {(problem.filename, problem.timestamp) for problem in known_problems}
    pending = {dag.dag_id: {step.name for step in dag.steps} for dag in made.dags}
    next_nudge = started
    while True:
        if time.monotonic() >= next_nudge:
            _nudge(server, files)
            next_nudge = time.monotonic() + _NUDGE_EVERY_S
        for dag_id in [dag_id for dag_id, tasks in pending.items() if _shows(server, dag_id, tasks, made.release.name)]:
            del pending[dag_id]
        problems = [problem for problem in server.import_problems() if Path(problem.filename).name in files]
        fresh = [problem for problem in problems if (problem.filename, problem.timestamp) not in old]
        if fresh:
            raise OperationFailed(
                f"Airflow cannot load {Path(fresh[0].filename).name}", details=fresh[0].stack_trace.strip()
            )
        if not pending:
            return time.monotonic() - started
        waited = time.monotonic() - started
        if waited > settings.deploy.timeout_s:
            raise TimedOut(
                f"Airflow does not show {made.release.name} in {', '.join(sorted(pending)[:5])} after {waited:.0f} s",
                hint="the copy is published; look again with: replayctl sync-dags",
            )
        reporter.status(f"waiting until Airflow shows {made.release.name}: {len(pending)} of {len(made.dags)} DAGs")
        sleep(settings.deploy.poll_s)


def _shows(server: DagServer, dag_id: str, tasks: set[str], release: str) -> bool:
    try:
        shown = server.tasks_docs(dag_id)
    except NotFound:
        return False
    return set(shown) == tasks and all(f"{_RELEASE_LINE}{release}" in text for text in shown.values())


def _nudge(server: DagServer, files: set[str]) -> None:
    """A parse request for any DAG makes the processor look for new files too; ours are parsed anew by name."""
    known = list(server.dags())
    tokens = {Path(dag.fileloc).name: dag.file_token for dag in known}
    ours = [token for name, token in tokens.items() if name in files]
    for token in ours or list(tokens.values())[:1]:
        server.reparse(token)
