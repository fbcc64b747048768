"""What is known of a run: its state, its tasks with their results, and the causes of failures."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Literal

from replayctl.console.times import short_moment

# As many parameters as identify an artifact, on a line with other words.
_PARAMETERS_WIDTH = 40


@dataclass(frozen=True, slots=True)
class FailureCause:
    """Why a task failed: the most specific exception, and its explanation (empty if unknown).

    `excerpt` are the lines of another log that the cause is in.
    """

    summary: str
    explanation: str
    excerpt: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FailedTask:
    """A failed task: the cause, the last lines of its log that are about the step, and where the complete log is.

    `application` is the one on YARN that has failed with it; None without one. Of a log that cannot be read, the only
    line says why.
    """

    task_id: str
    try_number: int
    cause: FailureCause | None
    log_tail: tuple[str, ...]
    log_source: str | None
    log_url: str
    application: str | None = None


@dataclass(frozen=True, slots=True)
class TaskReport:
    """One task of a run; `seconds` is the duration of its latest try.

    `outcome` is `computed` or `reused`, `stopped` for a task that ended with the stop of its run, and None for tasks
    that are not steps or have not ended. `made_by` and `made_at` are the DAG and time that the artifact comes from.
    """

    task_id: str
    state: str | None
    try_number: int
    seconds: float | None
    outcome: Literal["computed", "reused", "stopped"] | None = None
    parameters: str | None = None
    release: str | None = None
    made_at: datetime.datetime | None = None
    made_by: str | None = None
    # What its workload warned of.
    warnings: tuple[str, ...] = ()

    @property
    def result(self) -> str:
        """The outcome, as `reused (rank=32, made Nov 25 19:30 by two_stage_ml100k)` for a reused one; empty without."""
        if self.outcome != "reused":
            return self.outcome or ""
        origin = f"made {short_moment(self.made_at)}" if self.made_at else ""
        origin += f" by {self.made_by}" if origin and self.made_by else ""
        words = (_beginning(self.parameters or ""), origin)
        return f"reused ({', '.join(word for word in words if word)})"


@dataclass(frozen=True, slots=True)
class RunReport:
    """One run at the time of its last check. Durations are in seconds.

    `stopped_by` is the user who has stopped it, None for one that ended by itself; `failed` are the tasks that failed
    before that.
    """

    dag_id: str
    run_id: str
    state: str
    seconds: float | None
    url: str
    tasks: tuple[TaskReport, ...]
    failed: tuple[FailedTask, ...]
    outcome: Literal["started", "success", "failed", "unfinished"]
    stopped_by: str | None = None

    @property
    def releases(self) -> tuple[str, ...]:
        """The releases that its tasks have used."""
        return tuple(sorted({task.release for task in self.tasks if task.release}))


def _beginning(parameters: str) -> str:
    if len(parameters) <= _PARAMETERS_WIDTH:
        return parameters
    whole = parameters[: _PARAMETERS_WIDTH + 1].rpartition(", ")[0]
    return f"{whole or parameters[:_PARAMETERS_WIDTH]}, …"
