"""What of a failed task's log helps its user: the step's own lines, with paths as they are in the DAG folder."""

from __future__ import annotations

import re
from collections.abc import Sequence

# How Airflow's hook, which dags/dag_yarn.py uses, names the application that has failed.
_APPLICATION = re.compile(r"YARN application (application_\d{1,20}_\d{1,10}) (?:ended with|returned unexpected) ")
_TRACEBACK = "Traceback (most recent call last):"
# Airflow's line before the traceback of the operator's error.
_OPERATOR = "Task failed with exception"
# The operator's own errors say in words why a step failed, so their traceback does not help.
_IN_WORDS = "AirflowException: "
# How the operator (dags/dag_process.py) repeats the last words of a step.
_REPEATED = "the step failed: "
# What Airflow's hook says after Spark's driver has failed, and how the driver (dags/dag_submit.py) says why.
_OF_THE_HOOK = "Cannot execute: "
_OF_THE_DRIVER = re.compile(r"(?:StepError|ArtifactError|HdfsError): ")
_END = "::endgroup::"
# Groups of lines that Airflow's pages fold: the log's own path, and the start of the worker.
_BEFORE_THE_STEP = ("::group::Log message source details", "::group::Pre Execute")
# The last two have the step's whole document, as JSON and in base64.
_NOISE = ("::group::", _END, "the step: {", "Spark-Submit cmd: ")
# Airflow's folder of a release, or the archive that Python and Spark import.
_RELEASE = re.compile(r'(?<=File ")[^"]*/(r_[0-9a-f]{16})(?:\.zip/\1)?/(?=[^"]+", line \d+)')


def failed_application(lines: Sequence[str]) -> str | None:
    """The ID of the application on YARN that has failed with the task; its log has the cause. None without one."""
    return next((match[1] for line in reversed(lines) if (match := _APPLICATION.search(line))), None)


def log_excerpt(lines: Sequence[str], count: int) -> tuple[str, ...]:
    """The last `count` lines of a failed task's log that are about the step.

    The error of the operator, which comes after them, is left out if it repeats the step's, and has no traceback if it
    is in words. Files of a release are named as in the folder that was deployed.
    """
    lines = _without_start(lines)
    end = next((number for number, line in enumerate(lines) if line.strip() == _OPERATOR), len(lines))
    relevant = [*lines[:end], *_operators_words(lines[:end], lines[end:])]
    return tuple(_RELEASE.sub("", line) for line in relevant if not line.startswith(_NOISE))[-count:]


def _without_start(lines: Sequence[str]) -> Sequence[str]:
    """The lines after Airflow's first groups; a group that has no end is where the worker failed."""
    while lines and lines[0].startswith(_BEFORE_THE_STEP):
        end = next((number for number, line in enumerate(lines) if line.startswith(_END)), None)
        if end is None:
            return lines
        lines = lines[end + 1 :]
    return lines


def _operators_words(own: Sequence[str], operator: Sequence[str]) -> Sequence[str]:
    """What the operator adds to the step's own lines."""
    if any(line.strip() == _TRACEBACK for line in own):
        return ()
    start = next((number for number, line in enumerate(operator) if line.startswith(_IN_WORDS)), None)
    if start is None:
        return operator
    words = [operator[start].removeprefix(_IN_WORDS), *operator[start + 1 :]]
    if words[0].startswith(_OF_THE_HOOK) and any(_OF_THE_DRIVER.match(line) for line in own):
        return ()
    repeated = words[0].removeprefix(_REPEATED)
    return () if repeated != words[0] and any(line.strip() == repeated for line in own) else words
