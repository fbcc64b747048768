"""How log lines begin, how Java and Python write exceptions, and how YARN names containers."""

from __future__ import annotations

import re

QUIET = frozenset({"TRACE", "DEBUG", "INFO", "WARN", "WARNING"})
LOUD = frozenset({"ERROR", "FATAL", "CRITICAL"})

TRACEBACK = "Traceback (most recent call last):"
DIRECT = "The above exception was the direct cause of"
DURING = "During handling of the above exception"

_TIME = r"\[?(?:\d\d|\d{4})[-/]\d\d[-/]\d\d[T ]\d\d:\d\d:\d\d"
DATED = re.compile(_TIME)
PREFIX = re.compile(
    _TIME + r"(?:[.,]\d{1,9})?Z?\]?\s*"
    r"(?:(?:[-\w\[\].$]{1,200}[: ]\s?){0,3}?\[?(?P<level>TRACE|DEBUG|INFO|WARN|WARNING|ERROR|FATAL|CRITICAL)\b\]?:?"
    r"\s*(?:- )?(?:\[[^\]]{0,200}\]\s*)?(?:[-\w.$/]{1,200}(?: -|:)\s)?)?"
)
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")

JAVA_NAME = re.compile(r"((?:[A-Za-z_][\w$]*\.)+[A-Z][\w$]*(?:\([\w.$]{1,200}\))?)(?::\s?(.*)|\s*$)", re.DOTALL)
_JAVA_IN_TEXT = re.compile(
    r"(?<![\w.$/])((?:[a-z_][\w$]*\.)+[A-Z][\w$]*(?:Exception|Error)(?:\([\w.$]{1,200}\))?)(?::\s?(.*)|(?=[\s,;)\]]|$))",
    re.DOTALL,
)
_JAVA_START = re.compile(
    r'(?:# |Terminating due to |Exception in thread "[^"]{0,200}" |: |.{0,200}?threw exception: )?'
)
JAVA_FRAME = re.compile(r"\s+(?:at [\w$.<>/@-]+\(|\.\.\. \d+ (?:more|common frames))")
CAUSED_BY = re.compile(r"(\s*)(Caused by|Suppressed): (.*)", re.DOTALL)
LOST_TASK = re.compile(r"Lost task \S+ in stage \S+ \(TID \d+[^)]*\)(?: \([^)]*\))?: (.*)", re.DOTALL)
EXECUTOR_LOST = re.compile(r"ExecutorLostFailure \(.{0,200}?\)(?: Reason: (.*))?$", re.DOTALL)
PYTHON_FRAME = re.compile(r'\s+(File "[^"]*", line \d+)(?:, in .*)?$')
# A class that a function makes has that function in its name.
PYTHON_LAST = re.compile(r"([^\W\d](?:[\w.]|<(?:locals|lambda)>)*)(?::(?: (.*))?)?$", re.DOTALL)

CONTAINER = re.compile(r"container_(?:e\d{1,10}_)?\d{1,20}_\d{1,10}_\d{1,6}_\d{1,10}")
DRIVER = re.compile(r"container_(?:e\d+_)?\d+_\d+_\d+_0*1(?!\d)")


def java_exception(text: str, *, anywhere: bool) -> tuple[str, str] | None:
    """Name and message of the Java exception that a text begins with, or has anywhere."""
    if "xception" not in text and "rror" not in text:
        return None
    start = _JAVA_START.match(text)
    found = _JAVA_IN_TEXT.match(text, start.end() if start else 0)
    if found is None:
        found = _JAVA_IN_TEXT.match(text)
    if found is None and anywhere:
        found = _JAVA_IN_TEXT.search(text)
    return (found[1], found[2] or "") if found else None
