"""The process whose lines are read: the owner of the log, or another process that it quotes."""

from __future__ import annotations

from dataclasses import dataclass

from replayctl.logs.diagnose.blocks import Block
from replayctl.logs.diagnose.candidates import About
from replayctl.logs.diagnose.crashes import Crash
from replayctl.logs.diagnose.layout import head
from replayctl.logs.diagnose.notation import CONTAINER, DRIVER


@dataclass(slots=True)
class Voice:
    """A process whose lines are read, and the state of its log so far."""

    container: str
    driver: bool
    block: Block | Crash | None = None
    before: str = ""  # the line before, of those that continued nothing
    log_line: str = ""  # the last one with a time or a level
    log_line_number: int = 0
    carried: tuple[int, str] = (0, "")  # a log line's number, and the level that its carrier gave it
    _named: tuple[int, str] = (0, "")  # a log line's number, and the container that it or a line below it named
    finding_line: int = -1  # the last line that was a finding by itself
    shutdown: bool = False

    def level_before(self) -> str:
        """The level of the last log line, "" when there was none."""
        begins = head(self.log_line)
        carried = self.carried[1] if self.carried[0] == self.log_line_number else ""
        return (begins.level if begins else "") or carried

    def names(self, container: str) -> None:
        """The last log line, or a line below it, is about this container."""
        self._named = self.log_line_number, container

    def named(self) -> str:
        """The container that the last log line is about; "" when it names none."""
        return self._named[1] if self._named[0] == self.log_line_number else ""

    def about(self, text: str = "") -> About:
        """The process that a line is about: the container named by the line or its log line, or else its own."""
        match = CONTAINER.search(text)
        named = match[0] if match else self.named()
        if named:
            return About(named, bool(DRIVER.match(named)))
        return About(self.container, self.driver)
