"""What a block of exceptions says when it is complete: which of them counts, how probable it is, what to show.

The deepest exception that tells anything counts, of the last one that the program itself raised.
"""

from __future__ import annotations

from replayctl.logs.diagnose import ranks
from replayctl.logs.diagnose.blocks import Block
from replayctl.logs.diagnose.cause import Finding
from replayctl.logs.diagnose.known_lines import known_line
from replayctl.logs.diagnose.limits import MAX_EXCERPT, MAX_SUMMARY
from replayctl.logs.diagnose.meanings import CONSEQUENCES, NOISE, meaning
from replayctl.logs.diagnose.texts import cause_key, simple_name
from replayctl.logs.diagnose.thrown import Thrown


def conclusion(block: Block, *, driver: bool) -> tuple[Finding, tuple[str, ...]] | None:
    """What a block in a log of the driver or of an executor says, with the lines to show; None for mere noise."""
    groups = [(group, index) for group in block.groups() if (index := _deepest(group)) is not None]
    weak = not groups
    if not groups:
        if not (driver and block.sections[0].python and block.sections[-1].name):
            return None
        groups = [(block.sections, len(block.sections) - 1)]
    last, index = groups[-1]
    effective = last[index]
    summary = _summary(groups)
    key, explanation, rank = _judged(block, effective, summary, driver=driver)
    if not explanation:
        for group, at in reversed(groups[:-1]):
            explanation, _ = meaning(group[at].full(), driver=driver and not block.remote())
            if explanation:
                break
    finding = Finding(key, summary, explanation, max(rank, ranks.CONSEQUENCE) if weak else rank)
    # The root of all comes first, then where the program raised the last one, then what that was about.
    root = groups[0][0][groups[0][1]]
    return finding, _excerpt(block, [root, last[0], effective])


def _judged(block: Block, effective: Thrown, summary: str, *, driver: bool) -> tuple[str, str, int]:
    """Key, explanation and rank of what a block ended with."""
    python_first = block.sections[0].python
    explanation, memory = meaning(effective.full(), driver=driver and not block.remote())
    key = cause_key(summary)
    rank = ranks.KNOWN if explanation else ranks.EXCEPTION
    if effective.name == "ExecutorLostFailure":
        known = known_line(effective.message, driver=False)
        if known:
            key, explanation, rank = known.key, known.explanation, known.rank
            memory = rank in ranks.OF_MEMORY
    if not effective.complete:
        return key, "The log ends before the exception is named.", ranks.CUT_OFF
    if CONSEQUENCES.search(effective.full()):
        return key, explanation, ranks.CONSEQUENCE
    if any("AnnotatedConnectException" in thrown.name for thrown in block.sections):
        return key, "One half of the application lost the other; look for why that one ended.", ranks.CONSEQUENCE
    if python_first and block.level == "INFO":
        return key, explanation, ranks.INFORMED_TRACEBACK
    if driver and python_first:
        if block.level:
            return key, explanation, ranks.DRIVER_LOGGED_TRACEBACK
        return key, explanation, ranks.DRIVER_AFTER_WARNING if block.after_warning else ranks.DRIVER_TRACEBACK
    if driver and block.main:
        return key, explanation, ranks.DRIVER_MAIN
    return key, explanation, ranks.OUT_OF_MEMORY if memory else rank


def _summary(groups: list[tuple[list[Thrown], int]]) -> str:
    """The last exception, and the one that the program raised it from."""
    summary = _described(*groups[-1])
    first = len(groups) - 1
    while first > 0 and groups[first][0][0].relation == "direct":
        first -= 1
    if first < len(groups) - 1:
        summary = f"{summary} (caused by {_described(*groups[first])})"[: 2 * MAX_SUMMARY]
    return summary


def _excerpt(block: Block, wanted: list[Thrown]) -> tuple[str, ...]:
    """Lines of these exceptions, in the order of the log; the last one even if the log has none of its own."""
    shown = [thrown for thrown in block.sections if any(thrown is each for each in wanted)]
    shown = [thrown for thrown in shown if thrown.head] or [wanted[-1]]
    excerpt: list[str] = []
    for thrown in shown:
        lines = thrown.lines(MAX_EXCERPT // len(shown))
        excerpt += lines[1:] if excerpt and excerpt[0] == lines[0] else lines
    return tuple(excerpt[:MAX_EXCERPT])


def _is_noise(thrown: Thrown) -> bool:
    if thrown.relation == "suppressed":
        return True
    if not thrown.complete:
        return False
    # The worker's own exception stands in the text of this one.
    wrapper = simple_name(thrown.name) == "PythonException" and not thrown.message.strip()
    return wrapper or not thrown.name or bool(NOISE.search(thrown.full()))


def _deepest(group: list[Thrown]) -> int | None:
    """Where the deepest exception stands that tells anything."""
    for index in range(len(group) - 1, -1, -1):
        if not _is_noise(group[index]):
            return index
    return None


def _described(group: list[Thrown], index: int) -> str:
    """The exception, and what it was raised from when both are within the text of another one."""
    first = index
    while first > 0 and group[first].relation == "direct" and group[first].within:
        first -= 1
    text = group[index].text()
    return text if first == index else f"{text} (caused by {group[first].text()})"
