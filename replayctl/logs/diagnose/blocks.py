"""The lines of a log that belong together: exceptions, their causes, and the lines that continue them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from replayctl.logs.diagnose.layout import Head
from replayctl.logs.diagnose.limits import (
    MAX_LINES_BETWEEN,
    MAX_NOTEBOOK_LINES,
    MAX_SECTIONS,
    MAX_STORED_LINE,
    MAX_STRAY_LINES,
)
from replayctl.logs.diagnose.notation import (
    CAUSED_BY,
    DIRECT,
    DURING,
    EXECUTOR_LOST,
    FAILED_TASK,
    IN_DRIVER,
    JAVA_FRAME,
    JAVA_NAME,
    LOST_TASK,
    NOTEBOOK,
    PYTHON_FRAME,
    PYTHON_LAST,
    TRACEBACK,
    WORKER_SAYS,
    java_exception,
)
from replayctl.logs.diagnose.texts import same_form, simple_name
from replayctl.logs.diagnose.thrown import Relation, Thrown

# A line belongs to the block; or it does not, but later lines may; or it does not, and the block has ended.
Outcome = Literal["taken", "passed", "ended"]


@dataclass(slots=True)
class Block:
    """Lines that belong together: exceptions and their causes.

    A block reports its end by the result of `take`; the caller then discards it.
    """

    first_line: int
    last_line: int
    level: str  # of the log line that it stands in or follows, "" if none
    form: str | None  # how its first line begins; None when that is no log line
    opening: str = ""  # the log line that it stands in or follows
    muted: bool = False
    main: bool = False
    proven: bool = True  # else it counts only if a stack follows
    after_warning: bool = False
    all_prefixed: bool | None = None
    # In a traceback; after one; after the name of a Java exception; in its stack.
    state: Literal["frames", "done", "message", "stack"] = "message"
    in_worker: bool = False  # in the output of a Python worker before it ended
    pending: str = ""
    stray: int = 0
    between: int = 0  # log lines since the last line that belonged to it
    of_notebook: int = 0  # lines of a notebook's traceback so far
    sections: list[Thrown] = field(default_factory=list)

    def append(self, thrown: Thrown) -> None:
        """Adds an exception; beyond the limit, the oldest but the first is dropped."""
        if len(self.sections) >= MAX_SECTIONS:
            del self.sections[1]
        self.sections.append(thrown)

    def of_task(self) -> bool:
        """Whether its log line reports a failed task."""
        return "Lost task" in self.opening

    def remote(self) -> bool:
        """Whether it reports an error of a task in an executor, whichever log contains it."""
        texts = [self.opening, *(thrown.message for thrown in self.sections)]
        tasks = [text for text in texts if "Lost task" in text]
        if tasks:
            return not any(IN_DRIVER.search(text) for text in tasks)
        return any("PythonException" in thrown.name for thrown in self.sections)

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

    def add_traceback(self, relation: Relation, within: bool, line: str, *, notebook: str = "") -> None:
        """Adds a Python exception whose traceback begins with this line; its name stands at the end.

        A notebook writes that name first.
        """
        thrown = Thrown("", "", True, relation, within, complete=False, expected=notebook)
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
        self.state = "message"
        task = LOST_TASK.search(message)
        if task is not None:
            self._add_reason(task[1], line)

    def _add_reason(self, reason: str, line: str | None) -> None:
        """Adds the reason for a failed task, as reported by the driver."""
        if lost := EXECUTOR_LOST.match(reason):
            inner = Thrown("ExecutorLostFailure", lost[1] or "", False, "nested", True)
        elif named := JAVA_NAME.match(reason.replace(TRACEBACK, "")):
            inner = Thrown(named[1], named[2] or "", False, "nested", True)
        elif reason:
            name, _, rest = reason.partition("(")
            inner = Thrown(name.strip(), rest.partition(", shuffleId=")[0], False, "nested", True)
        else:
            return
        if line is not None:
            inner.add(line)
        self.append(inner)
        self.state = "message"

    def add_headless_traceback(self, frame: str, line: str) -> None:
        """Adds a traceback whose beginning is missing; its first line that there is names this frame."""
        thrown = Thrown("", "", True, "first", False, frame=frame, complete=False)
        thrown.add(line)
        self.append(thrown)
        self.state = "frames"

    def take(self, line: str, head: Head | None, number: int) -> Outcome:
        """Takes the line with this number if it belongs to the block."""
        if self.all_prefixed is not False and self.form and same_form(self.form, line):
            self.all_prefixed = True
            line = line[len(self.form) :]
        elif head is not None and head.level:
            # Another thread, or the other half of a driver, may write in between.
            self.between += 1
            return "ended" if self.state == "message" or self.between > MAX_LINES_BETWEEN else "passed"
        elif self.all_prefixed is None:
            self.all_prefixed = False
        outcome = self._takes(line, fresh=self.last_line == number - 1)
        if outcome == "taken":
            self.stray = self.between = 0
            if line.strip():
                self.last_line = number
        elif outcome == "passed":
            self.stray += 1
            if self.stray > MAX_STRAY_LINES:
                return "ended"
        return outcome

    def _takes(self, line: str, *, fresh: bool) -> Outcome:
        if self.state == "stack" and line.startswith("\tat "):
            # Most lines of a log with many errors are these.
            self.sections[-1].add_frame(line)
            return "taken"
        if self.in_worker:
            if line.startswith("  "):
                return self._takes_of_worker(line[2:])
            if line.strip():
                self.in_worker = False
                self.state = "message"
        if TRACEBACK in line:
            return self._takes_traceback(line)
        if not line.strip():
            return "taken"
        if self.state == "frames":
            return self._takes_frame(line)
        if JAVA_FRAME.match(line):
            self.sections[-1].add_frame(line)
            self.state = "stack"
            self.proven = True
            return "taken"
        if DIRECT in line or DURING in line:
            self.pending = line
            return "taken"
        if (notebook := NOTEBOOK.match(line)) and self.pending:
            relation: Relation = "direct" if DIRECT in self.pending else "during"
            self.add_traceback(relation, False, line, notebook=notebook[1])
            return "taken"
        if caused := CAUSED_BY.match(line):
            suppressed = bool(caused[1] or caused[2] == "Suppressed")
            named = JAVA_NAME.match(caused[3])
            name, message = (named[1], named[2] or "") if named else (caused[3], "")
            self.add_java(name, message, "suppressed" if suppressed else "caused", line)
            self.proven = True
            return "taken"
        if self.state == "done":
            return self._takes_after_traceback(line, fresh=fresh)
        if self.state == "message":
            return self._takes_message(line)
        return "taken" if line.startswith("Driver stacktrace:") else "passed"

    def _takes_after_traceback(self, line: str, *, fresh: bool) -> Outcome:
        """py4j appends the Java exception to the Python exception."""
        last = self.sections[-1]
        if line.startswith(": ") and (named := JAVA_NAME.match(line, 2)):
            self.add_java(named[1], named[2] or "", "nested", line)
            return "taken"
        if fresh and (last.of_java() or line.startswith("JVM stacktrace:")):
            if exception := java_exception(line, anywhere=False):
                self.add_java(*exception, "nested", line)
                return "taken"
            if not last.message.strip() or line.startswith("JVM stacktrace:"):
                last.more(line)
                return "taken"
        last.more(line)
        return "passed"

    def _takes_message(self, line: str) -> Outcome:
        """Further lines of a Java exception's message may contain other exceptions."""
        last = self.sections[-1]
        if line.startswith(WORKER_SAYS):
            self.in_worker = True
            last.add(line)
            return "taken"
        if task := LOST_TASK.match(line):
            self._add_reason(task[1], line)
            return "taken"
        if FAILED_TASK.match(line):
            self._add_reason(line, line)
            return "taken"
        if not line[:1].isspace() and (named := java_exception(line, anywhere=False)):
            self.add_java(*named, "nested", line)
            return "taken"
        empty = not last.message.strip()
        last.more(line)
        return "taken" if empty else "passed"

    def _takes_of_worker(self, line: str) -> Outcome:
        """What the Python worker printed: a traceback, or one line that says why it ended."""
        if TRACEBACK in line:
            self.add_traceback("nested", True, line)
            self.sections[-1].from_worker = True
        elif self.state == "frames":
            return self._takes_frame(line)
        elif self.state == "message" and line.strip():
            program, colon, message = line.strip().partition(": ")
            output = Thrown(
                program if colon else "Python worker", message or program, False, "nested", True, from_worker=True
            )
            output.add(line)
            if self.sections[-1].from_worker and not self.sections[-1].python:
                self.sections.pop()
            self.append(output)
        return "taken"

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
        inside = before.startswith(": ") or (self.state == "message" and not before[:1].isspace())
        if caused or (named and inside):
            how: Relation = "caused" if caused else "nested"
            if caused and (caused[1] or caused[2] == "Suppressed"):
                how = "suppressed"
            self.add_java(named[1] if named else "", (named[2] or "") if named else "", how, None)
            self.add_traceback("suppressed" if how == "suppressed" else "nested", True, line)
            self.proven = True
            return "taken"
        if simple_name(last.name) == "PythonException" and not before.strip():
            last.message = ""
            self.add_traceback("nested", True, line)
            self.proven = True
            return "taken"
        return "ended"

    def _takes_frame(self, line: str) -> Outcome:
        last = self.sections[-1]
        if last.expected:
            return self._takes_of_notebook(line, last)
        if JAVA_FRAME.match(line) and not PYTHON_FRAME.match(line):
            self.state = "stack"
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

    def _takes_of_notebook(self, line: str, last: Thrown) -> Outcome:
        last.add(line)
        named = PYTHON_LAST.match(line)
        if named is not None and simple_name(named[1]) == last.expected:
            last.named(named[1], named[2] or "")
            last.complete = True
            self.state = "done"
            return "taken"
        self.of_notebook += 1
        return "taken" if self.of_notebook < MAX_NOTEBOOK_LINES else "ended"
