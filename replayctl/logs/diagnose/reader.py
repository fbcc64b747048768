"""The reader of logs: it decides with each line whether it continues an exception, begins one or tells something alone.

Each line is looked at once. What it means is known elsewhere; here stands only what depends on the lines before it.
"""

from __future__ import annotations

import re

from replayctl.logs.diagnose import ranks
from replayctl.logs.diagnose.blocks import Block
from replayctl.logs.diagnose.candidates import Candidates, Place
from replayctl.logs.diagnose.cause import Cause, Finding
from replayctl.logs.diagnose.exit_codes import EXIT_CODE, KEYS_OF_RELEASED, KEYS_WITHOUT_NEWS
from replayctl.logs.diagnose.judgement import conclusion
from replayctl.logs.diagnose.known_lines import BAD_LINE, SHUTDOWN, TERMINATED, known_line
from replayctl.logs.diagnose.limits import MAX_LINE, MAX_STORED_LINE, MAX_SUMMARY
from replayctl.logs.diagnose.meanings import NOISE, meaning
from replayctl.logs.diagnose.notation import (
    CONTAINER,
    DATED,
    DRIVER,
    ESCAPE,
    EXECUTOR_LOST,
    LOST_TASK,
    LOUD,
    PREFIX,
    PYTHON_FRAME,
    QUIET,
    TRACEBACK,
    java_exception,
)
from replayctl.logs.diagnose.texts import cause_key, clean
from replayctl.logs.diagnose.thrown import Thrown


def _says_more(name: str, message: str, text: str) -> bool:
    """Whether the exception that a text holds says more than the exit code that the text holds too."""
    if EXIT_CODE.search(text[: len(text) - len(message)]):
        return False
    # Of a lost executor nothing but its exit code is told; other failures of tasks tell more than the job's own.
    if "ExecutorLostFailure" in message:
        return False
    return not NOISE.search(f"{name}: {message}") or bool(LOST_TASK.search(message))


