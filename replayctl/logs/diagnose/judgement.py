"""Draws the conclusion from a block of exceptions: which one is relevant, how probable it is, what to show.

Within the last exception that the program itself raised, the most specific one is relevant: the deepest, unless it is
less specific than what it caused.
"""

from __future__ import annotations

import re
from functools import lru_cache

from replayctl.logs.diagnose import ranks
from replayctl.logs.diagnose.blocks import Block
from replayctl.logs.diagnose.cause import Finding
from replayctl.logs.diagnose.echoes import CONSEQUENCES, FOLLOWS_LOSS, NOISE, WEAK, lost_jvm, may_have_lost_jvm
from replayctl.logs.diagnose.known_lines import known_line
from replayctl.logs.diagnose.layout import QUIET
from replayctl.logs.diagnose.limits import MAX_EXCERPT, MAX_SUMMARY
from replayctl.logs.diagnose.meanings import JAVA_SIDE_DIED, meaning
from replayctl.logs.diagnose.texts import cause_key, simple_name
from replayctl.logs.diagnose.thrown import Thrown

_WORD = re.compile(r"[^\W\d_]{2,}")
_CLASS = re.compile(r"(?:[a-z_][\w$]*\.)+[A-Z][\w$]*")
_Group = tuple[list[Thrown], int]


def conclusion(block: Block, *, driver: bool) -> tuple[Finding, tuple[str, ...]] | None:
    """What a block in a log of the driver or of an executor says, with the lines to show; None for mere noise."""
    if not block.proven:
        return None
    groups = [(group, index) for group in block.groups() if (index := _telling(group)) is not None]
    weak = not groups
    if not groups:
        if not (driver and block.sections[0].python and block.sections[-1].name):
            return None
        groups = [(block.sections, len(block.sections) - 1)]
    last, index = groups[-1]
    finding = _judged(block, groups, driver=driver)
    if weak:
        finding = finding._replace(rank=max(finding.rank, ranks.CONSEQUENCE))
    # The root of all comes first, then where the program raised the last one, then what that was about.
    root = groups[0][0][groups[0][1]]
    return finding, _excerpt(block, [root, last[0], last[index]])


def _judged(block: Block, groups: list[_Group], *, driver: bool) -> Finding:
    """The finding of the last specific exception."""
    group, index = groups[-1]
    effective, text = group[index], group[index].full()
    own = driver and not block.remote()
    known = meaning(text, driver=own)
    finding = Finding(cause_key(_summary(groups)), _summary(groups), known.advice, ranks.EXCEPTION)
    if known.memory:
        finding = finding._replace(rank=ranks.OUT_OF_MEMORY, fatal=own and "OutOfMemoryError" in effective.name)
    elif known.advice:
        finding = finding._replace(rank=ranks.KNOWN)
    if effective.name == "ExecutorLostFailure":
        finding = finding._replace(rank=ranks.EXCEPTION)
        if lost := known_line(effective.message, driver=False):
            rank = ranks.OUT_OF_MEMORY if lost.rank in ranks.OF_MEMORY else lost.rank
            finding = Finding(lost.key, lost.summary, lost.explanation, rank)
    if not effective.complete:
        return finding._replace(explanation="The log ends before the exception is named.", rank=ranks.CUT_OFF)
    if effective.python and lost_jvm(text, effective.frame):
        return finding._replace(explanation=JAVA_SIDE_DIED, rank=ranks.CONSEQUENCE, echo=True)
    if CONSEQUENCES.search(text):
        return finding._replace(rank=ranks.CONSEQUENCE)
    if any("AnnotatedConnectException" in thrown.name for thrown in block.sections):
        advice = "One half of the application lost the other; find out why that one ended."
        return finding._replace(explanation=advice, rank=ranks.CONSEQUENCE)
    if not finding.explanation:
        finding = finding._replace(explanation=_advice_of_others(groups, driver=own))
    if effective.python and may_have_lost_jvm(text):
        finding = finding._replace(echo=True)
    rank = _rank_of_place(block, effective, finding.rank, driver=driver)
    if driver and known.setting and rank != ranks.WARNED:
        rank = min(rank, ranks.DRIVER_SETTING)
    return finding._replace(rank=rank)


