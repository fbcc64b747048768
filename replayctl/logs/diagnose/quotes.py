"""Quotations of another process's log: YARN's "Last 4096 bytes of stderr" in the log of a driver, or of a client."""

from __future__ import annotations

import re

from replayctl.logs.diagnose.layout import time_of

_BEGINS = re.compile(r"\bLast (\d{1,9}) bytes of \S+ ?:")
# What YARN and Spark write after it.
_ENDS = re.compile(
    r"\.\s*$|\[[^\]]{10,40}\](?:Container|Killed|Exception)|\.? ?Failing (?:this|the)|Driver stacktrace:"
    r"|For more detailed"
)
_OF_DRIVER = re.compile(
    r"\b(?:TaskSetManager|TaskSchedulerImpl|DAGScheduler|SparkContext|ApplicationMaster|YarnAllocator|BlockManagerMaster\w*"
    r"|Yarn\w*Scheduler\w*|YarnSchedulerBackend\$\w+|ExecutorAllocationManager|ExecutorMonitor|Client): "
)
_OF_EXECUTOR = re.compile(r"\b(?:\w*CoarseGrainedExecutorBackend|Executor|SparkUncaughtExceptionHandler|MemoryStore): ")


def quoted_bytes(line: str) -> int | None:
    """How many bytes of another process's log may follow this line; None when it begins no quotation."""
    match = _BEGINS.search(line)
    return int(match[1]) if match else None


class Quotation:
    """Knows where a quotation ends. `since` is the line that the quoting process wrote in front of it."""

    def __init__(self, size: int, since: str) -> None:
        self._left = size
        self._since = time_of(since)

    def ends(self, line: str, size: int) -> bool:
        """Whether this line, of that many bytes, is the quoting process's own again."""
        self._left -= size
        if self._left < 0 or _ENDS.match(line):
            return True
        if not self._since:
            return False
        # What was quoted had been written before; a clock of another node may differ, the logger may not.
        time = time_of(line)
        if len(time) != len(self._since) or time < self._since:
            return False
        logger = line[:200]
        return _OF_DRIVER.search(logger) is not None or (time > self._since and not _OF_EXECUTOR.search(logger))