class Diagnosis:
    """Takes the lines of container logs one after another and says at the end what probably went wrong.

    Little is kept of them, whatever comes. A container whose id ends in 1 is the driver's, as in YARN's cluster mode;
    without an id, lines count as the driver's.
    """

    def __init__(self) -> None:
        self._candidates = Candidates()
        self._block: Block | None = None
        self.start_file("", "")

    def start_file(self, container: str, file: str) -> None:
        """The next lines come from the beginning of this file of this container."""
        self._close()
        self._container = container[:MAX_STORED_LINE]
        self._file = file[:MAX_STORED_LINE]
        self._driver = not CONTAINER.match(self._container) or bool(DRIVER.match(self._container))
        self._line = 0
        self._log_line = ""
        self._log_line_number = 0
        self._shutdown = False

    def feed(self, line: str) -> None:
        """Takes the next line, with or without its end."""
        self._line += 1
        if len(line) > MAX_LINE:
            line = line[:MAX_LINE]
        line = line.rstrip("\r\n")
        if "\r" in line:
            # A progress bar draws itself anew on the same line; what stays on the screen is the last text.
            line = line.rstrip().rpartition("\r")[2]
        if "\x1b" in line:
            line = ESCAPE.sub("", line)
        if self._block is not None:
            outcome = self._block.take(line, PREFIX.match(line), self._line)
            if outcome == "taken":
                return
            if outcome == "ended":
                self._close()
        if DATED.match(line):
            self._log_line = line
            self._log_line_number = self._line
        if self._shutdown:
            return
        # Most lines hold none of these, and this is faster than any pattern.
        if (
            "rror" in line
            or "xception" in line
            or "Traceback" in line
            or "illed" in line
            or "ill process" in line
            or "xit" in line
            or "EXIT" in line
            or "beyond" in line
            or "hutdown" in line
            or "SIGNAL" in line
            or "No s" in line
            or 'File "' in line
            or "Lost" in line
            or "denied" in line
            or "heartbeat" in line
            or "bad_alloc" in line
            or "not " in line
        ):
            self._ordinary(line, PREFIX.match(line))

    def _level_before(self) -> str:
        """The level of the last log line, "" when there was none."""
        prefix = PREFIX.match(self._log_line)
        return prefix["level"] or "" if prefix else ""

    def causes(self, *, limit: int = 5) -> list[Cause]:
        """The probable causes so far, the most probable first, each once; empty when nothing tells of a failure.

        An exception whose lines are still coming counts as ended.
        """
        self._close()
        return self._candidates.causes()[: max(limit, 0)]

    def _ordinary(self, line: str, prefix: re.Match[str] | None) -> None:
        """A line that continues nothing."""
        level = prefix["level"] or "" if prefix else ""
        message = line[prefix.end() :] if prefix else line
        quiet = level in QUIET
        if SHUTDOWN.search(message):
            self._close()
            self._shutdown = True
            return
        if TRACEBACK in line:
            self._begin_traceback(line, message, level, prefix)
            return
        if not prefix and (frame := PYTHON_FRAME.match(line)):
            # The beginning is missing, as in the last bytes of a log that YARN quotes.
            self._close()
            self._open(level, None).add_headless_traceback(frame[1], line)
            return
        if not quiet and self._lost_executor(message):
            return
        if terminated := TERMINATED.search(message):
            self._terminated(terminated[1], line)
            return
        # The name of the exception may stand where that of a logger stands.
        text = line[prefix.end("level") :].lstrip(" :") if prefix and level else message
        thrown = java_exception(text, anywhere=level in LOUD)
        known = self._known(message, level)
        if known and (quiet or not thrown or not (known.key.startswith("exit ") and _says_more(*thrown, text))):
            self._close()
            self._add_line(known, line, message)
        elif thrown:
            self._begin_java(*thrown, line, text, level, prefix)
        elif not quiet and BAD_LINE.search(message):
            self._close()
            text = clean(message.expandtabs(1))[:MAX_SUMMARY]
            explanation, _ = meaning(message, driver=self._driver)
            self._add_line(Finding(cause_key(text), text, explanation, ranks.KNOWN), line)

    def _known(self, message: str, level: str) -> Finding | None:
        """What a message says by itself; None also for exit codes that tell nothing, at this level or at all."""
        known = known_line(message, driver=self._driver)
        if known is None or known.key in KEYS_WITHOUT_NEWS or (level == "INFO" and known.key in KEYS_OF_RELEASED):
            return None
        return known

    def _announced(self) -> bool:
        """Whether the line before says that the application's own class threw the exception of this line."""
        return self._log_line_number == self._line - 1 and "User class threw exception:" in self._log_line

    def _lost_executor(self, message: str) -> bool:
        """Whether the line told why an executor was lost, outside of any exception."""
        lost = EXECUTOR_LOST.search(message) if "ExecutorLostFailure" in message and "xception" not in message else None
        if lost is None or not lost[1]:
            return False
        self._close()
        thrown = Thrown("ExecutorLostFailure", lost[1], False, "first", False)
        known = known_line(thrown.message, driver=False) or Finding(
            cause_key(thrown.text()), thrown.text(), "Its own log tells more.", ranks.EXCEPTION
        )
        self._add_line(known, message, message)
        return True

    def _terminated(self, signal: str, line: str) -> None:
        # Executors are stopped like this at each end, also a good one.
        self._close()
        if self._driver:
            advice = "Somebody killed the application, YARN stopped it, or its container used too much memory."
            known = Finding("signal", f"the driver was stopped from outside (SIG{signal})", advice, ranks.STOPPED)
            self._add_line(known, line)
        self._shutdown = True

    def _begin_traceback(self, line: str, message: str, level: str, prefix: re.Match[str] | None) -> None:
        self._close()
        before = line[: line.index(TRACEBACK)]
        block = self._open(level, before if prefix and level else None)
        java = java_exception(message[: message.index(TRACEBACK)], anywhere=True) if TRACEBACK in message else None
        if java:
            block.level = level or self._level_before()
            block.muted = block.level in QUIET
            block.main = "threw exception: " in message
            block.add_java(java[0], java[1], "first", None)
        else:
            block.muted = level in QUIET and level != "INFO"
            follows = not level and self._log_line_number == self._line - 1
            block.after_warning = follows and self._level_before() in ("WARN", "WARNING")
        block.add_traceback("nested" if java else "first", bool(java), line)

    def _begin_java(
        self, name: str, message: str, line: str, text: str, level: str, prefix: re.Match[str] | None
    ) -> None:
        self._close()
        # Without a prefix of its own it belongs to the log line before.
        block = self._open(level or self._level_before(), prefix[0] if prefix and level else None)
        block.main = "threw exception: " in text or text.startswith("Exception in thread") or self._announced()
        block.muted = level in QUIET or (block.level in QUIET and not block.main)
        block.add_java(name, message, "first", line)

    def _open(self, level: str, prefix: str | None) -> Block:
        self._block = Block(self._line, self._line, level, prefix, muted=False)
        return self._block

    def _close(self) -> None:
        """Ends the block, if there is one, and keeps what it says."""
        block, self._block = self._block, None
        if block is None or block.muted:
            return
        concluded = conclusion(block, driver=self._driver)
        if concluded is not None:
            finding, excerpt = concluded
            self._add(finding, block.first_line, block.last_line, excerpt, self._container)

    def _add_line(self, finding: Finding, line: str, about: str = "") -> None:
        """Keeps what this line alone says; the container that `about` names has it, or else the one of the log."""
        named = CONTAINER.search(about)
        self._add(finding, self._line, self._line, (clean(line),), named[0] if named else self._container)

    def _add(self, finding: Finding, first: int, last: int, excerpt: tuple[str, ...], affected: str) -> None:
        place = Place(self._container, self._file, first, last)
        self._candidates.add(finding, place, excerpt, affected=affected, driver=self._driver)
