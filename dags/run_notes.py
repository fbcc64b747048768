"""Which release a run uses: the one it started with, whatever is deployed meanwhile.

Each task records its release in an XCom, and a later task of the run uses the newest record. A task that was tried
before and then cleared uses the currently published release, so that a fix can be tried; the tasks after it follow.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

NOTE = "replayctl"
_RELEASE = re.compile(r"r_[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class RunNotes:
    """The notes of the run's tasks so far, the number of this try, and how often the run was cleared."""

    notes: tuple[Mapping[str, Any], ...]
    try_number: int
    clear_number: int

    @classmethod
    def read(cls, instance: Any, dag_run: Any, task_ids: Iterable[str]) -> RunNotes:
        """Reads the notes from Airflow, which has deleted those of earlier tries of this task."""
        values = instance.xcom_pull(task_ids=sorted(task_ids), key=NOTE) or ()
        notes = tuple(value for value in values if isinstance(value, Mapping) and _is_note(value))
        return cls(notes, int(instance.try_number), int(dag_run.clear_number or 0))

    def release(self, published: str) -> str:
        """The release that this try has to use; `published` is the one that Airflow has loaded the task from."""
        latest = max(self.notes, key=lambda note: (note["clear"], note["at"]), default=None)
        if latest is None or (self.try_number > 1 and self.clear_number > latest["clear"]):
            return published
        return str(latest["release"])

    def of(self, task_id: str) -> Mapping[str, Any] | None:
        """The note of a task of this run."""
        return next((note for note in self.notes if note["task"] == task_id), None)

    def note(self, task_id: str, release: str, document: Mapping[str, Any], **result: Any) -> dict[str, Any]:
        """The note of this try: the release and artifact, and the outcome in `result`."""
        return {
            "task": task_id,
            "release": release,
            "clear": self.clear_number,
            "at": datetime.datetime.now(tz=datetime.UTC).isoformat(),
            "identity": document["identity"],
            "artifact": document["output"],
            **result,
        }


def _is_note(value: Mapping[str, Any]) -> bool:
    texts = all(isinstance(value.get(key), str) for key in ("task", "release", "at", "identity", "artifact"))
    return texts and isinstance(value.get("clear"), int) and _RELEASE.fullmatch(value["release"]) is not None
