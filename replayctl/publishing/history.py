"""The releases of a namespace: those that are stored, and the audit log."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass

from replayctl.errors import NotFound, UsageProblem
from replayctl.publishing.source import Source, recorded_source
from replayctl.settings.workspace import Workspace
from replayctl.storage.answers import History
from replayctl.storage.target import open_target

# What moves the pointer, by the words of the audit log.
_MOVING = ("publish", "rollback", "withdraw", "undeploy")


@dataclass(frozen=True, slots=True)
class ReleaseRecord:
    """One stored release: who deployed it, when, from which commit, and when it was last published.

    `dags` are the dag_ids by module; None for a module that builds its DAGs with Airflow's API. `source` is the folder
    of its last deploy, None if it is not recorded.
    """

    name: str
    current: bool
    made_at: str | None
    user: str | None
    host: str | None
    commit: str | None
    changed_files: int | None
    dags: Mapping[str, tuple[str, ...] | None]
    published_at: str | None
    source: Source | None


@dataclass(frozen=True, slots=True)
class Releases:
    """The releases of a namespace, the last published first, and its audit log, oldest first."""

    user: str | None
    target: str
    releases: tuple[ReleaseRecord, ...]
    audit: tuple[Mapping[str, object], ...]


def releases(workspace: Workspace) -> Releases:
    """The releases that are stored for the namespace."""
    with open_target(workspace) as target:
        history = target.history()
        return Releases(workspace.namespace.user, target.name, records_of(history), _marked(history))


def records_of(history: History) -> tuple[ReleaseRecord, ...]:
    """The stored releases, the last published first."""
    # The log's own order, since several publishes may fall into one second.
    kept = _publishes(history)
    published = {release: at for release, at in kept}
    order = {release: number for number, (release, _) in enumerate(kept)}
    sources = _sources(history)
    records = []
    for name, metadata in history.releases.items():
        git = metadata.get("git")
        commit = git if isinstance(git, dict) else {}
        records.append(
            ReleaseRecord(
                name=name,
                current=name == history.pointer,
                made_at=_text(metadata.get("at")),
                user=_text(metadata.get("user")),
                host=_text(metadata.get("host")),
                commit=_text(commit.get("commit")),
                changed_files=commit.get("changed_files"),
                dags=dags_of(metadata),
                published_at=published.get(name),
                source=sources.get(name),
            )
        )

    def newest(record: ReleaseRecord) -> tuple[bool, int, str]:
        return record.current, order.get(record.name, -1), record.made_at or ""

    return tuple(sorted(records, key=newest, reverse=True))


def published_source(history: History) -> Source | None:
    """The folder that the published release was last deployed from; None if there is none, or it is not recorded."""
    return _sources(history).get(history.pointer or "")


def _sources(history: History) -> dict[str, Source]:
    """Release → the folder of its last deploy: two folders with the same content are one release."""
    lines = [(name, metadata) for name, metadata in history.releases.items()]
    lines += [
        (move.release, history.audit[move.line])
        for move in _moves(history)
        if move.action == "publish" and move.release and move.line is not None
    ]
    return {name: source for name, line in lines if (source := recorded_source(line))}


def choose(release: str | None, history: History) -> ReleaseRecord:
    """The stored release with this name or prefix; with None, the one published before the current one.

    Raises NotFound if there is none, UsageProblem if several match.
    """
    stored = {record.name: record for record in records_of(history)}
    if release is not None:
        matching = [name for name in stored if name.startswith(release)]
        if len(matching) == 1:
            return stored[matching[0]]
        if matching:
            raise UsageProblem(
                f"{release!r} matches several releases: {', '.join(sorted(matching))}", hint="pass a longer prefix"
            )
        raise NotFound(f"release {release!r} does not exist", hint="run `replayctl releases` to list the releases")
    earlier = [name for name, _ in _publishes(history) if name in stored and name != history.pointer]
    if not earlier:
        raise NotFound("there is no earlier release", hint="run `replayctl releases` to list the releases")
    return stored[earlier[-1]]


@dataclass(frozen=True, slots=True)
class _Move:
    """One move of the pointer: the release before and after (None: none), the action, and the time."""

    action: str
    previous: str | None
    release: str | None
    at: str | None
    line: int | None


def _moves(history: History) -> list[_Move]:
    """The pointer's real moves, oldest first, from the audit log and the pointer's current value.

    A line is written right before its move, so a command that was killed may leave a line without a move: then the
    next line starts from where the pointer stayed. A move without a line (the log was lost) is inferred from where the
    next one starts.
    """
    lines = [
        _Move(str(line["action"]), *_ends(line), at=_text(line.get("at")), line=number)
        for number, line in enumerate(history.audit)
        if line.get("action") in _MOVING
    ]
    moves: list[_Move] = []
    for line, pointer_afterwards in zip(lines, [*(line.previous for line in lines[1:]), history.pointer], strict=False):
        if pointer_afterwards == line.release:
            moves.append(line)
            continue
        if pointer_afterwards != line.previous:
            moves.append(line)
            moves.append(_Move("publish", line.release, pointer_afterwards, None, None))
    if not lines and history.pointer:
        moves.append(_Move("publish", None, history.pointer, None, None))
    return moves


def _marked(history: History) -> tuple[Mapping[str, object], ...]:
    """The audit log, with `effective: false` on lines without a move, since the command was killed before it."""
    effective = {move.line for move in _moves(history)}
    return tuple(
        line if number in effective or line.get("action") not in _MOVING else {**line, "effective": False}
        for number, line in enumerate(history.audit)
    )


def _publishes(history: History) -> list[tuple[str, str | None]]:
    """Releases with the times of their publishes, oldest first, without those that Airflow could not load.

    The time is None for a publish without a line in the log.
    """
    publishes: list[tuple[str, str | None]] = []
    for move in _moves(history):
        if move.action in ("publish", "rollback") and move.release:
            publishes.append((move.release, move.at))
        elif move.action == "withdraw":
            numbers = [number for number, (release, _) in enumerate(publishes) if release == move.previous]
            if numbers:
                del publishes[numbers[-1]]
    return publishes


def published_since(history: History, since: datetime.datetime) -> set[str]:
    """The release that was current at that time, and those published later."""
    names: set[str] = set()
    at_that_moment = None
    for line in history.audit:
        if not line.get("release"):
            continue
        try:
            at = datetime.datetime.fromisoformat(str(line.get("at")))
        except ValueError:
            continue
        at = at if at.tzinfo else at.replace(tzinfo=datetime.UTC)
        if at < since:
            at_that_moment = str(line["release"])
        else:
            names.add(str(line["release"]))
            names |= {str(line["previous"])} if line.get("previous") else set()
    return names | ({at_that_moment} if at_that_moment else set())


def _ends(line: Mapping[str, object]) -> tuple[str | None, str | None]:
    return _text(line.get("previous")), _text(line.get("release"))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def dags_of(metadata: Mapping[str, object]) -> dict[str, tuple[str, ...] | None]:
    """Module → dag_ids, from a release's metadata; None where they are unknown."""
    modules = metadata.get("dags")
    if not isinstance(modules, dict):
        return {}
    return {str(module): tuple(map(str, ids)) if isinstance(ids, list) else None for module, ids in modules.items()}
