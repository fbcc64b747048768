"""Findings in single lines without an exception: kills, limits, exit codes.

The reader skips lines without any of its words, so each message here must contain one of them.
"""

from __future__ import annotations

import re

from replayctl.logs.diagnose import ranks
from replayctl.logs.diagnose.cause import Finding
from replayctl.logs.diagnose.exit_codes import EXIT_CODE, exit_finding
from replayctl.logs.diagnose.limits import MAX_SUMMARY
from replayctl.logs.diagnose.meanings import MORE_OVERHEAD, side
from replayctl.logs.diagnose.notation import CONTAINER, DRIVER
from replayctl.logs.diagnose.texts import cause_key

_SIZES = r"(?<![\d.])([\d.]+ ?[KMGT]?B of [\d.]+ ?[KMGT]?B {kind} memory used)"
_KILLED_BY_YARN = re.compile(r"killed by YARN for exceeding (?:(physical|virtual) )?memory limits")
_BEYOND = re.compile(r"is running (?:-?\d+B )?beyond (?:the )?'?(physical|virtual)'? memory limit", re.IGNORECASE)
_USED = {kind: re.compile(_SIZES.format(kind=kind)) for kind in ("physical", "virtual")}
_BAD_ALLOC = re.compile(r"^(?:terminate called|.*throwing an instance of|.*what\(\)).{0,100}bad_alloc")
_KILLED = re.compile(r"^\s*Killed\s*$|: line \d+:\s*\d+ Killed\b|out of memory: Kill(?:ed)? process", re.IGNORECASE)
_HEARTBEAT = re.compile(r"Executor heartbeat timed out after")
_NOT_STARTED = re.compile(
    r"(?:: line \d+: |^(?:/\S{0,100}/)?(?:env|bash|sh|nohup): (?:\d+: )?(?:exec: )?(?:\d+: )?)"
    r"[\u2018'\"]?([^\s\u2018\u2019'\":]{1,200})[\u2019'\"]?: "
    r"(command not found|not found|No such file or directory|Permission denied|cannot execute\b.{0,40})"
)
# How a step on Spark ends with an error that its user can fix (dags/dag_submit.py).
_STEP_FAILED = re.compile(r"^(?:StepError|ArtifactError|HdfsError|HdfsUnavailable): \S.*")
_NOT_INITIALISED = re.compile(r"SparkContext did not initialize after waiting")
TERMINATED = re.compile(r"RECEIVED SIGNAL (TERM|INT|HUP)")
SHUTDOWN = re.compile(
    r"Invoking stop\(\) from shutdown hook|Driver commanded a shutdown|Shutdown hook called(?! before)"
)
NEW_CONTEXT = "Running Spark version"
BAD_LINE = re.compile(
    r"No space left on device|Permission denied: user=\S|Path does not exist:|Could not find or load main"
    r"|Fatal Python error:|can't open file '|bigger than (?:spark\.driver\.maxResultSize|local result size limit)"
    r"|Assertion [`'].{1,300} failed|what\(\): |free\(\): invalid|double free or corruption|malloc\(\): "
    r"|munmap_chunk\(\)|stack smashing detected|corrupted (?:size|double)|\[Fatal\] |pure virtual method called"
    r"|: not found$|error while loading shared libraries: |cannot execute binary file|JAVA_HOME is not set"
    r"|Segmentation fault|Error: (?:Could not|Failed to load class|Invalid maximum|Unrecognized|No main class)"
    r"|Unrecognized VM option|^\S{1,200}\.py: error: |spark\.rpc\.message\.maxSize|can't execute: "
)


def may_tell(line: str) -> bool:
    """Whether a line contains a relevant word, besides the most common ones."""
    return (
        "SIGNAL" in line
        or "EXIT" in line
        or "ill process" in line
        or "No s" in line
        or 'File "' in line
        or "Lost" in line
        or "denied" in line
        or "heartbeat" in line
        or "bad_alloc" in line
        or "not " in line
        or "\tat " in line
        or "bigger" in line
        or "ssertion" in line
        or "[Fatal]" in line
        or "orrupt" in line
        or "nvalid" in line
        or "what():" in line
        or "nsufficient" in line
        or "hrowable" in line
        or "fault" in line
        or line.startswith(("at ", "    at "))
    )


def known_line(text: str, *, driver: bool) -> Finding | None:
    """The finding of a line without an exception; None for all other lines."""
    yarn = _KILLED_BY_YARN.search(text)
    beyond = None if yarn else _BEYOND.search(text)
    if limits := yarn or beyond:
        # Older versions of Spark name the kind with the sizes only.
        kind = (limits[1] or ("virtual" if _USED["virtual"].search(text) else "physical")).lower()
        about = CONTAINER.search(text)
        whose = side(bool(DRIVER.match(about[0])) if about else driver and not yarn)
        used = _USED[kind].search(text)
        advice = MORE_OVERHEAD.replace("{side}", whose)
        if kind == "virtual":
            advice += " Or ask the cluster's owner to turn off yarn.nodemanager.vmem-check-enabled."
        summary = f"{whose} killed by YARN for exceeding {kind} memory limits" + (f" ({used[1]})" if used else "")
        return Finding(f"{whose} {kind}", summary, advice, ranks.KILLED_FOR_MEMORY, fatal=True)
    if _HEARTBEAT.search(text):
        advice = "The executor was busy collecting garbage, swapping or dead; it usually needs more memory."
        return Finding("heartbeat", "an executor stopped sending heartbeats", advice, ranks.EXIT_FOR_MEMORY)
    if _BAD_ALLOC.search(text):
        advice = MORE_OVERHEAD.replace("{side}", side(driver))
        return Finding(
            "bad_alloc", "std::bad_alloc: a native library ran out of memory", advice, ranks.OUT_OF_MEMORY, fatal=True
        )
    if _KILLED.search(text):
        advice = "Usually the kernel does this when memory runs out. " + MORE_OVERHEAD.replace("{side}", side(driver))
        return Finding("Killed", "a process was killed (SIGKILL)", advice, ranks.EXIT_FOR_MEMORY, fatal=True)
    if not_started := _NOT_STARTED.search(text):
        advice = "The container's command could not be started; check the packed environment and its path."
        return Finding(not_started[0], f"{not_started[1]}: {not_started[2]}", advice, ranks.EXCEPTION)
    if driver and (failed := _STEP_FAILED.match(text)):
        summary = failed[0][:MAX_SUMMARY]
        return Finding(cause_key(summary), summary, "", ranks.DRIVER_TRACEBACK, fatal=True)
    if _NOT_INITIALISED.search(text):
        advice = "Look for earlier errors, or create the SparkContext sooner than spark.yarn.am.waitTime allows."
        return Finding("not initialised", "the driver did not create a SparkContext in time", advice, ranks.EXIT)
    code = EXIT_CODE.search(text)
    return exit_finding(int(code[1])) if code else None
