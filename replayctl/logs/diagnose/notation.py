"""Patterns for exceptions in Java and Python, failed tasks in Spark, and container IDs of YARN."""

from __future__ import annotations

import re

TRACEBACK = "Traceback (most recent call last):"
# IPython and Jupyter write the name first: "KeyError       Traceback (most recent call last)".
NOTEBOOK = re.compile(r"([\w.]{1,200}) {2,}Traceback \(most recent call last\)$")
DIRECT = "The above exception was the direct cause of"
DURING = "During handling of the above exception"

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")

JAVA_NAME = re.compile(r"((?:[A-Za-z_][\w$]*\.)+[A-Z][\w$]*(?:\([\w.$]{1,200}\))?)(?::\s?(.*)|\s*$)", re.DOTALL)
_THROWABLE = r"(?:[a-z_][\w$]*\.)+(?:[A-Z][\w$]*)?(?:Exception|Error|Throwable)(?:\([\w.$]{1,200}\))?"
_JAVA_IN_TEXT = re.compile(rf"(?<![\w.$/])({_THROWABLE})(?::\s?(.*)|(?=[\s,;)\]]|$))", re.DOTALL)
_JAVA_START = re.compile(
    r'(?:# |Terminating due to |Exception in thread "[^"]{0,200}" |: |.{0,200}?threw exception: )?'
)
# Whatever the exception is called.
THREAD_DIED = re.compile(r'Exception in thread "[^"]{0,200}" ([\w.$]{1,200})(?:: (.*)|$)', re.DOTALL)
# Some carriers and layouts take the indentation away.
JAVA_FRAME = re.compile(
    r"\s+(?:at [\w$.<>/@-]+\(|\.\.\. \d+ (?:more|common frames))"
    r"|at [\w$<>/@-]+\.[\w$.<>/@-]+\([^()]{0,200}\)\s*(?:~?\[|$)"
)
CAUSED_BY = re.compile(r"(\s*)(Caused by|Suppressed): (.*)", re.DOTALL)
LOST_TASK = re.compile(r"Lost task \S+ in stage \S+ \(TID [^)]*\)(?: \([^)]*\)| on [^:]{1,200})?: (.*)", re.DOTALL)
EXECUTOR_LOST = re.compile(r"ExecutorLostFailure \(.{0,200}?\)(?: Reason: ?(.*))?$", re.DOTALL)
IN_DRIVER = re.compile(r"executor driver[),]")
FAILED_TASK = re.compile(r"(?:ExecutorLostFailure|FetchFailed|TaskResultLost|ResultLost) ?\(")
WORKER_SAYS = "Error from python worker:"
PYTHON_FRAME = re.compile(r'\s+(File "[^"]*", line \d+)(?:, in .*)?$')
# A class that a function makes has that function in its name.
PYTHON_LAST = re.compile(r"([^\W\d](?:[\w.]|<(?:locals|lambda)>)*)(?::(?: (.*))?)?$", re.DOTALL)

CONTAINER = re.compile(r"container_(?:e\d{1,10}_)?\d{1,20}_\d{1,10}_\d{1,6}_\d{1,10}")
DRIVER = re.compile(r"container_(?:e\d+_)?\d+_\d+_\d+_0*1(?!\d)")


def java_exception(text: str, *, anywhere: bool) -> tuple[str, str] | None:
    """Name and message of the Java exception that a text begins with, or has anywhere."""
    if "xception" not in text and "rror" not in text and "hrowable" not in text:
        return None
    start = _JAVA_START.match(text)
    match = _JAVA_IN_TEXT.match(text, start.end() if start else 0)
    if match is None:
        match = _JAVA_IN_TEXT.match(text)
    if match is None and anywhere:
        match = _JAVA_IN_TEXT.search(text)
    return (match[1], match[2] or "") if match else None
