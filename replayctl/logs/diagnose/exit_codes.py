"""Exit codes of Spark's and YARN's containers: their meaning, and how specific each is."""

from __future__ import annotations

import re

from replayctl.logs.diagnose import ranks
from replayctl.logs.diagnose.cause import Finding

EXIT_CODE = re.compile(r"\b(?:exit ?(?:status|code)(?: is)?|exited with code)[:=]?\s+(-?\d{1,5})\b", re.IGNORECASE)
_MEANINGS = {
    1: "the program failed; see its output",
    10: "an uncaught exception ended the ApplicationMaster",
    11: "too many executors failed (spark.executor.maxNumFailures)",
    12: "the ApplicationMaster lost the ResourceManager, or requested containers without success too often",
    13: "the driver did not create a SparkContext: it failed before, or took longer than spark.yarn.am.waitTime allows",
    15: "the application's main class threw an exception",
    16: "the driver's JVM was stopped before the application had reported its end: by System.exit or by a signal",
    17: "the ApplicationMaster lost its connection to the driver",
    50: "an uncaught exception ended the JVM",
    51: "an uncaught exception ended the JVM and could not be logged",
    52: "the JVM ran out of memory (OutOfMemoryError)",
    53: "no local folder could be created: the disk is full, or the folder is not writable",
    56: "the executor could not send its heartbeats to the driver",
    126: "the command was found but could not be executed: wrong permissions or a wrong file format",
    127: "the command was not found: a wrong path, or a packed environment that was not unpacked",
    130: "interrupted (SIGINT), as by Ctrl-C",
    134: "aborted (SIGABRT): a native library failed an assertion, or the JVM crashed; stderr or an hs_err file names"
    " the library, whose version must fit the node and the packed environment",
    137: "killed (SIGKILL): usually by the kernel for too much memory, or by YARN when SIGTERM did not stop it in time",
    139: "a native library accessed invalid memory (SIGSEGV)",
    143: "stopped (SIGTERM): usually by YARN, because the application ended or was killed, the container was released"
    " or preempted, or used too much memory; or by the JVM itself after an OutOfMemoryError",
    255: "the program ended with code -1: a native library or the program itself failed, or it was not started"
    " properly; see the last lines of its output",
    -100: "the container was released, or its node was lost",
    -101: "too many local disks of the node are full or broken",
    -102: "YARN took the container back for another queue or application (preemption)",
    -103: "YARN killed the container for using too much virtual memory",
    -104: "YARN killed the container for using too much physical memory",
    -105: "the ApplicationMaster stopped the container",
    -106: "the ResourceManager stopped the container",
    -107: "the container was stopped because the application had finished",
    -108: "the node stopped the container to make room for another one",
    -1000: "the container did not start; usually its files could not be fetched",
}
_SUMMARIES = {
    52: "out of memory (exit code 52)",
    137: "killed, probably for using too much memory (exit code 137)",
    -103: "killed for using too much virtual memory (exit code -103)",
    -104: "killed for using too much memory (exit code -104)",
}
# These appear in every log of a failure or a success and are not specific.
CODES_WITHOUT_NEWS = frozenset({0, 1, 10, 15, -105, -107})
KEYS_WITHOUT_NEWS = frozenset(f"exit {code}" for code in CODES_WITHOUT_NEWS)
# At INFO: executors that were released end like this in each log.
KEYS_OF_RELEASED = frozenset({"exit 143", "exit -100"})
_BY_JVM_OR_SIGNAL = 50
_FOR_MEMORY = (-103, -104)
_RANKS = {code: ranks.EXIT_FOR_MEMORY for code in _SUMMARIES} | {
    code: ranks.WEAK_EXIT for code in (13, 16, 17, 143, 255)
}


def explain_exit_code(code: int) -> str | None:
    """What an exit code of a Spark or YARN container means, in plain words; None for an unknown one."""
    return _MEANINGS.get(code)


def exit_finding(code: int) -> Finding | None:
    """The finding for this exit code; None for an unknown one."""
    words = explain_exit_code(code)
    if words is None:
        return None
    summary = _SUMMARIES.get(code, f"ended with exit code {code}")
    rank, fatal = _RANKS.get(code, ranks.EXIT), code >= _BY_JVM_OR_SIGNAL or code in _FOR_MEMORY
    return Finding(f"exit {code}", summary, f"Exit code {code}: {words}.", rank, fatal=fatal)
