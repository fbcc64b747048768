"""The lines of a log that belong together: exceptions with what led to them, and which lines continue them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from replayctl.logs.diagnose.limits import MAX_SECTIONS, MAX_STORED_LINE, MAX_STRAY_LINES
from replayctl.logs.diagnose.notation import (
    CAUSED_BY,
    DIRECT,
    DURING,
    EXECUTOR_LOST,
    JAVA_FRAME,
    JAVA_NAME,
    LOST_TASK,
    PYTHON_FRAME,
    PYTHON_LAST,
    TRACEBACK,
)
from replayctl.logs.diagnose.texts import same_form, simple_name
from replayctl.logs.diagnose.thrown import Relation, Thrown

# What became of a line: it belongs to the block; or not, but later lines may; or not, and none can any more.
Outcome = Literal["taken", "passed", "ended"]


@dataclass(slots=True)
class Block:
    """Lines that belong together: exceptions with what led to them.

    A block ends by itself only in what `take` answers; whoever feeds it lets go of it then, or sooner.
    """

    first_line: int
    last_line: int
    level: str  # of the log line that it stands in or follows, "" if none
    prefix: str | None  # of its first line; None when that has none
    muted: bool
    main: bool = False
    after_warning: bool = False
    each_prefixed: bool | None = None
    state: Literal["frames", "done", "java"] = "java"
    pending: str = ""
    stray: int = 0
    sections: list[Thrown] = field(default_factory=list)

    def append(self, thrown: Thrown) -> None:
        """Adds an exception; of too many, those after the first are forgotten first."""
        if len(self.sections) >= MAX_SECTIONS:
            del self.sections[1]
        self.sections.append(thrown)

    def remote(self) -> bool:
        """Whether it is about what a task did, wherever it is told."""
        return any("PythonException" in each.name or "Lost task" in each.message for each in self.sections)

    def groups(self) -> Iterator[list[Thrown]]:
        """The exceptions of the program itself in their order, each with those within its text."""
        group: list[Thrown] = []
        for thrown in self.sections:
            if group and thrown.relation in ("direct", "during") and not thrown.within:
                yield group
                group = []
            group.append(thrown)
        if group:
            yield group

    def add_traceback(self, relation: Relation, within: bool, line: str) -> None:
        """Adds a Python exception whose traceback begins with this line; its name stands at the end."""
        thrown = Thrown("", "", True, relation, within, complete=False)
        if self.pending:
            thrown.add(self.pending)
        thrown.add(line)
        self.append(thrown)
        self.pending = ""
        self.state = "frames"

    def add_java(self, name: str, message: str, relation: Relation, line: str | None) -> None:
        """Adds a Java exception and that of the task which its message tells of; without a line, none is kept of it."""
        thrown = Thrown(name, message, False, relation, relation != "first")
        if line is not None:
            thrown.add(line)
        self.append(thrown)
        self.state = "java"
        task = LOST_TASK.search(message)
        if task is None:
            return
        inner = task[1]
        if lost := EXECUTOR_LOST.match(inner):
            self.append(Thrown("ExecutorLostFailure", lost[1] or "for an unknown reason", False, "nested", True))
        elif named := JAVA_NAME.match(inner.replace(TRACEBACK, "")):
            self.append(Thrown(named[1], named[2] or "", False, "nested", True))
        elif inner:
            name, _, rest = inner.partition("(")
            self.append(Thrown(name.strip(), rest.partition(", shuffleId=")[0], False, "nested", True))
        if line is not None:
            self.sections[-1].add(line)

    def add_headless_traceback(self, frame: str, line: str) -> None:
        """Adds a traceback whose beginning is missing; its first line that there is names this frame."""
        thrown = Thrown("", "", True, "first", False, frame=frame, complete=False)
        thrown.add(line)
        self.append(thrown)
        self.state = "frames"

    def take(self, line: str, prefix: re.Match[str] | None, number: int) -> Outcome:
        """Takes the line with this number if it belongs to the block."""
        if prefix is not None and prefix["level"]:
            same = self.prefix is not None and same_form(self.prefix, line)
            if self.each_prefixed is None:
                self.each_prefixed = same
            if not (same and self.each_prefixed and self.prefix is not None):
                return "ended"
            line = line[len(self.prefix) :]
        elif self.each_prefixed is None:
            self.each_prefixed = False
        outcome = self._takes(line)
        if outcome == "taken":
            self.stray = 0
            if line.strip():
                self.last_line = number
        elif outcome == "passed":
            self.stray += 1
            if self.stray > MAX_STRAY_LINES:
                return "ended"
        return outcome

    def _takes(self, line: str) -> Outcome:
        if TRACEBACK in line:
            return self._takes_traceback(line)
        if not line.strip():
            return "taken"
        if self.state == "frames":
            return self._takes_frame(line)
        if JAVA_FRAME.match(line):
            last = self.sections[-1]
            if not last.python:
                last.add(line)
            self.state = "java"
            return "taken"
        if DIRECT in line or DURING in line:
            self.pending = line
            return "taken"
        if caused := CAUSED_BY.match(line):
            relation: Relation = "suppressed" if caused[1] or caused[2] == "Suppressed" else "caused"
            named = JAVA_NAME.match(caused[3])
            self.add_java(named[1] if named else caused[3], (named[2] or "") if named else "", relation, line)
            return "taken"
        if line.startswith(": ") and self.sections[-1].python and (named := JAVA_NAME.match(line, 2)):
            self.add_java(named[1], named[2] or "", "nested", line)
            return "taken"
        return "taken" if line.startswith("Driver stacktrace:") else "passed"

    def _takes_traceback(self, line: str) -> Outcome:
        last = self.sections[-1]
        if self.state == "frames" and not last.complete:
            return "ended"
        if self.pending:
            relation: Relation = "direct" if DIRECT in self.pending else "during"
            self.add_traceback(relation, last.within and last.python and self.state == "done", line)
            return "taken"
        before = line[: line.index(TRACEBACK)]
        caused = CAUSED_BY.match(before)
        named = JAVA_NAME.match(caused[3] if caused else before.removeprefix(": "))
        if caused or (named and before.startswith(": ")):
            how: Relation = "caused" if caused else "nested"
            if caused and (caused[1] or caused[2] == "Suppressed"):
                how = "suppressed"
            self.add_java(named[1] if named else "", (named[2] or "") if named else "", how, None)
            self.add_traceback("suppressed" if how == "suppressed" else "nested", True, line)
            return "taken"
        if simple_name(last.name) == "PythonException" and not before.strip():
            last.message = ""
            self.add_traceback("nested", True, line)
            return "taken"
        return "ended"

    def _takes_frame(self, line: str) -> Outcome:
        last = self.sections[-1]
        if JAVA_FRAME.match(line) and not PYTHON_FRAME.match(line):
            self.state = "java"
            return "taken"
        # An exception group draws a margin.
        bare = line.lstrip()
        drawn = bare[2:] if bare.startswith("| ") and last.head[0].lstrip()[:1] in ("+", "|") else line
        if drawn[:1] in (" ", "\t", ""):
            last.add(line)
            if frame := PYTHON_FRAME.match(line):
                last.frame = frame[1][:MAX_STORED_LINE]
            return "taken"
        if named := PYTHON_LAST.match(drawn):
            last.named(named[1], named[2] or "")
            last.complete = True
            last.add(line)
            self.state = "done"
            return "taken"
        return "ended"
