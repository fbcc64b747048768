"""The folder that a release was deployed from, so that one project does not remove another one's DAGs unnoticed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from replayctl.storage import lock

_SHIPPED = "the shipped DAGs"


@dataclass(frozen=True, slots=True)
class Source:
    """A DAG folder on a user's machine; below the user's home, it begins with `~`."""

    folder: str
    user: str
    host: str

    def __str__(self) -> str:
        return self.folder if self.folder == _SHIPPED else f"{self.folder} of {self.user} on {self.host}"

    def is_same(self, other: Source) -> bool:
        """Whether both are one folder; the shipped DAGs are the same on every machine."""
        return self == other or self.folder == other.folder == _SHIPPED


def source_of(dags_dir: Path | None) -> Source:
    """This machine's folder; None for the shipped DAGs."""
    who = lock.whoami()
    return Source(_SHIPPED if dags_dir is None else _shown(dags_dir), str(who["user"]), str(who["host"]))


def recorded_source(line: Mapping[str, object]) -> Source | None:
    """The source that a release's metadata or a line of the audit log names."""
    folder, user, host = (line.get(key) for key in ("folder", "user", "host"))
    if isinstance(folder, str) and isinstance(user, str) and isinstance(host, str):
        return Source(folder, user, host)
    return None


def _shown(folder: Path) -> str:
    folder = folder.resolve()
    # Colleagues can read the record: they need the project, not the layout of the machine.
    home = Path.home().resolve()
    return f"~/{folder.relative_to(home)}" if folder.is_relative_to(home) else str(folder)
