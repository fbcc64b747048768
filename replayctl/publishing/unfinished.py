"""Unfinished artifacts: what killed tasks have left of the results that they were writing, removed by age.

They are folders `DATASET/WORKLOAD/.IDENTITY.OWNER.NUMBER.tmp` in the namespace's part of the artifacts; `.old` is an
artifact that was about to be replaced. Tasks remove them, too, when a step is computed (dags/artifacts.py).
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from replayctl.errors import AuthFailed, SettingsError
from replayctl.settings.folders import find_folders
from replayctl.settings.workspace import Workspace
from replayctl.storage.answers import records_of, warn_of_closed
from replayctl.storage.target import shell_of

if TYPE_CHECKING:
    from replayctl.clients.webhdfs import Entry, WebHdfs

_UNFINISHED = re.compile(r"(\..+\.[0-9a-f]{12}\.[0-9a-f]{32})\.(?:tmp|old)")
_OPEN = ".open"
_DAY_S = 86_400.0
_MAX_ENTRIES = 20_000


@dataclass(frozen=True, slots=True)
class Unfinished:
    """What was removed, or would be, below `folder`; `kept` and `failed` say why others are still there."""

    folder: str
    removed: tuple[str, ...]
    kept: Mapping[str, str]
    failed: Mapping[str, str]


def remove_unfinished(workspace: Workspace, environ: Mapping[str, str], *, dry_run: bool = False) -> Unfinished:
    """Removes the namespace's unfinished artifacts that are older than `deploy.keep_unfinished_days`.

    They are reached as the profile says: on this machine, over ssh, or on HDFS. Raises SettingsError when the profile
    does not say where this machine sees the artifacts, NotFound when there is no such folder.
    """
    address = find_folders(workspace.settings).artifacts_in_pods
    if isinstance(address, str):
        return _removed_on_hdfs(workspace, environ, address, dry_run=dry_run)
    return _removed_in_folder(workspace, dry_run=dry_run)


def _removed_in_folder(workspace: Workspace, *, dry_run: bool) -> Unfinished:
    settings, owner = workspace.settings, workspace.namespace.directory
    artifacts = find_folders(settings).artifacts
    if artifacts is None:
        raise SettingsError(
            f"unfinished artifacts were not looked for: profile {settings.profile!r} has no folders.artifacts",
            hint="set it to the artifacts' folder as this machine, or the one at ssh.host, has it",
        )
    days = settings.deploy.keep_unfinished_days
    variables = {"artifacts": str(artifacts), "owner": owner, "days": str(days), "dry_run": str(int(dry_run))}
    shell = shell_of(settings, workspace.reporter)
    try:
        records = records_of(shell.run("unfinished", variables), shell.name)
    finally:
        shell.close()
    warn_of_closed(records, workspace.reporter)
    foreign = [record.name.partition(" ") for record in records if record.kind == "left"]
    return Unfinished(
        folder=f"{artifacts}/{owner} on {shell.name}",
        removed=tuple(record.name for record in records if record.kind == "removed"),
        kept={record.name: _young(days) for record in records if record.kind == "young"},
        failed={name: f"belongs to {user}" for user, _, name in foreign},
    )


def _removed_on_hdfs(workspace: Workspace, environ: Mapping[str, str], address: str, *, dry_run: bool) -> Unfinished:
    from replayctl.forwarding.hdfs import open_hdfs

    settings, namespace = workspace.settings, workspace.namespace
    base = f"{urlsplit(address).path.rstrip('/')}/{namespace.directory}"
    user = settings.hdfs.user or namespace.user or "replayctl"
    days = settings.deploy.keep_unfinished_days
    removed: list[str] = []
    kept: dict[str, str] = {}
    failed: dict[str, str] = {}
    with open_hdfs(settings, environ, workspace.reporter, user) as hdfs:
        for folder, name, entries in list(_unfinished(hdfs, base)):
            place = f"{folder}/{name}".removeprefix(f"{base}/")
            if (reason := _reason_to_keep(hdfs, folder, name, entries, days)) is not None:
                kept[place] = reason
            elif dry_run:
                removed.append(place)
            elif (trouble := _trouble_of_removal(hdfs, folder, name)) is not None:
                failed[place] = trouble
            else:
                removed.append(place)
    return Unfinished(f"{address.rstrip('/')}/{namespace.directory}", tuple(removed), kept, failed)


def _unfinished(hdfs: WebHdfs, base: str) -> Iterator[tuple[str, str, Mapping[str, Entry]]]:
    """The folder, the name and all that is beside it, for each unfinished artifact."""
    for dataset in _folders(hdfs, base):
        for workload in _folders(hdfs, dataset):
            entries = {entry.name: entry for entry in hdfs.entries(workload) or ()}
            for name, entry in entries.items():
                if entry.is_folder and _UNFINISHED.fullmatch(name):
                    yield workload, name, entries


def _folders(hdfs: WebHdfs, path: str) -> list[str]:
    return [f"{path}/{entry.name}" for entry in hdfs.entries(path) or () if entry.is_folder and entry.name[:1] != "."]


def _reason_to_keep(hdfs: WebHdfs, folder: str, name: str, entries: Mapping[str, Entry], days: int) -> str | None:
    """Why it stays. An old artifact that is about to be replaced is as young as what replaces it."""
    matched = _UNFINISHED.fullmatch(name)
    assert matched is not None
    limit, count = time.time() - days * _DAY_S, 0
    pending = [(f"{folder}/{sibling}", entries[sibling]) for sibling in {name, f"{matched[1]}.tmp"} & entries.keys()]
    while pending:
        path, entry = pending.pop()
        count += 1
        if entry.modified_s >= limit:
            return _young(days)
        if count > _MAX_ENTRIES:
            return f"has more than {_MAX_ENTRIES} files: look at it, then run `hdfs dfs -rm -r {folder}/{name}`"
        if entry.is_folder:
            pending += [(f"{path}/{below.name}", below) for below in hdfs.entries(path) or ()]
    return None


def _trouble_of_removal(hdfs: WebHdfs, folder: str, name: str) -> str | None:
    """Removes it, and says why when it is still there."""
    try:
        # The mark goes first: without it a writer that is alive after all publishes nothing, rather than a part.
        hdfs.delete(f"{folder}/{name}/{_OPEN}")
        hdfs.delete(f"{folder}/{name}")
    except AuthFailed as error:
        return str(error)
    there = {entry.name for entry in hdfs.entries(folder) or ()}
    return "HDFS took the request to remove it, and it is still there" if name in there else None


def _young(days: int) -> str:
    return f"written to within the last {days} day{'s' if days > 1 else ''}"
