"""Which stored releases run with a package: those may be published or rolled back to, and then need it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from replayctl.settings.workspace import Workspace
from replayctl.storage.answers import Record
from replayctl.storage.packages import StoredPackage
from replayctl.storage.target import open_target


@dataclass(frozen=True, slots=True)
class Uses:
    """The releases by the folders of the packages that they name, and the namespaces that could not be read."""

    releases: Mapping[str, tuple[str, ...]]
    unread: tuple[str, ...] = ()

    def of(self, package: StoredPackage) -> tuple[str, ...]:
        """The releases that run with a package, as `namespace/release`, the published ones marked."""
        return self.releases.get(package.folder, ())


def find_uses(workspace: Workspace) -> Uses:
    """What the stored releases use: those of the namespace, or for the common one those of everybody."""
    workspace.reporter.status("reading which packages the releases use")
    with open_target(workspace) as target:
        return uses_of(target.deployments(everyone=workspace.namespace.user is None))


def uses_of(records: Iterable[Record]) -> Uses:
    """The uses in the answer of a target."""
    records = list(records)
    published = {record.name for record in records if record.kind == "published"}
    releases: dict[str, list[str]] = {}
    unread = {record.name: None for record in records if record.kind == "unread"}
    for record in records:
        if record.kind == "deployment":
            name = f"{record.name} (published)" if record.name in published else record.name
            digests = _digests(record.text)
            if digests is None:
                unread[record.name.partition("/")[0]] = None
            for digest in digests or ():
                releases.setdefault(f"p_{digest}", []).append(name)
    return Uses({folder: tuple(sorted(names)) for folder, names in releases.items()}, tuple(unread))


def _digests(text: str) -> set[str] | None:
    """What a deployment names, None if it cannot be read; in other namespaces anyone may have written it."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    named = document.get("packages")
    references = [*(named.values() if isinstance(named, dict) else ()), document.get("python")]
    return {
        str(reference["digest"]) for reference in references if isinstance(reference, dict) and "digest" in reference
    }
