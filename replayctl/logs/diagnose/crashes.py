"""The report that a JVM prints when it crashes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from replayctl.logs.diagnose import ranks
from replayctl.logs.diagnose.blocks import Outcome
from replayctl.logs.diagnose.cause import Finding
from replayctl.logs.diagnose.layout import Head
from replayctl.logs.diagnose.limits import MAX_CRASH_LINES, MAX_SUMMARY
from replayctl.logs.diagnose.meanings import meaning
from replayctl.logs.diagnose.texts import clean

_BEGINS = re.compile(r"#? ?(?:A fatal error has been detected by the Java|There is insufficient memory for the Java)")
_SIGNAL = re.compile(r"#? *(SIG[A-Z]{2,5}|Internal Error|EXCEPTION_\w+)\b")
_FRAME = re.compile(
    r"#? ?[CJVvj] +(?:\d+ )?(?:C[12] )?(?:\[(?P<library>[^\]+]{1,200})[^\]]{0,100}\])? *(?P<function>[^\s(]*)"
)
_PROBLEMATIC = "Problematic frame:"


def begins_crash(message: str) -> bool:
    """Whether a line begins such a report."""
    return _BEGINS.match(message) is not None


@dataclass(slots=True)
class Crash:
    """The lines of one report."""

    first_line: int
    last_line: int
    signal: str = ""
    where: str = ""
    framed: bool = False
    excerpt: list[str] = field(default_factory=list)

    def take(self, line: str, head: Head | None, number: int) -> Outcome:
        """Takes the line with this number if it belongs to the report."""
        if not line.startswith("#") or len(self.excerpt) >= MAX_CRASH_LINES:
            return "ended"
        self.last_line = number
        self.excerpt.append(clean(line))
        if not self.signal and (signal := _SIGNAL.match(line)):
            self.signal = signal[1]
        elif self.framed and not self.where and (frame := _FRAME.match(line)):
            self.where = frame["library"] or frame["function"]
            if frame["library"] and frame["function"]:
                self.where += f" ({frame['function']})"
        self.framed = self.framed or _PROBLEMATIC in line
        return "taken"

    def conclusion(self, *, driver: bool) -> Finding:
        """The finding of the report."""
        first = self.excerpt[0].lstrip("# ")
        where = f" in {self.where}" if self.where else ""
        summary = f"the JVM crashed: {self.signal}{where}" if self.signal else first
        advice = meaning(first, driver=driver).advice
        return Finding(f"crash {self.signal} {where}", summary[:MAX_SUMMARY], advice, ranks.OUT_OF_MEMORY, fatal=True)
