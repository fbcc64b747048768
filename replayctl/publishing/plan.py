"""Plans what publishing a release changes on a target. Reads the target's state, and writes nothing."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from replayctl.bundle.release import MAX_NAME, Release
from replayctl.bundle.specs import Dag
from replayctl.bundle.stubs import is_edited, read_header, stub_name, stubs_of
from replayctl.errors import Conflict, UsageProblem
from replayctl.settings.namespace import Namespace
from replayctl.storage.answers import TargetState

Action = Literal["create", "update", "delete", "same", "publish", "upload", "repair", "foreign"]
_WRITING = frozenset({"create", "update", "delete", "publish", "upload", "repair"})


@dataclass(frozen=True, slots=True)
class PlannedAction:
    """One action of a deploy; `same` needs no change, `foreign` belongs to another user and is left unchanged."""

    action: Action
    what: str


@dataclass(frozen=True, slots=True)
class Plan:
    """A release, its DAGs, and what publishing it changes on the target.

    `stubs` are the texts of its stubs by name, `replaced` those of the target's stubs that it updates or deletes.
    """

    release: Release
    dags: tuple[Dag, ...]
    actions: tuple[PlannedAction, ...]
    previous: str | None
    stubs: dict[str, str]
    replaced: dict[str, str]

    @property
    def changes(self) -> tuple[PlannedAction, ...]:
        """The actions that write something."""
        return tuple(action for action in self.actions if action.action in _WRITING)

    def of(self, *actions: Action) -> tuple[str, ...]:
        """The names of files with one of these actions."""
        return tuple(action.what for action in self.actions if action.action in actions)


def check_modules(release: Release, namespace: Namespace) -> None:
    """Raises UsageProblem for a module that ends in the suffix of the namespace, or has no room for it in its name."""
    for module in release.modules:
        if namespace.suffix and module.endswith(namespace.suffix):
            raise UsageProblem(
                f"{module}.py ends in {namespace.suffix!r}, which the deploy appends",
                hint=f"rename it to {module.removesuffix(namespace.suffix)}.py",
            )
        stub = stub_name(module, namespace.suffix)
        if len(stub) > MAX_NAME:
            raise UsageProblem(
                f"{module}.py cannot be deployed: {stub} has more than {MAX_NAME} characters",
                hint=f"shorten its name by {len(stub) - MAX_NAME} characters",
            )


def check_dag_ids(dags: Sequence[Dag], namespace: Namespace) -> None:
    """Raises UsageProblem for a DAG outside the namespace."""
    for dag in dags:
        if not dag.dag_id.endswith(namespace.suffix):
            raise UsageProblem(
                f"{dag.module}: DAG {dag.dag_id!r} is outside the namespace of {namespace.user}",
                hint="create its id with namespace.dag_id(...)",
            )


def make_plan(
    release: Release, dags: tuple[Dag, ...], namespace: Namespace, state: TargetState, *, force: bool = False
) -> Plan:
    """The plan. Raises Conflict if a stub's name is taken by another user's file, or a file was edited by hand.

    With `force`, hand edits are overwritten.
    """
    stubs = stubs_of(release.modules, namespace.suffix, namespace.directory)
    broken = release.name in state.edited or release.name in state.damaged
    stored = release.name in state.releases and release.name in state.submitted
    actions = [PlannedAction("repair" if broken else "same" if stored else "upload", f"release {release.name}")]
    by_hand = [f"{name} of {where}" for where, names in state.edited.items() for name in names]
    for name, text in sorted(stubs.items()):
        there = state.stubs.get(name)
        if there is None:
            actions.append(PlannedAction("create", name))
            continue
        _refuse_foreign(name, there, namespace)
        by_hand += [name] if is_edited(there) else []
        actions.append(PlannedAction("same" if there == text else "update", name))
    for name, text in sorted(state.stubs.items()):
        if name in stubs:
            continue
        if not is_mine(name, text, namespace):
            actions.append(PlannedAction("foreign", name))
            continue
        actions.append(PlannedAction("delete", name))
        by_hand += [name] if is_edited(text) else []
    actions.append(PlannedAction("same" if state.pointer == release.name else "publish", f"current → {release.name}"))
    actions += [PlannedAction("foreign", name) for name in state.foreign]
    refuse_obstacles(state, [action.what for action in actions if action.action in ("create", "update", "delete")])
    refuse_hand_edits(by_hand, force=force)
    going = {action.what for action in actions if action.action in ("update", "delete")}
    replaced = {name: text for name, text in state.stubs.items() if name in going}
    return Plan(release, dags, tuple(actions), state.pointer, stubs, replaced)


def is_mine(name: str, text: str, namespace: Namespace) -> bool:
    """Whether a file is a stub of the namespace, by its header and its name.

    A copy of a stub under another name does not count as one.
    """
    header = read_header(text)
    if header is None or header.owner != namespace.directory:
        return False
    return name == stub_name(header.module, namespace.suffix)


def _refuse_foreign(name: str, text: str, namespace: Namespace) -> None:
    """Raises Conflict for a file that has the name of one of the namespace's stubs and is not one."""
    if is_mine(name, text, namespace):
        return
    header = read_header(text)
    if header is None or header.owner == namespace.directory:
        raise Conflict(
            f"{name} exists on the target and was not written by replayctl",
            hint="rename your DAG module, or remove that file if it is yours",
        )
    owner = "the shared namespace" if header.owner.startswith("_") else header.owner
    raise Conflict(
        f"{name} on the target belongs to {owner} (module {header.module})",
        hint="rename your DAG module",
    )


def refuse_obstacles(state: TargetState, names: Sequence[str]) -> None:
    """Raises Conflict if one of these names in the DAG folder is not a regular file of this user."""
    for name in names:
        if name in state.obstacles:
            raise Conflict(
                f"{name} is {state.obstacles[name]} on the target; it was not changed",
                hint=f"check it in the DAG folder, then remove it (or ask its owner to): rm {name}",
            )


def refuse_hand_edits(names: Sequence[str], *, force: bool) -> None:
    """Raises Conflict that names the files edited by hand on the target, unless `force` overwrites them."""
    if names and not force:
        raise Conflict(
            f"files were edited by hand on the target since the last deploy: {', '.join(names[:5])}"
            f"{f' and {len(names) - 5} more' if len(names) > 5 else ''}",
            hint="copy the edits to your DAG folder, or pass --force to overwrite them",
        )


def my_stubs(state: TargetState, namespace: Namespace, names: Collection[str] = ()) -> dict[str, str]:
    """The namespace's stubs on the target: name → text. Raises Conflict if one of `names` belongs to another user."""
    mine = {}
    for name, text in sorted(state.stubs.items()):
        if is_mine(name, text, namespace):
            mine[name] = text
        elif name in names:
            _refuse_foreign(name, text, namespace)
    return mine
