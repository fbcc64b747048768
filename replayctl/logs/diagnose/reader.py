"""Reads logs line by line: a line continues an exception, begins one, or is a message by itself.

Each line is read once. Other modules know what a line means; this one keeps track of the lines before it.
"""

from __future__ import annotations

from replayctl.logs.diagnose import ranks
from replayctl.logs.diagnose.blocks import Block
from replayctl.logs.diagnose.candidates import About, Candidate, Candidates, Place
from replayctl.logs.diagnose.cause import Cause, Finding
from replayctl.logs.diagnose.crashes import Crash, begins_crash
from replayctl.logs.diagnose.echoes import HANDLED, NOISE
from replayctl.logs.diagnose.exit_codes import EXIT_CODE, KEYS_OF_RELEASED, KEYS_WITHOUT_NEWS
from replayctl.logs.diagnose.judgement import conclusion
from replayctl.logs.diagnose.known_lines import (
    BAD_LINE,
    NEW_CONTEXT,
    SHUTDOWN,
    TERMINATED,
    known_line,
    may_tell,
)
from replayctl.logs.diagnose.layout import FIRST, LOUD, QUIET, Head, begins_log_line, head, uncarried
from replayctl.logs.diagnose.limits import MAX_EXCERPT, MAX_LINE, MAX_STORED_LINE, MAX_SUMMARY
from replayctl.logs.diagnose.meanings import meaning
from replayctl.logs.diagnose.notation import (
    CAUSED_BY,
    CONTAINER,
    DRIVER,
    ESCAPE,
    EXECUTOR_LOST,
    JAVA_FRAME,
    JAVA_NAME,
    LOST_TASK,
    NOTEBOOK,
    PYTHON_FRAME,
    THREAD_DIED,
    TRACEBACK,
    java_exception,
)
from replayctl.logs.diagnose.quotes import Quotation, quoted_bytes
from replayctl.logs.diagnose.texts import cause_key, clean
from replayctl.logs.diagnose.thrown import Thrown
from replayctl.logs.diagnose.voices import Voice


def _says_more(name: str, message: str, text: str) -> bool:
    """Whether the exception that a text holds says more than the exit code that the text holds too."""
    if EXIT_CODE.search(text[: len(text) - len(message)]):
        return False
    # A lost executor has only its exit code; other failures of tasks are more specific than the job's own.
    if "ExecutorLostFailure" in message:
        return False
    return not NOISE.search(f"{name}: {message}") or bool(LOST_TASK.search(message))


