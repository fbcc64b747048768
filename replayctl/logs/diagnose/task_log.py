"""The probable cause in the log of an Airflow task, which quotes what the step's own process has written."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from replayctl.logs.diagnose.cause import Cause
from replayctl.logs.diagnose.reader import Diagnosis

# How the operator (dags/dag_process.py) raises the last words of a step that prints no traceback.
_WRAPPING = re.compile(r"^AirflowException: the step failed: ")


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
    cause = min(quoted, key=lambda cause: len(cause.summary))
    # A summary is cut where it is long; what a user has to do may be at its end.
    whole = next((line.strip() for line in cause.excerpt if cause.summary in line), cause.summary)
    return replace(cause, summary=_WRAPPING.sub("", whole))