def _rank_of_place(block: Block, effective: Thrown, rank: int, *, driver: bool) -> int:
    """The rank of a block by its place in the log; the rank of its exception if the place does not matter."""
    python_first = block.sections[0].python
    if block.level in QUIET and not block.main and not block.of_task() and rank != ranks.OUT_OF_MEMORY:
        return ranks.INFORMED_TRACEBACK if python_first and block.level == "INFO" else ranks.WARNED
    follows = FOLLOWS_LOSS.search(effective.full()) is not None
    if driver and python_first:
        if block.level:
            return ranks.DRIVER_LOGGED_TRACEBACK
        if block.after_warning:
            return ranks.DRIVER_AFTER_WARNING
        if follows:
            return ranks.DRIVER_LOST_SHUFFLE
        lost = effective.name == "ExecutorLostFailure"
        return ranks.DRIVER_LOST_EXECUTOR if lost and rank != ranks.EXCEPTION else ranks.DRIVER_TRACEBACK
    if driver and block.main:
        return ranks.DRIVER_LOST_SHUFFLE if follows else ranks.DRIVER_MAIN
    return max(rank, ranks.CONSEQUENCE) if follows else rank


def _advice_of_others(groups: list[_Group], *, driver: bool) -> str:
    """The advice for an exception that the last one was raised from."""
    for group, index in reversed(groups[:-1]):
        if advice := meaning(group[index].full(), driver=driver).advice:
            return advice
    return ""


def _summary(groups: list[_Group]) -> str:
    """The last exception, and the one that the program raised it from."""
    summary = _described(*groups[-1])
    first = len(groups) - 1
    while first > 0 and groups[first][0][0].relation == "direct":
        first -= 1
    if first < len(groups) - 1:
        summary = f"{summary} (caused by {_described(*groups[first])})"[: 2 * MAX_SUMMARY]
    return summary


def _excerpt(block: Block, relevant: list[Thrown]) -> tuple[str, ...]:
    """Lines of these exceptions, in the order of the log; the last one even if the log has none of its own."""
    sections = [thrown for thrown in block.sections if any(thrown is item for item in relevant)]
    sections = [thrown for thrown in sections if thrown.head] or [relevant[-1]]
    excerpt: list[str] = []
    for thrown in sections:
        lines = thrown.lines(MAX_EXCERPT // len(sections))
        excerpt += lines[1:] if excerpt and excerpt[0] == lines[0] else lines
    return tuple(excerpt[:MAX_EXCERPT])


def _worth(thrown: Thrown) -> int:
    """How specific an exception is: 0 if it says nothing."""
    if thrown.relation == "suppressed":
        return 0
    if not thrown.complete:
        return 4
    if thrown.from_worker:
        return 6
    return _worth_of_text(thrown.full(), thrown.name, empty=not thrown.message.strip())


@lru_cache(maxsize=256)
def _worth_of_text(text: str, name: str, *, empty: bool) -> int:
    # The worker's own exception stands in the text of this one.
    wrapper = empty and simple_name(name) == "PythonException"
    # A job may also be aborted for a reason of the driver.
    of_driver = "Job aborted due to" in text and "Lost task" not in text and meaning(text, driver=True).complete
    if wrapper or not name or (NOISE.search(text) and not of_driver):
        return 0
    if "EOFException" in text:
        return 1
    if CONSEQUENCES.search(text):
        return 2
    if WEAK.match(text):
        return 2
    if meaning(text, driver=False).complete:
        return 5
    return 3 if empty and not meaning(name, driver=False).advice else 4


def _telling(group: list[Thrown]) -> int | None:
    """The index of the most specific exception in a chain of causes; None if none is specific."""
    worths = [_worth(thrown) for thrown in group]
    if not any(worths):
        return None
    best = max(worths)
    index = max(at for at, worth in enumerate(worths) if worth == best)
    for at in range(index - 1, -1, -1):
        if worths[at] and not group[at].python and _contains(group[at], group[index]):
            index = at
    return index


def _contains(outer: Thrown, inner: Thrown) -> bool:
    """Whether an exception's message holds that of its cause, and says more than that: which program, which file."""
    message = inner.message.strip()
    if not message or message not in outer.message:
        return False
    rest = outer.message.replace(message, " ", 1)
    return bool(_WORD.search(_CLASS.sub(" ", rest)))


def _described(group: list[Thrown], index: int) -> str:
    """The exception, and what it was raised from when both are within the text of another one."""
    first = index
    while first > 0 and group[first].relation == "direct" and group[first].within:
        first -= 1
    text = group[index].text()
    if first != index:
        return f"{text} (caused by {group[first].text()})"
    nameless = next((thrown for thrown in reversed(group[index + 1 :]) if _worth(thrown) == 3), None)
    return f"{text} (caused by {nameless.text()})"[: 2 * MAX_SUMMARY] if nameless else text