class Diagnosis:
    """Takes the lines of container logs one after another and finds the probable causes of a failure.

    Memory use is bounded. A container whose ID ends in 1 is the driver's, as in YARN's cluster mode;
    without an ID, lines count as the driver's.
    """

    def __init__(self) -> None:
        self._candidates = Candidates()
        self._voice = Voice("", driver=True)
        self._own = self._voice
        self._quotation: Quotation | None = None
        self.start_file("", "")

    def start_file(self, container: str, file: str) -> None:
        """The next lines come from the beginning of this file of this container."""
        self._end_quotation()
        self._close()
        self._container = container[:MAX_STORED_LINE]
        self._file = file[:MAX_STORED_LINE]
        driver = not CONTAINER.match(self._container) or bool(DRIVER.match(self._container))
        self._voice = self._own = Voice(self._container, driver=driver)
        self._line = 0

    def feed(self, line: str) -> None:
        """Takes the next line, with or without its end."""
        self._line += 1
        size = len(line)
        if size > MAX_LINE:
            line = line[:MAX_LINE]
        line = line.rstrip("\r\n")
        if "\r" in line:
            # A progress bar redraws its line; only the last state is relevant.
            line = line.rstrip().rpartition("\r")[2]
        if "\x1b" in line:
            line = ESCAPE.sub("", line)
        carried = ""
        first = line[:1]
        if first == "[" or line[10:11] == "T" or line[6:7] == " " or (line[8:9] == " " and line[2:3] == ":"):
            line, carried = uncarried(line)
            first = line[:1]
        if self._quotation is not None and self._quotation.ends(line, size):
            self._end_quotation()
        voice = self._voice
        if voice.block is not None:
            outcome = voice.block.take(line, head(line) if first in FIRST else None, self._line)
            if outcome == "taken":
                return
            if outcome == "ended":
                self._close()
        if carried or (first in FIRST and begins_log_line(line, first)):
            voice.log_line = line
            voice.log_line_number = self._line
            if carried:
                voice.carried = self._line, carried
        if voice.shutdown:
            # Logs of several applications may follow each other, as in a task's of Airflow.
            voice.shutdown = NEW_CONTEXT not in line
            # A JVM that is killed for its memory says so when its shutdown has begun.
            if "OutOfMemoryError" not in line:
                return
        # Most lines hold none of these, and this is faster than any pattern.
        if (
            "rror" in line
            or "xception" in line
            or "Traceback" in line
            or "xit" in line
            or "illed" in line
            or "hutdown" in line
            or "beyond" in line
            or "bytes of" in line
            or (" INFO " not in line and may_tell(line))
        ):
            self._ordinary(line, head(line))
        voice.before = line

    def causes(self, *, limit: int = 5) -> list[Cause]:
        """The probable causes so far, most probable first, without repetitions; empty if there is no sign of a failure.

        An exception whose lines are still coming counts as ended.
        """
        self._end_quotation()
        self._close()
        return self._candidates.causes()[: max(limit, 0)]

    def include(self, candidate: Candidate) -> None:
        """Rank a finding from another source together with those of the logs."""
        self._candidates.include(candidate)

    def best(self) -> Candidate | None:
        """The most probable cause so far, with the process that it is about."""
        self._end_quotation()
        self._close()
        return self._candidates.best()

    def add(self, finding: Finding, line: int, excerpt: str) -> None:
        """Add a finding of another reader in this line of the file."""
        self._add(finding, line, line, (clean(excerpt),), self._own.about())

    def _begin_quotation(self, size: int) -> None:
        """The next lines are those of the container that was named last, or else of another than this one."""
        own = self._own
        self._end_quotation()
        about = own.about()
        if not own.named() and own.container:
            about = About(f"{own.container}, quoted", driver=False)
        self._voice = Voice(about.container, about.driver)
        self._quotation = Quotation(size, own.log_line)

    def _end_quotation(self) -> None:
        if self._quotation is not None:
            self._close()
            self._voice, self._quotation = self._own, None

    def _ordinary(self, line: str, begins: Head | None) -> None:
        """A line that continues nothing."""
        voice = self._voice
        if "bytes of" in line and (quoted := quoted_bytes(line)) is not None:
            self._begin_quotation(quoted)
            return
        level = (begins.level if begins else "") or (voice.carried[1] if voice.carried[0] == self._line else "")
        message = line[begins.end :] if begins else line
        quiet = level in QUIET
        if SHUTDOWN.search(message):
            self._close()
            voice.shutdown = True
            return
        if "container_" in message and (named := CONTAINER.search(message)):
            voice.names(named[0])
        if TRACEBACK in line or NOTEBOOK.match(message):
            self._begin_traceback(line, message, level, begins)
            return
        if not begins and (frame := PYTHON_FRAME.match(line)):
            # The beginning is missing, as in the last bytes of a log that YARN quotes.
            self._close()
            self._open(level, None).add_headless_traceback(frame[1], line)
            return
        if JAVA_FRAME.match(message) or CAUSED_BY.match(message):
            self._begin_below(line, message, level)
            return
        if not quiet and self._lost_executor(message):
            return
        if terminated := TERMINATED.search(message):
            self._terminated(terminated[1], line)
            return
        if begins_crash(message):
            self._close()
            voice.block = crash = Crash(self._line, self._line)
            crash.take("#" + message.lstrip("#"), None, self._line)
            return
        self._exception_or_known(line, message, level, begins)

    def _exception_or_known(self, line: str, message: str, level: str, begins: Head | None) -> None:
        quiet = level in QUIET
        # The name of the exception may stand where that of a logger stands.
        text = line[begins.after_level :].lstrip(" :") if begins and begins.level else message
        anywhere = level in LOUD or "Lost task" in message or "User class threw" in message
        thrown = java_exception(text, anywhere=anywhere)
        known = self._known(message, level)
        if known and (quiet or not thrown or not (known.key.startswith("exit ") and _says_more(*thrown, text))):
            self._add_line(known, line, message)
        elif thrown:
            self._begin_java(*thrown, line, text, level, begins)
        elif not quiet and BAD_LINE.search(message):
            summary = clean(message.expandtabs(1))[:MAX_SUMMARY]
            known_as = meaning(message, driver=self._voice.driver)
            setting = known_as.setting and self._voice.driver
            rank = ranks.DRIVER_SETTING if setting else ranks.KNOWN
            self._add_line(Finding(cause_key(summary), summary, known_as.advice, rank), line)

    def _known(self, message: str, level: str) -> Finding | None:
        """What a message says by itself; None also for exit codes that tell nothing, at this level or at all."""
        known = known_line(message, driver=self._voice.about().driver)
        if known is None or known.key in KEYS_WITHOUT_NEWS or (level == "INFO" and known.key in KEYS_OF_RELEASED):
            return None
        return known

    def _announced(self) -> bool:
        """Whether the line before says that the application's own class threw the exception of this line."""
        voice = self._voice
        return voice.log_line_number == self._line - 1 and "User class threw exception:" in voice.log_line

    def _lost_executor(self, message: str) -> bool:
        """Whether the line says why an executor was lost, outside of an exception."""
        lost = EXECUTOR_LOST.search(message) if "ExecutorLostFailure" in message and "xception" not in message else None
        if lost is None or not lost[1]:
            return False
        thrown = Thrown("ExecutorLostFailure", lost[1], False, "first", False)
        known = known_line(thrown.message, driver=False) or Finding(
            cause_key(thrown.text()), thrown.text(), "See the log of the executor.", ranks.EXCEPTION
        )
        self._add_line(known, message, message)
        return True

    def _terminated(self, signal: str, line: str) -> None:
        # Executors are stopped like this at each end, also a good one.
        self._close()
        if self._voice.driver:
            advice = "A user killed the application, YARN stopped it, or its container used too much memory."
            summary = f"the driver was stopped from outside (SIG{signal})"
            self._add_line(Finding("signal", summary, advice, ranks.STOPPED, fatal=True), line)
        self._voice.shutdown = True

    def _begin_traceback(self, line: str, message: str, level: str, begins: Head | None) -> None:
        self._close()
        voice = self._voice
        notebook = NOTEBOOK.match(message)
        prefix = message.partition(TRACEBACK)[0] if notebook is None else ""
        java = java_exception(prefix, anywhere=True)
        # Each line may begin like this one.
        form = line[: line.index(TRACEBACK)] if notebook is None and java is None else begins.form if begins else ""
        block = self._open(level, form or None)
        if java:
            block.level = level or voice.level_before()
            block.main = "threw exception: " in message
            block.muted = block.level in QUIET and bool(HANDLED.search(block.opening))
            block.add_java(java[0], java[1], "first", None)
        else:
            block.muted = level in QUIET and level != "INFO" and bool(HANDLED.search(block.opening))
            follows = not level and voice.log_line_number == self._line - 1
            block.after_warning = follows and voice.level_before() in ("WARN", "WARNING")
        block.add_traceback("nested" if java else "first", bool(java), line, notebook=notebook[1] if notebook else "")

    def _begin_java(self, name: str, message: str, line: str, text: str, level: str, begins: Head | None) -> None:
        self._close()
        # Without a beginning of its own it belongs to the log line before.
        block = self._open(level or self._voice.level_before(), begins.form if begins and level else None)
        block.main = "threw exception: " in text or text.startswith("Exception in thread") or self._announced()
        quiet = block.level in QUIET and not block.main
        block.muted = quiet and bool(HANDLED.search(block.opening))
        # The name alone in a line is proof enough.
        block.proven = not quiet or begins is None
        block.add_java(name, message, "first", line)

    def _begin_below(self, line: str, message: str, level: str) -> None:
        """A stack proves that the line above it is an exception, whatever its notation."""
        voice = self._voice
        self._close()
        if voice.finding_line == self._line - 1:
            return
        above = head(voice.before)
        text = voice.before[above.end :] if above else voice.before
        named = java_exception(text, anywhere=True)
        if named is None and (match := JAVA_NAME.match(text) or THREAD_DIED.match(text)):
            named = match[1], match[2] or ""
        caused = CAUSED_BY.match(message)
        if named is None and caused is None:
            return
        block = self._open(level or voice.level_before(), None)
        block.muted = block.level in QUIET and bool(HANDLED.search(block.opening))
        block.all_prefixed = False
        if named is not None:
            block.main = text.startswith("Exception in thread")
            block.first_line -= 1
            block.add_java(*named, "first", voice.before)
        block.take(message, None, self._line) if block.sections else block.add_java("", "", "first", None)
        if named is None:
            block.take(message, None, self._line)

    def _open(self, level: str, form: str | None) -> Block:
        voice = self._voice
        block = Block(self._line, self._line, level, form, opening=voice.log_line[:MAX_STORED_LINE])
        voice.block = block
        return block

    def _close(self) -> None:
        """Ends the block of the process that is read, if there is one, and keeps what it says."""
        voice = self._voice
        block, voice.block = voice.block, None
        if isinstance(block, Crash):
            finding = block.conclusion(driver=voice.driver)
            self._add(finding, block.first_line, block.last_line, tuple(block.excerpt[:MAX_EXCERPT]), voice.about())
            return
        if block is None or block.muted:
            return
        concluded = conclusion(block, driver=voice.driver)
        if concluded is not None:
            finding, excerpt = concluded
            about = About(voice.container, driver=voice.driver and not block.remote())
            self._add(finding, block.first_line, block.last_line, excerpt, about)

    def _add_line(self, finding: Finding, line: str, about: str = "") -> None:
        """Add the finding of a single line, for the container that the line names or else that of the log."""
        self._voice.finding_line = self._line
        self._add(finding, self._line, self._line, (clean(line),), self._voice.about(about))

    def _add(self, finding: Finding, first: int, last: int, excerpt: tuple[str, ...], about: About) -> None:
        place = Place(self._container, self._file, first, last)
        self._candidates.add(finding, place, excerpt, about, by_driver=self._voice.driver)
