"""The probable cause in the log of an Airflow task, which quotes what the step's own process has written."""

from __future__ import annotations

from collections.abc import Iterable

from replayctl.logs.diagnose.cause import Cause
from replayctl.logs.diagnose.reader import Diagnosis


def cause_in_task_log(lines: Iterable[str]) -> Cause | None:
    """The most probable cause; None when nothing in the log is a sign of a failure.

    Operators raise the step's last words again: what they quote is the cause, and has the traceback of the step's code.
    """
    diagnosis = Diagnosis()
    for line in lines:
        diagnosis.feed(line)
    causes = diagnosis.causes()
    if not causes:
        return None
    quoted = [cause for cause in causes if cause.summary in causes[0].summary]
    return min(quoted, key=lambda cause: len(cause.summary))
