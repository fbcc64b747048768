"""What of a failed task's log helps its user: the step's own lines, with paths as they are in the DAG folder."""

from __future__ import annotations

import re
from collections.abc import Sequence

# How Airflow's hook, which dags/dag_yarn.py uses, names the application that has failed.
_APPLICATION = re.compile(r"YARN application (application_\d{1,20}_\d{1,10}) (?:ended with|returned unexpected) ")
_TRACEBACK = "Traceback (most recent call last):"
# Airflow's line before the tracebacks of the operator, which repeat the step's error.
_OPERATOR = "Task failed with exception"
# Airflow's pages fold the lines of a group; this one has the log's own path.
_SOURCES = "::group::Log message source details"
# The last one is the step's whole document as JSON.
_NOISE = ("::group::", "::endgroup::", "the step: {")
# Airflow's folder of a release, or the archive that Python and Spark import.
_RELEASE = re.compile(r'(?<=File ")[^"]*/(r_[0-9a-f]{16})(?:\.zip/\1)?/(?=[^"]+", line \d+)')


def failed_application(lines: Sequence[str]) -> str | None:
    """The ID of the application on YARN that has failed with the task; its log has the cause. None without one."""
    return next((match[1] for line in reversed(lines) if (match := _APPLICATION.search(line))), None)


def log_excerpt(lines: Sequence[str], count: int) -> tuple[str, ...]:
    """The last `count` lines of a failed task's log that are about the step.

    Where the step has left a traceback, the operator's, which come after it, are left out. Files of a release are
    named as in the folder that was deployed.
    """
    end = next((number for number, line in enumerate(lines) if line.strip() == _OPERATOR), len(lines))
    if lines and lines[0].startswith(_SOURCES):
        start = next((number for number, line in enumerate(lines[:end]) if line.startswith("::endgroup::")), 0)
        lines, end = lines[start:], end - start
    if any(line.strip() == _TRACEBACK for line in lines[:end]):
        lines = lines[:end]
    return tuple(_RELEASE.sub("", line) for line in lines if not line.startswith(_NOISE))[-count:]
