"""One exception of a log, as far as it is kept."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from replayctl.logs.diagnose.known_lines import known_line
from replayctl.logs.diagnose.limits import MAX_EXCERPT, MAX_MESSAGE, MAX_SUMMARY
from replayctl.logs.diagnose.notation import TRACEBACK
from replayctl.logs.diagnose.texts import clean, simple_name

# The relation to the exception before it: none; raised from it or while it was handled (Python); part of its text;
# below "Caused by" or "Suppressed" (Java).
Relation = Literal["first", "direct", "during", "nested", "caused", "suppressed"]

_SHOWN_SHORT = re.compile(r"^(?:__main__|builtins|py4j\.protocol|pyspark\.(?:errors|sql)\.[\w.]+)\.")
_JAVA_LINES = 12


@dataclass(slots=True)
class Thrown:
    """One exception within a block: a traceback, or a Java exception with its first frames."""

    name: str
    message: str
    python: bool
    relation: Relation
    within: bool  # inside the text of another exception
    head: list[str] = field(default_factory=list)
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=MAX_EXCERPT))
    left_out: bool = False
    frame: str = ""
    complete: bool = True
    expected: str = ""  # the name that a notebook wrote in front of the traceback
    from_worker: bool = False  # the message of a Python worker itself
    details: str = ""  # what follows the first line of the message

    def __post_init__(self) -> None:
        self.named(self.name, self.message)

    def named(self, name: str, message: str) -> None:
        """Set the name and the message, both shortened to their limits."""
        self.name = name[:MAX_SUMMARY]
        self.message = message[:MAX_MESSAGE]

    def more(self, line: str) -> None:
        """Takes another line of the message; of an empty one it becomes the first."""
        if not self.message.strip():
            self.message = line.strip()[:MAX_MESSAGE]
        elif len(self.details) < MAX_MESSAGE:
            self.details += f"\n{line[:MAX_MESSAGE]}"

    def of_java(self) -> bool:
        """Whether it is what py4j makes of an exception of the JVM."""
        return self.python and simple_name(self.name) in ("Py4JError", "Py4JJavaError", "Py4JNetworkError")

    def add(self, text: str) -> None:
        """Keep a line: of a traceback the end is the most relevant, of a Java exception the beginning."""
        if len(self.head) < (3 if self.python else _JAVA_LINES):
            self.head.append(clean(text))
        elif self.python:
            self.left_out |= len(self.tail) == self.tail.maxlen
            self.tail.append(clean(text))

    def add_frame(self, line: str) -> None:
        """Keeps a line of a Java stack, if the exception is Java's."""
        if not self.python and len(self.head) < _JAVA_LINES:
            self.head.append(clean(line))

    def lines(self, count: int) -> list[str]:
        """At most this many of its lines."""
        everything = [*self.head, *self.tail]
        if len(everything) <= count and not self.left_out:
            return everything
        if not self.python:
            return everything[:count]
        first = [line for line in self.head if TRACEBACK in line][:1] or self.head[:1]
        return [*first, "  …", *everything[-(count - 2) :]]

    def text(self) -> str:
        """The text for people: `name: message`."""
        if self.name == "ExecutorLostFailure":
            known = known_line(self.message, driver=False)
            if known:
                return known.summary
            return (
                f"an executor was lost: {clean(self.message)}"[:MAX_SUMMARY] if self.message else "an executor was lost"
            )
        if not self.complete:
            return "a Python traceback without its end" + (f", last at {clean(self.frame)}" if self.frame else "")
        name = _SHOWN_SHORT.sub("", self.name) if self.python else self.name
        return clean(": ".join(part for part in (name, self.message.strip()) if part).expandtabs(1))[:MAX_SUMMARY]

    def full(self) -> str:
        """The text that rules are matched with."""
        text = f"{self.name}: {self.message}" if self.message else self.name
        return text + self.details
