"""Failures of real applications on Spark 3.5 with Java 17: their logs, without most of the noise.

Each file says what the first cause holds and what to do about it, then the logs of its processes.
"""

import re
from pathlib import Path

import pytest

from tests.diagnose_logs import DRIVER, EXECUTOR, OTHER_EXECUTOR, diagnosed

CONTAINERS = {"driver": DRIVER, "executor1": EXECUTOR, "executor2": OTHER_EXECUTOR}
FAILURES = sorted(Path(__file__).with_name("failures").glob("*.log"))


@pytest.mark.parametrize("path", FAILURES, ids=lambda path: path.stem)
def test_the_first_cause_of_a_failure(path: Path) -> None:
    head, *parts = re.split(r"^==> (.*)\n", path.read_text("utf-8"), flags=re.MULTILINE)
    summary, advice = re.findall(r"^# (?:summary|advice): ?(.*)$", head, flags=re.MULTILINE)
    files = []
    for name, text in zip(parts[::2], parts[1::2], strict=True):
        process, file = name.split()
        files.append((CONTAINERS[process], file, text))
    for order in (files, files[::-1]):
        causes = diagnosed(*order)
        assert summary in causes[0].summary
        assert advice in causes[0].explanation
    # Where the driver tells of its failure twice, each of the two is enough.
    for file in (file for file in files if file[1] == "stdout" and "Traceback" in file[2]):
        (cause, *_) = diagnosed(file)
        assert summary in cause.summary or "lost" in cause.explanation
