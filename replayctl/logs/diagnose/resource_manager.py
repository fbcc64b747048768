"""Reads the ResourceManager's report of an application's end, which YARN calls diagnostics."""

from __future__ import annotations

import re
from collections.abc import Iterator

from replayctl.logs.diagnose import ranks
from replayctl.logs.diagnose.cause import Cause, Finding
from replayctl.logs.diagnose.exit_codes import CODES_WITHOUT_NEWS, EXIT_CODE, exit_finding
from replayctl.logs.diagnose.limits import MAX_DIAGNOSTICS, MAX_SUMMARY
from replayctl.logs.diagnose.reader import Diagnosis
from replayctl.logs.diagnose.texts import clean

# The user's name may be empty, and the address follows it: "by user  at 10.0.0.7". Looking from the last such word
# before the kill reads no text twice.
_KILLED_BY_USER = re.compile(
    r"(?:application|job)\b(?:(?!(?:application|job)\b)[^\n]){0,200}?\bkilled by user\b"
    r"(?:[ :]+(?!at (?!at\b))(\w[\w.@-]{0,100}))?",
    re.IGNORECASE,
)
_LIFETIME = re.compile(r"\bexceed\w* (?:the|its) lifetime", re.IGNORECASE)
_REFUSED = re.compile(
    r"unknown queue|cannot submit applications to queue|to a non-leaf queue|is STOPPED\. Cannot accept"
    r"|Invalid resource request"
)
_AROUND = 200
_REFUSAL = re.compile(rf"[^\n]{{0,{_AROUND}}}(?:{_REFUSED.pattern})[^\n]{{0,{_AROUND}}}")
_EXECUTOR_FAILURES = re.compile(r"Max number of executor failures \(\d+\) reached")
_EARLY = re.compile(r"Shutdown hook called before final status was reported")
_USER_EXIT = re.compile(r"User application exited with (?:status )?(\d{1,3})\b")


def from_diagnostics(text: str) -> Cause | None:
    """The cause in the diagnostics of an application on YARN; None if they contain nothing known.

    Its file is "diagnostics", its lines are those of the text.
    """
    best = _read(text).best()
    return best.cause() if best else None


def add_diagnostics(diagnosis: Diagnosis, text: str) -> None:
    """Add the findings of the diagnostics to a diagnosis of the logs."""
    best = _read(text).best()
    if best is not None:
        diagnosis.include(best)


def _read(text: str) -> Diagnosis:
    text = text[:MAX_DIAGNOSTICS]
    diagnosis = Diagnosis()
    diagnosis.start_file("", "diagnostics")
    for line in text.split("\n"):
        diagnosis.feed(line.removeprefix("Diagnostics: "))
    for known, match in _verdicts(text):
        diagnosis.add(known, text.count("\n", 0, match.end()) + 1, match[0].strip())
    return diagnosis


def _refusal(text: str) -> re.Match[str] | None:
    """The words of a refusal with what stands around them on their line."""
    words = _REFUSED.search(text)
    if words is None:
        return None
    # Matched from here only: a search would read the text before the words again at each character.
    earliest = max(words.start() - _AROUND, 0)
    return _REFUSAL.match(text, max(earliest, text.rfind("\n", earliest, words.start()) + 1))


def _verdicts(text: str) -> Iterator[tuple[Finding, re.Match[str]]]:
    """Findings that only the ResourceManager reports, and those that count only without a better one."""
    if killed := _KILLED_BY_USER.search(text):
        summary = f"the application was killed by {killed[1] or 'a user'}"
        yield Finding("killed", summary, "The application itself may be correct.", ranks.DELIBERATE), killed
    if lifetime := _LIFETIME.search(text):
        advice = "Raise the application's timeout or the queue's maximum lifetime, or make it faster."
        yield Finding("lifetime", "YARN ended the application after its lifetime", advice, ranks.DELIBERATE), lifetime
    if refused := _refusal(text):
        advice = "YARN rejected the application: check its queue, and its memory and cores against the limits."
        yield Finding("refused", clean(refused[0].strip())[:MAX_SUMMARY], advice, ranks.DRIVER_MAIN), refused
    if ended := _USER_EXIT.search(text):
        advice = "See the output of the driver."
        yield Finding("user exit", f"the driver ended with exit code {ended[1]}", advice, ranks.EMPTY_WORDS), ended
    if executors := _EXECUTOR_FAILURES.search(text):
        advice = "See the logs of the executors; spark.executor.maxNumFailures sets how many may fail."
        yield Finding("executors", "too many executors failed", advice, ranks.CONSEQUENCE), executors
    if early := _EARLY.search(text):
        advice = "Its JVM was stopped by a signal or by System.exit before the application had ended."
        yield Finding("early", "the driver was stopped before its end", advice, ranks.STOPPED), early
    for match in EXIT_CODE.finditer(text):
        known = exit_finding(int(match[1]))
        if known and match[1] != "0":
            rank = ranks.EMPTY_WORDS - 1 if int(match[1]) in CODES_WITHOUT_NEWS else known.rank
            yield known._replace(rank=rank), match
