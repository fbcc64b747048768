"""rollback: publishes an earlier release again, and waits for Airflow as a deploy does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from replayctl.bundle.stubs import is_edited, stubs_of
from replayctl.errors import Conflict
from replayctl.publishing.history import ReleaseRecord, choose
from replayctl.publishing.plan import my_stubs, refuse_hand_edits, refuse_obstacles
from replayctl.publishing.verify import DagServer, Expected, Watcher
from replayctl.settings.namespace import Namespace
from replayctl.settings.workspace import Workspace
from replayctl.storage import lock
from replayctl.storage.answers import History, TargetState
from replayctl.storage.audit import audit_line
from replayctl.storage.target import Publication, Target, open_target


@dataclass(frozen=True, slots=True)
class Rollback:
    """The result of a rollback: the release now, the one before, and the seconds until Airflow showed it."""

    release: str
    previous: str | None
    target: str
    changed: bool
    dry_run: bool
    seen_after_s: float | None


def rollback(
    release: str | None,
    workspace: Workspace,
    *,
    find_server: Callable[[], DagServer] | None,
    force: bool = False,
    break_lock: bool = False,
    dry_run: bool = False,
) -> Rollback:
    """Publishes a stored release again (None: the one published before the current one), and waits for Airflow.

    Raises NotFound for a release that is not stored, Conflict for one that was edited or is incomplete, and what the
    wait raises. After an import error, the release that was current is published again.
    """
    namespace, reporter = workspace.namespace, workspace.reporter
    with open_target(workspace) as target:
        if dry_run:
            record, stubs, state = _select(release, target.history(), target, namespace)
            forward, _ = _there_and_back(record.name, stubs, state, namespace, force=force)
            return Rollback(record.name, state.pointer, target.name, forward is not None, True, None)
        watcher = Watcher(find_server(), workspace.settings, reporter) if find_server else None
        with lock.held(
            target,
            reporter,
            what=f"rollback to {release}" if release else "rollback",
            timeout_s=workspace.settings.deploy.lock_timeout_s,
            break_lock=break_lock,
            with_history=True,
        ) as (token, locked):
            assert locked.history is not None
            # Selected only now: another deploy may have published while this one waited for the lock.
            record, stubs, state = _select(release, locked.history, target, namespace)
            if watcher:
                watcher.look()
            forward, back = _there_and_back(record.name, stubs, state, namespace, force=force)
            if forward:
                reporter.step(f"publishing {record.name} again")
                target.publish(token, forward)
            seen_after_s = None
            if watcher:
                seen_after_s = watcher.wait_or_give_back(_expected(record, namespace), target, token, back)
        return Rollback(record.name, state.pointer, target.name, forward is not None, False, seen_after_s)


def _select(
    release: str | None, history: History, target: Target, namespace: Namespace
) -> tuple[ReleaseRecord, Mapping[str, str], TargetState]:
    """The release to return to, its stubs, and the target's state with that release's files checked."""
    record = choose(release, history)
    stubs = stubs_of(record.dags, namespace.suffix, namespace.directory)
    return record, stubs, target.inspect(list(stubs), [record.name])


def _there_and_back(
    release: str, stubs: Mapping[str, str], state: TargetState, namespace: Namespace, *, force: bool
) -> tuple[Publication | None, Publication | None]:
    """The publish of an earlier release and the one that undoes it; None if it is already published."""
    check_whole(release, state)
    mine = my_stubs(state, namespace, stubs)
    refuse_hand_edits([name for name, text in mine.items() if is_edited(text)], force=force)
    changed = {name: text for name, text in stubs.items() if mine.get(name) != text}
    removed = [name for name in mine if name not in stubs]
    refuse_obstacles(state, [*changed, *removed])
    if state.pointer == release and not changed and not removed:
        return None, None
    audit = audit_line("rollback", release=release, previous=state.pointer)
    undone = audit_line("withdraw", release=state.pointer, previous=release, reason="import error")
    kept = {name: text for name, text in mine.items() if name in changed or name in removed}
    new = [name for name in changed if name not in mine]
    return (
        Publication(release, audit, stubs=changed, removed_stubs=removed),
        Publication(state.pointer, undone, stubs=kept, removed_stubs=new),
    )


def _expected(record: ReleaseRecord, namespace: Namespace) -> Expected:
    free = [module for module, dags in record.dags.items() if dags is None]
    return Expected(
        record.name,
        dags={dag: None for dags in record.dags.values() for dag in dags or ()},
        stubs=frozenset(stubs_of(record.dags, namespace.suffix, namespace.directory)),
        free_stubs=frozenset(stubs_of(free, namespace.suffix, namespace.directory)),
    )


def check_whole(release: str, state: TargetState) -> None:
    """Raises Conflict for a stored release that is incomplete or was edited by hand."""
    if release not in state.releases or release not in state.submitted:
        raise Conflict(f"release {release} is incomplete on the target", hint="run `replayctl sync-dags`")
    if state.edited.get(release):
        raise Conflict(
            f"release {release} was edited by hand on the target: {', '.join(state.edited[release][:5])}",
            hint="run `replayctl sync-dags --force` to deploy from your DAG folder instead",
        )
