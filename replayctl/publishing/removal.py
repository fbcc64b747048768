"""gc and undeploy: remove releases and stubs from a target, and keep what live runs need."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from replayctl.clients.airflow import DagInfo
from replayctl.clients.airflow_runs import RunInfo
from replayctl.console.events import Reporter
from replayctl.errors import Conflict, NotFound, ReplayctlError
from replayctl.publishing.history import dags_of, published_since, records_of
from replayctl.publishing.plan import my_stubs, refuse_obstacles
from replayctl.publishing.unfinished import Unfinished
from replayctl.settings.namespace import Namespace
from replayctl.settings.workspace import Workspace
from replayctl.storage import lock
from replayctl.storage.answers import History, TargetState
from replayctl.storage.audit import audit_line
from replayctl.storage.target import Publication, Target, open_target


class LiveServer(Protocol):
    """What gc and undeploy ask of Airflow."""

    def dags(self) -> Iterable[DagInfo]:
        """All DAGs that the server knows."""

    def live_tries(self, dag_ids: Sequence[str]) -> list[datetime.datetime]:
        """When each running try started."""

    def live_runs(self, dag_ids: Sequence[str]) -> Sequence[RunInfo]:
        """The runs that have not ended; they continue with the release they started with."""

    def delete_dag(self, dag_id: str) -> None:
        """Deletes a DAG and its runs."""


@dataclass(frozen=True, slots=True)
class Removal:
    """What gc or undeploy has removed, or would remove; `kept` gives the reason for each release that stays.

    `unfinished` is what became of unfinished artifacts; None where they were not looked at.
    """

    target: str
    removed: tuple[str, ...]
    kept: Mapping[str, str]
    stubs: tuple[str, ...] = ()
    dags_deleted: tuple[str, ...] = ()
    dags_left: Mapping[str, str] | None = None
    dry_run: bool = False
    unfinished: Unfinished | None = None


def gc(
    workspace: Workspace,
    *,
    server: LiveServer | None,
    keep: int | None = None,
    break_lock: bool = False,
    dry_run: bool = False,
) -> Removal:
    """Removes old releases: all but the newest `keep` and those that a live run may use.

    A run continues with the release it started with, so every release published at that moment or later stays.
    Without a server, the live runs are unknown, and no release published within the last day is removed.
    """
    namespace, settings = workspace.namespace, workspace.settings
    keep = settings.deploy.keep_releases if keep is None else keep
    with open_target(workspace) as target:
        if dry_run:
            return _collected(namespace, target.inspect(), target.history(), target, server, keep, dry_run=True)
        with lock.held(
            target,
            workspace.reporter,
            what="gc",
            timeout_s=settings.deploy.lock_timeout_s,
            break_lock=break_lock,
            with_history=True,
        ) as (token, state):
            assert state.history is not None
            removal = _collected(namespace, state, state.history, target, server, keep, dry_run=False)
            if removal.removed:
                count = len(removal.removed)
                workspace.reporter.step(f"removing {count} release{'s' if count != 1 else ''}")
                _remove(target, token, removal.removed, workspace.reporter)
    return removal


def undeploy(
    workspace: Workspace,
    *,
    server: LiveServer | None,
    delete_from_airflow: bool = False,
    break_lock: bool = False,
    dry_run: bool = False,
) -> Removal:
    """Removes the namespace's stubs, pointer and releases, and with `delete_from_airflow` its DAGs in Airflow.

    The audit log stays. Raises Conflict, and removes nothing, while the server shows a live run of the namespace.
    """
    namespace, reporter = workspace.namespace, workspace.reporter
    with open_target(workspace) as target:
        if dry_run:
            state, history = target.inspect(), target.history()
            mine = tuple(my_stubs(state, namespace))
            rows = tuple(_dag_ids(server, mine, history)) if delete_from_airflow else ()
            return Removal(target.name, _stored(state), {}, mine, dags_deleted=rows, dry_run=True)
        with lock.held(
            target,
            reporter,
            what="undeploy",
            timeout_s=workspace.settings.deploy.lock_timeout_s,
            break_lock=break_lock,
            with_history=True,
        ) as (token, state):
            assert state.history is not None
            mine, stored = tuple(my_stubs(state, namespace)), _stored(state)
            refuse_obstacles(state, mine)
            dag_ids = _dag_ids(server, mine, state.history)
            _refuse_live_runs(server, dag_ids, namespace)
            if mine or state.pointer:
                reporter.step(f"removing {len(mine)} stub{'s' if len(mine) != 1 else ''} and the pointer")
                audit = audit_line("undeploy", previous=state.pointer)
                target.publish(token, Publication(None, audit, removed_stubs=mine))
            if stored:
                _remove(target, token, stored, reporter)
            deleted, failures = _delete_dags(server if delete_from_airflow else None, dag_ids)
    return Removal(target.name, stored, {}, mine, deleted, failures)


def _refuse_live_runs(server: LiveServer | None, dag_ids: Sequence[str], namespace: Namespace) -> None:
    """Raises Conflict if the server shows a run or task of these DAGs that has not ended."""
    if server is None:
        return
    live = server.live_runs(dag_ids)
    if live:
        raise Conflict(
            f"runs have not ended: {', '.join(f'{run.run_id} of {run.dag_id}' for run in live[:5])}",
            hint=f"wait for them, or run `replayctl runs stop {live[0].dag_id} {live[0].run_id}`",
        )
    if server.live_tries(dag_ids):
        raise Conflict(
            f"tasks of {namespace.user or 'the shared namespace'} are running",
            hint="wait until they have ended, or mark them as failed in Airflow",
        )


def _remove(target: Target, token: str, names: Sequence[str], reporter: Reporter) -> None:
    for folder in target.remove(token, names, audit_line("gc", removed=list(names))):
        reporter.warn(f"{folder} has files of other users and was kept; it does no harm")


def _delete_dags(server: LiveServer | None, dag_ids: Sequence[str]) -> tuple[tuple[str, ...], dict[str, str]]:
    deleted: list[str] = []
    failures: dict[str, str] = {}
    for dag_id in dag_ids if server else ():
        assert server is not None
        try:
            server.delete_dag(dag_id)
            deleted.append(dag_id)
        except NotFound:
            continue
        except ReplayctlError as error:
            failures[dag_id] = str(error)
    return tuple(deleted), failures


def _dag_ids(server: LiveServer | None, stubs: Collection[str], history: History) -> list[str]:
    """The DAGs of the namespace: those that the server has from its stubs, and those that its releases declare."""
    if server is None:
        return []
    declared = set(_declared(history))
    return sorted(dag.dag_id for dag in server.dags() if Path(dag.fileloc).name in stubs or dag.dag_id in declared)


def _stored(state: TargetState) -> tuple[str, ...]:
    return tuple(sorted(state.releases | state.submitted))


def _collected(
    namespace: Namespace,
    state: TargetState,
    history: History,
    target: Target,
    server: LiveServer | None,
    keep: int,
    *,
    dry_run: bool,
) -> Removal:
    records = records_of(history)
    kept = {record.name: "one of the newest" for record in records[:keep]}
    if state.pointer:
        kept[state.pointer] = "published"
    dag_ids = _dag_ids(server, my_stubs(state, namespace), history)
    for name, reason in _possibly_running(history, server, dag_ids).items():
        kept.setdefault(name, reason)
    removed = tuple(name for name in _stored(state) if name not in kept)
    return Removal(target.name, removed, {name: kept[name] for name in kept if name in _stored(state)}, dry_run=dry_run)


def _possibly_running(history: History, server: LiveServer | None, dag_ids: Sequence[str]) -> dict[str, str]:
    if server is None:
        since = datetime.datetime.fromtimestamp(history.clock_s, tz=datetime.UTC) - datetime.timedelta(days=1)
        return {
            name: "published within the last day; live runs are unknown without Airflow"
            for name in published_since(history, since)
        }
    runs = server.live_runs(dag_ids)
    began = [*server.live_tries(dag_ids), *(moment for run in runs for moment in (run.start, run.queued) if moment)]
    if not began:
        return {}
    # The clocks of workstations and servers may differ a little.
    since = min(began) - datetime.timedelta(minutes=5)
    return {name: "a live run may use it" for name in published_since(history, since)}


def _declared(history: History) -> list[str]:
    return sorted(
        {dag for metadata in history.releases.values() for dags in dags_of(metadata).values() for dag in dags or ()}
    )
