"""The probable cause of a failed Spark application, from its container logs and from what the ResourceManager says.

Each line is looked at once and little is kept, so that a log of any size fits. Messages and exit codes are those of
Spark 3.5 and Hadoop 3.4.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

_MAX_LINE = 4_000
_MAX_STORED_LINE = 500
_MAX_MESSAGE = 1_000
_MAX_SUMMARY = 300
_MAX_EXCERPT = 30
_MAX_SECTIONS = 20
_MAX_CANDIDATES = 40
_MAX_COUNTED = 1_000
_MAX_STRAY_LINES = 50
_MAX_DIAGNOSTICS = 200_000

_QUIET = frozenset({"TRACE", "DEBUG", "INFO", "WARN", "WARNING"})
_LOUD = frozenset({"ERROR", "FATAL", "CRITICAL"})

_TRACEBACK = "Traceback (most recent call last):"
_DIRECT = "The above exception was the direct cause of"
_DURING = "During handling of the above exception"

# Smaller is more probable.
_TOLD = 5
_DRIVER_TRACEBACK = 10
_DRIVER_AFTER_WARNING = 12
_DRIVER_MAIN = 14
_DRIVER_LOGGED_TRACEBACK = 16
_KILLED_FOR_MEMORY = 22
_OUT_OF_MEMORY = 24
_KNOWN = 27
_EXCEPTION = 30
_EXIT_FOR_MEMORY = 35
_INFORMED_TRACEBACK = 45
_EXIT = 50
_CUT_OFF = 55
_CONSEQUENCE = 60
_STOPPED = 65
_WEAK_EXIT = 70
_EMPTY_WORDS = 85

_Relation = Literal["first", "direct", "during", "nested", "caused", "suppressed"]


@dataclass(frozen=True, slots=True)
class Cause:
    """One probable cause of a failure. `rank` is smaller for the more probable, and comparable between all sources.

    `container`, `file` and the lines say where it stands; they are empty or 0 for what has no place in a log.
    """

    rank: int
    summary: str
    explanation: str
    container: str
    file: str
    first_line: int
    last_line: int
    excerpt: tuple[str, ...]


_EXIT_CODES = {
    1: "the program failed; its own output says why",
    10: "an exception that nothing caught ended the ApplicationMaster",
    11: "too many executors failed (spark.executor.maxNumFailures)",
    12: "the ApplicationMaster lost the ResourceManager, or failed too often at asking it for containers",
    13: "the driver made no SparkContext: it failed before, or took longer than spark.yarn.am.waitTime allows",
    15: "the application's main class threw an exception",
    16: "the driver's JVM was stopped before the application had reported its end: by System.exit or by a signal",
    17: "the ApplicationMaster lost its connection to the driver",
    50: "an exception that nothing caught ended the JVM",
    51: "an exception that nothing caught ended the JVM, and it could not be logged",
    52: "the JVM ran out of memory (OutOfMemoryError)",
    53: "no local folder could be made: the disk is full, or the folder is not writable",
    56: "the executor could not send its heartbeats to the driver",
    126: "the command was found but could not be executed: wrong permissions or a wrong file format",
    127: "the command was not found: a wrong path, or a packed environment that was not unpacked",
    130: "interrupted (SIGINT), as by Ctrl-C",
    134: "aborted (SIGABRT): the JVM or a native library found a fatal fault; look for an hs_err file",
    137: "killed (SIGKILL): usually by the kernel for too much memory, or by YARN when SIGTERM did not stop it in time",
    139: "a native library read or wrote memory that it must not (SIGSEGV)",
    143: "stopped (SIGTERM): usually by YARN, because the application ended or was killed, the container was released"
    " or preempted, or used too much memory; or by the JVM itself after an OutOfMemoryError",
    255: "the program ended with code -1 or was not started properly; its own output says why",
    -100: "the container was released, or its node was lost",
    -101: "too many local disks of the node are full or broken",
    -102: "YARN took the container back for another queue or application (preemption)",
    -103: "YARN killed the container for using too much virtual memory",
    -104: "YARN killed the container for using too much physical memory",
    -105: "the ApplicationMaster stopped the container",
    -106: "the ResourceManager stopped the container",
    -107: "the container was stopped because the application had finished",
    -108: "the node stopped the container to make room for another one",
    -1000: "the container did not start; usually its files could not be fetched",
}
_EXIT_SUMMARIES = {
    52: "out of memory (exit code 52)",
    137: "killed, probably for using too much memory (exit code 137)",
    -103: "killed for using too much virtual memory (exit code -103)",
    -104: "killed for using too much memory (exit code -104)",
}
# These stand in each log of a failure, or of a success, and say nothing of the cause.
_EXIT_WITHOUT_NEWS = frozenset({0, 1, 10, 15, -105, -107})
_KEYS_WITHOUT_NEWS = frozenset(f"exit {code}" for code in _EXIT_WITHOUT_NEWS)
_EXIT_RANKS = {code: _EXIT_FOR_MEMORY for code in _EXIT_SUMMARIES} | {
    code: _WEAK_EXIT for code in (13, 16, 17, 143, 255)
}

_MORE_MEMORY = "Raise spark.{side}.memory, or give it less data at once."
_MORE_OVERHEAD = (
    "Python workers and native libraries need memory outside the Java heap: raise spark.{side}.memoryOverhead"
    " or spark.{side}.memory, or give it less data at once."
)

# Looked for in `name: message`, those of memory first; the first that is found counts.
_OF_MEMORY = {
    r"unable to create (?:new )?native thread": (
        "The node or the container may not start more threads; ask for fewer cores or a higher limit of processes."
    ),
    r"OutOfMemoryError.*(?:Direct buffer|Metaspace)": "Not the heap but other memory of the JVM ran out.",
    r"OutOfMemoryError.*GC overhead": "The JVM did little but collect garbage: its heap is too small. " + _MORE_MEMORY,
    r"OutOfMemoryError": "The Java heap is too small. " + _MORE_MEMORY,
    r"^MemoryError|bad_alloc|(?:Cannot|Unable to) allocate memory": _MORE_OVERHEAD,
}
_OTHERS = {
    r"Path does not exist|PATH_NOT_FOUND|FileNotFound|NoSuchFileException|InvalidInputException": (
        "Check the path, the file system in front of it, and whether the step that writes it has run."
    ),
    r"AccessControlException|Permission denied: user=": (
        "The application's user may not do this; change the owner or the mode of the folder, or write elsewhere."
    ),
    r"PermissionError|Permission denied": "The application's user may not read or write this file or folder.",
    r"ModuleNotFoundError|No module named": (
        "The packed environment or the wheels lack this module; add it there, not on the driver's machine."
    ),
    r"^ImportError": "The packed environment has another version of this library, or lacks a native one.",
    r"UnsupportedClassVersionError": (
        "A jar was compiled for a newer Java than the node has; take a jar for its Java, or set JAVA_HOME."
    ),
    r"ClassNotFoundException|NoClassDefFoundError": (
        "A jar is missing: add it with --jars or --packages, for this version of Spark and Scala."
    ),
    r"NoSuchMethodError|AbstractMethodError": "Two versions of a jar are mixed, or a jar is for another Spark.",
    r"No space left on device|Disk quota exceeded|DSQuotaExceeded|NSQuotaExceeded": (
        "A disk or a quota is full: shuffle files and spills need room; free some, or use more partitions."
    ),
    r"UnknownHostException|Name or service not known|Temporary failure in name resolution": (
        "The node cannot resolve this host name; check its spelling and whether the cluster knows it."
    ),
    r"Connection refused|ConnectionRefusedError|NoRouteToHost": (
        "Nothing listens at this address, or a firewall is between; check host and port as seen from the node."
    ),
    r"StackOverflowError": (
        "The plan or lineage is too deep, as with many iterations of ALS: set a checkpoint folder and interval,"
        " or raise -Xss in spark.{side}.extraJavaOptions."
    ),
    r"Cannot run program": (
        "The Python that the application names is not on the node; check the packed environment and its path."
    ),
    r"Python worker exited unexpectedly": (
        "The Python process of a task crashed or was killed, often for memory or by a native library."
    ),
    r"MetadataFetchFailed|FetchFailed": "Shuffle files were lost, usually with the executor that had them.",
    r"bigger than spark\.driver\.maxResultSize": (
        "Too much is collected on the driver; write it instead, or raise spark.driver.maxResultSize."
    ),
    r"PYTHON_VERSION_MISMATCH|Python in worker has different version": (
        "Driver and executors run different Pythons; set PYSPARK_PYTHON to the packed one for both."
    ),
    r"GSSException|Kerberos|InvalidToken|(?:cannot|can't) be found in cache": (
        "The Kerberos ticket or the token is missing or has expired."
    ),
    r"Connection from \S+ closed": "A node or an executor ended while another read shuffle data from it; look for why.",
    r"can't open file|Could not find or load main class": "Check that the file was sent along (--py-files, --jars).",
    r"Fatal Python error|fatal error has been detected": "A native library failed; its version may not fit the node.",
}
_MEANINGS = tuple(
    (re.compile(pattern), explanation, meanings is _OF_MEMORY)
    for meanings in (_OF_MEMORY, _OTHERS)
    for pattern, explanation in meanings.items()
)

# Looked for in `name: message`. They follow from the cause, or only say that there is one.
_NOISE = re.compile(
    r"InterruptedException|InterruptedIOException|SparkUserAppException|RejectedExecutionException|TaskKilledException"
    r"|ClosedChannelException|ClosedByInterruptException|CancellationException|Broken ?pipe|Connection reset by peer"
    r"|Application \S+ finished with failed status|User application exited with|Exception thrown in awaitResult"
    r"|SparkException: (?:\[\w+\] )?(?:Job aborted|Task failed while writing|Writing job aborted)"
    r"|[Ss]topped SparkContext|SparkContext was shut down|SparkContext has been shutdown"
    r"|ExecutorDeadException|RpcEnvStoppedException|RpcEnv already stopped|^SystemExit|^TaskKilled|cancelled as part of"
    r"|^(?:[\w.]+\.)?Py4JJavaError"
)
_CONSEQUENCES = re.compile(
    r"Py4JNetworkError|Py4JError: An error occurred while trying|Answer from Java side is empty|^KeyboardInterrupt"
    r"|EOFException|^EOFError|Connection from \S+ closed|Python worker exited unexpectedly"
)
_JAVA_SIDE_DIED = re.compile(r"Py4JNetworkError|Answer from Java side")

_PREFIX = re.compile(
    r"\[?(?:\d\d|\d{4})[-/]\d\d[-/]\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?Z?\]?\s*"
    r"(?:(?:[-\w\[\].$]{1,200}[: ]\s?){0,3}?\[?(?P<level>TRACE|DEBUG|INFO|WARN|WARNING|ERROR|FATAL|CRITICAL)\b\]?:?"
    r"\s*(?:- )?(?:\[[^\]]{0,200}\]\s*)?(?:[-\w.$/]{1,200}(?: -|:)\s)?)?"
)
_JAVA_NAME = re.compile(r"((?:[A-Za-z_][\w$]*\.)+[A-Z][\w$]*(?:\([\w.$]{1,200}\))?)(?::\s?(.*)|\s*$)", re.DOTALL)
_JAVA_IN_TEXT = re.compile(
    r"(?<![\w.$/])((?:[a-z_][\w$]*\.)+[A-Z][\w$]*(?:Exception|Error)(?:\([\w.$]{1,200}\))?)(?::\s?(.*)|(?=[\s,;)\]]|$))",
    re.DOTALL,
)
_JAVA_START = re.compile(
    r'(?:# |Terminating due to |Exception in thread "[^"]{0,200}" |: |.{0,200}?threw exception: )?'
)
_JAVA_FRAME = re.compile(r"\s+(?:at [\w$.<>/@-]+\(|\.\.\. \d+ (?:more|common frames))")
_CAUSED_BY = re.compile(r"(\s*)(Caused by|Suppressed): (.*)", re.DOTALL)
_LOST_TASK = re.compile(r"Lost task \S+ in stage \S+ \(TID \d+[^)]*\)(?: \([^)]*\))?: (.*)", re.DOTALL)
_EXECUTOR_LOST = re.compile(r"ExecutorLostFailure \(.{0,200}?\)(?: Reason: (.*))?$", re.DOTALL)
_PYTHON_FRAME = re.compile(r'\s+(File "[^"]*", line \d+)(?:, in .*)?$')
_PYTHON_LAST = re.compile(r"([A-Za-z_][\w.]*)(?::(?: (.*))?)?$", re.DOTALL)
_SHOWN_SHORT = re.compile(r"^(?:__main__|builtins|py4j\.protocol|pyspark\.(?:errors|sql)\.[\w.]+)\.")

_SIZES = r"([\d.]+ ?[KMGT]?B of [\d.]+ ?[KMGT]?B {kind} memory used)"
_KILLED_BY_YARN = re.compile(r"killed by YARN for exceeding (?:(physical|virtual) )?memory limits")
_BEYOND = re.compile(r"is running (?:-?\d+B )?beyond (?:the )?'?(physical|virtual)'? memory limit", re.IGNORECASE)
_USED = {kind: re.compile(_SIZES.format(kind=kind)) for kind in ("physical", "virtual")}
_BAD_ALLOC = re.compile(r"^(?:terminate called|.*throwing an instance of|.*what\(\)).{0,100}bad_alloc")
_KILLED = re.compile(r"^\s*Killed\s*$|: line \d+:\s*\d+ Killed\b|out of memory: Kill(?:ed)? process", re.IGNORECASE)
_EXIT_CODE = re.compile(r"\b(?:exit ?(?:status|code)(?: is)?)[:=]?\s+(-?\d{1,5})\b", re.IGNORECASE)
_HEARTBEAT = re.compile(r"Executor heartbeat timed out after")
_NOT_STARTED = re.compile(r": line \d+: (\S{1,200}): (command not found|No such file or directory|Permission denied)")
_NOT_INITIALISED = re.compile(r"SparkContext did not initialize after waiting")
_TERMINATED = re.compile(r"RECEIVED SIGNAL (TERM|INT|HUP)")
_SHUTDOWN = re.compile(
    r"Invoking stop\(\) from shutdown hook|Driver commanded a shutdown|Shutdown hook called(?! before)"
)
_CONTAINER = re.compile(r"container_(?:e\d{1,10}_)?\d{1,20}_\d{1,10}_\d{1,6}_\d{1,10}")
_DRIVER = re.compile(r"container_(?:e\d+_)?\d+_\d+_\d+_0*1(?!\d)")
_BAD_LINE = re.compile(
    r"No space left on device|Permission denied: user=\S|Path does not exist:|Could not find or load main"
    r"|Fatal Python error:|A fatal error has been detected by the Java|can't open file '"
)
_KILLED_BY_USER = re.compile(
    r"(?:application|job)\b[^\n]{0,200}?\bkilled by user\b(?:[ :]+(\w[\w.@-]{0,100}))?", re.IGNORECASE
)
_LIFETIME = re.compile(r"exceed\w* (?:the|its) lifetime", re.IGNORECASE)
_REFUSED = re.compile(
    r"[^\n]{0,200}(?:unknown queue|cannot submit applications to queue|to a non-leaf queue|is STOPPED\. Cannot accept"
    r"|Invalid resource request)[^\n]{0,200}"
)
_EXECUTOR_FAILURES = re.compile(r"Max number of executor failures \(\d+\) reached")
_EARLY = re.compile(r"Shutdown hook called before final status was reported")
_USER_EXIT = re.compile(r"User application exited with (?:status )?(\d{1,3})\b")
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_NUMBER = re.compile(r"\d+")
_LONG_HEX = re.compile(r"\b[0-9a-f]{8,}\b|\b[0-9a-f]{8}-[0-9a-f-]{27}\b")


def explain_exit_code(code: int) -> str | None:
    """What an exit code of a Spark or YARN container means, in plain words; None for an unknown one."""
    return _EXIT_CODES.get(code)


class _Known(NamedTuple):
    """What one line says by itself."""

    key: str
    summary: str
    explanation: str
    rank: int


def _clean(text: str) -> str:
    """The text without what could confuse a terminal or could not be written as UTF-8."""
    text = text[:_MAX_STORED_LINE].rstrip()
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each == "\t" else "\N{REPLACEMENT CHARACTER}" for each in text)


def _simple(name: str) -> str:
    return name.rpartition(".")[2]


def _side(driver: bool) -> str:
    return "driver" if driver else "executor"


def _meaning(text: str, *, driver: bool) -> tuple[str, bool]:
    """An explanation and whether memory is the cause; an empty one for what is not known."""
    if _JAVA_SIDE_DIED.search(text):
        return "The Java half of the driver died first; look for the reason there, often it is memory.", False
    for pattern, explanation, memory in _MEANINGS:
        if pattern.search(text):
            return explanation.replace("{side}", _side(driver)), memory
    return "", False


def _exit(code: int) -> _Known | None:
    words = explain_exit_code(code)
    if words is None:
        return None
    summary = _EXIT_SUMMARIES.get(code, f"ended with exit code {code}")
    return _Known(f"exit {code}", summary, f"Exit code {code}: {words}.", _EXIT_RANKS.get(code, _EXIT))


def _known(text: str, *, driver: bool) -> _Known | None:
    """What a line says that has no exception: kills, limits, exit codes; None for all others."""
    yarn = _KILLED_BY_YARN.search(text)
    beyond = None if yarn else _BEYOND.search(text)
    if limits := yarn or beyond:
        kind = (limits[1] or "physical").lower()
        about = _CONTAINER.search(text)
        side = _side(bool(_DRIVER.match(about[0])) if about else driver and not yarn)
        used = _USED[kind].search(text)
        advice = _MORE_OVERHEAD.replace("{side}", side)
        if kind == "virtual":
            advice += " Or let the cluster's owner switch yarn.nodemanager.vmem-check-enabled off."
        summary = f"{side} killed by YARN for exceeding {kind} memory limits" + (f" ({used[1]})" if used else "")
        return _Known(f"{side} {kind}", summary, advice, _KILLED_FOR_MEMORY)
    if _HEARTBEAT.search(text):
        advice = "The executor was busy collecting garbage, swapping or dead; it usually needs more memory."
        return _Known("heartbeat", "an executor stopped sending heartbeats", advice, _EXIT_FOR_MEMORY)
    if _BAD_ALLOC.search(text):
        advice = _MORE_OVERHEAD.replace("{side}", _side(driver))
        return _Known("bad_alloc", "std::bad_alloc: a native library ran out of memory", advice, _OUT_OF_MEMORY)
    if _KILLED.search(text):
        advice = "Usually the kernel does this for memory. " + _MORE_OVERHEAD.replace("{side}", _side(driver))
        return _Known("Killed", "a process was killed (SIGKILL)", advice, _EXIT_FOR_MEMORY)
    if not_started := _NOT_STARTED.search(text):
        advice = "The container's command could not be started; check the packed environment and its path."
        return _Known(not_started[0], f"{not_started[1]}: {not_started[2]}", advice, _EXCEPTION)
    if _NOT_INITIALISED.search(text):
        advice = "Look for earlier errors, or make the SparkContext sooner than spark.yarn.am.waitTime allows."
        return _Known("not initialised", "the driver made no SparkContext in time", advice, _EXIT)
    code = _EXIT_CODE.search(text)
    return _exit(int(code[1])) if code else None


@dataclass(slots=True)
class _Thrown:
    """One exception within a block: a traceback, or a Java exception with its first frames."""

    name: str
    message: str
    python: bool
    relation: _Relation
    within: bool  # inside the text of another exception
    head: list[str] = field(default_factory=list)
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=_MAX_EXCERPT))
    left_out: bool = False
    frame: str = ""
    complete: bool = True

    def __post_init__(self) -> None:
        self.named(self.name, self.message)

    def named(self, name: str, message: str) -> None:
        """Takes its name and message, or what is worth keeping of them."""
        self.name = name[:_MAX_SUMMARY]
        self.message = message[:_MAX_MESSAGE]

    def add(self, text: str) -> None:
        """Keeps a line: a traceback tells most at its end, a Java exception at its beginning."""
        if len(self.head) < (3 if self.python else 12):
            self.head.append(_clean(text))
        elif self.python:
            self.left_out |= len(self.tail) == self.tail.maxlen
            self.tail.append(_clean(text))

    def lines(self, count: int) -> list[str]:
        """At most this many of its lines."""
        everything = [*self.head, *self.tail]
        if len(everything) <= count and not self.left_out:
            return everything
        if not self.python:
            return everything[:count]
        first = [line for line in self.head if _TRACEBACK in line][:1] or self.head[:1]
        return [*first, "  …", *everything[-(count - 2) :]]

    def text(self) -> str:
        """What people read: `name: message`."""
        if self.name == "ExecutorLostFailure":
            known = _known(self.message, driver=False)
            return known.summary if known else f"an executor was lost: {_clean(self.message)}"
        if not self.complete:
            return "a Python traceback without its end" + (f", last at {_clean(self.frame)}" if self.frame else "")
        name = _SHOWN_SHORT.sub("", self.name) if self.python else self.name
        return _clean(": ".join(part for part in (name, self.message.strip()) if part).expandtabs(1))[:_MAX_SUMMARY]

    def full(self) -> str:
        """What rules are matched with."""
        return f"{self.name}: {self.message}" if self.message else self.name


@dataclass(slots=True)
class _Block:
    """Lines that belong together: exceptions with what led to them."""

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
    sections: list[_Thrown] = field(default_factory=list)

    def append(self, thrown: _Thrown) -> None:
        """Adds an exception; of too many, those after the first are forgotten first."""
        if len(self.sections) >= _MAX_SECTIONS:
            del self.sections[1]
        self.sections.append(thrown)

    def remote(self) -> bool:
        """Whether it is about what a task did, wherever it is told."""
        return any("PythonException" in each.name or "Lost task" in each.message for each in self.sections)

    def groups(self) -> Iterator[list[_Thrown]]:
        """The exceptions of the program itself in their order, each with those within its text."""
        group: list[_Thrown] = []
        for thrown in self.sections:
            if group and thrown.relation in ("direct", "during") and not thrown.within:
                yield group
                group = []
            group.append(thrown)
        if group:
            yield group


@dataclass(slots=True)
class _Candidate:
    known: _Known
    order: int
    container: str
    file: str
    first_line: int
    last_line: int
    excerpt: tuple[str, ...]
    containers: set[int] = field(default_factory=set)

    def cause(self) -> Cause:
        """What the caller gets."""
        explanation = self.known.explanation
        if (count := len(self.containers)) > 1:
            many = f"{count} or more" if count >= _MAX_COUNTED else f"{count}"
            explanation = f"{explanation} Seen in {many} containers.".lstrip()
        return Cause(
            rank=self.known.rank,
            summary=self.known.summary,
            explanation=explanation,
            container=self.container,
            file=self.file,
            first_line=self.first_line,
            last_line=self.last_line,
            excerpt=self.excerpt,
        )


def _is_noise(thrown: _Thrown) -> bool:
    if thrown.relation == "suppressed":
        return True
    if not thrown.complete:
        return False
    # The worker's own exception stands in the text of this one.
    wrapper = _simple(thrown.name) == "PythonException" and not thrown.message.strip()
    return wrapper or not thrown.name or bool(_NOISE.search(thrown.full()))


def _deepest(group: list[_Thrown]) -> int | None:
    """Where the deepest exception stands that tells anything."""
    for index in range(len(group) - 1, -1, -1):
        if not _is_noise(group[index]):
            return index
    return None


def _described(group: list[_Thrown], index: int) -> str:
    """The exception, and what it was raised from when both are within the text of another one."""
    first = index
    while first > 0 and group[first].relation == "direct" and group[first].within:
        first -= 1
    text = group[index].text()
    return text if first == index else f"{text} (caused by {group[first].text()})"


def _key(summary: str) -> str:
    """The same for equal causes: without packages and numbers, which differ between executors, Java and Python."""
    name, colon, message = summary.partition(":")
    return _NUMBER.sub("#", _LONG_HEX.sub("#", _simple(name) + colon + message))


class Diagnosis:
    """Takes the lines of container logs one after another and says at the end what probably went wrong.

    Little is kept of them, whatever comes. A container whose id ends in 1 is the driver's, as in YARN's cluster mode;
    without an id, lines count as the driver's.
    """

    def __init__(self) -> None:
        self._candidates: dict[str, _Candidate] = {}
        self._order = 0
        self._block: _Block | None = None
        self.start_file("", "")

    def start_file(self, container: str, file: str) -> None:
        """The next lines come from the beginning of this file of this container."""
        self._close()
        self._container = container[:_MAX_STORED_LINE]
        self._file = file[:_MAX_STORED_LINE]
        self._driver = not _CONTAINER.match(self._container) or bool(_DRIVER.match(self._container))
        self._line = 0
        self._log_line = ""
        self._log_line_number = 0
        self._shutdown = False

    def feed(self, line: str) -> None:
        """Takes the next line, with or without its end."""
        self._line += 1
        if len(line) > _MAX_LINE:
            line = line[:_MAX_LINE]
        line = line.rstrip("\r\n")
        if "\r" in line:
            # A progress bar draws itself anew on the same line; what stays on the screen is the last text.
            line = line.rstrip().rpartition("\r")[2]
        if "\x1b" in line:
            line = _ESCAPE.sub("", line)
        if self._block is not None and self._continues(self._block, line, _PREFIX.match(line)):
            return
        if line[2:3] == "/" or line[4:5] == "-" or line[5:6] == "-":
            self._log_line = line
            self._log_line_number = self._line
        if self._shutdown:
            return
        if (
            "rror" in line
            or "xception" in line
            or "Traceback" in line
            or "illed" in line
            or "xit" in line
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
            self._ordinary(line, _PREFIX.match(line))

    def _level_before(self) -> str:
        """The level of the last log line, "" when there was none."""
        prefix = _PREFIX.match(self._log_line)
        return prefix["level"] or "" if prefix else ""

    def causes(self, *, limit: int = 5) -> list[Cause]:
        """The probable causes so far, the most probable first, each once; empty when nothing tells of a failure.

        An exception whose lines are still coming counts as ended.
        """
        self._close()
        found: dict[str, Cause] = {}
        for candidate in sorted(self._candidates.values(), key=_probability):
            cause = candidate.cause()
            found.setdefault(cause.summary, cause)
        return list(found.values())[: max(limit, 0)]

    def _ordinary(self, line: str, prefix: re.Match[str] | None) -> None:
        """A line that continues nothing."""
        level = prefix["level"] or "" if prefix else ""
        message = line[prefix.end() :] if prefix else line
        quiet = level in _QUIET
        if _SHUTDOWN.search(message):
            self._close()
            self._shutdown = True
            return
        if _TRACEBACK in line:
            self._begin_traceback(line, message, level, prefix)
            return
        if not prefix and (frame := _PYTHON_FRAME.match(line)):
            # The beginning is missing, as in the last bytes of a log that YARN quotes.
            self._close()
            block = self._open(level, None)
            block.append(_Thrown("", "", True, "first", False, frame=frame[1], complete=False))
            block.sections[-1].add(line)
            block.state = "frames"
            return
        if not quiet and self._lost_executor(message):
            return
        if terminated := _TERMINATED.search(message):
            self._terminated(terminated[1], line)
            return
        known = _known(message, driver=self._driver)
        # Released executors end with 143 in each log.
        if known and known.key not in _KEYS_WITHOUT_NEWS and not (known.key == "exit 143" and level == "INFO"):
            self._close()
            self._add(known, self._line, self._line, (_clean(line),), _CONTAINER.search(message))
            return
        # The name of the exception may stand where that of a logger stands.
        text = line[prefix.end("level") :].lstrip(" :") if prefix and level else message
        thrown = self._java(text, anywhere=level in _LOUD)
        if thrown:
            self._close()
            # Without a prefix of its own it belongs to the log line before.
            block = self._open(level or self._level_before(), prefix[0] if prefix and level else None)
            block.main = "threw exception: " in text or text.startswith("Exception in thread") or self._announced()
            block.muted = quiet or (block.level in _QUIET and not block.main)
            self._add_java(block, thrown[0], thrown[1], "first", line)
        elif not quiet and not known and _BAD_LINE.search(message):
            self._close()
            text = _clean(message.expandtabs(1))[:_MAX_SUMMARY]
            explanation, _ = _meaning(message, driver=self._driver)
            self._add(_Known(_key(text), text, explanation, _KNOWN), self._line, self._line, (_clean(line),))

    def _announced(self) -> bool:
        """Whether the line before says that the application's own class threw the exception of this line."""
        return self._log_line_number == self._line - 1 and "User class threw exception:" in self._log_line

    def _lost_executor(self, message: str) -> bool:
        """Whether the line told why an executor was lost, outside of any exception."""
        lost = (
            _EXECUTOR_LOST.search(message) if "ExecutorLostFailure" in message and "xception" not in message else None
        )
        if lost is None or not lost[1]:
            return False
        self._close()
        thrown = _Thrown("ExecutorLostFailure", lost[1], False, "first", False)
        known = _known(thrown.message, driver=False) or _Known(
            _key(thrown.text()), thrown.text(), "Its own log tells more.", _EXCEPTION
        )
        self._add(known, self._line, self._line, (_clean(message),), _CONTAINER.search(message))
        return True

    def _terminated(self, signal: str, line: str) -> None:
        # Executors are stopped like this at each end, also a good one.
        self._close()
        if self._driver:
            advice = "Somebody killed the application, YARN stopped it, or its container used too much memory."
            known = _Known("signal", f"the driver was stopped from outside (SIG{signal})", advice, _STOPPED)
            self._add(known, self._line, self._line, (_clean(line),))
        self._shutdown = True

    def _begin_traceback(self, line: str, message: str, level: str, prefix: re.Match[str] | None) -> None:
        self._close()
        before = line[: line.index(_TRACEBACK)]
        block = self._open(level, before if prefix and level else None)
        java = self._java(message[: message.index(_TRACEBACK)], anywhere=True) if _TRACEBACK in message else None
        if java:
            block.level = level or self._level_before()
            block.muted = block.level in _QUIET
            block.main = "threw exception: " in message
            self._add_java(block, java[0], java[1], "first", None)
        else:
            block.muted = level in _QUIET and level != "INFO"
            follows = not level and self._log_line_number == self._line - 1
            block.after_warning = follows and self._level_before() in ("WARN", "WARNING")
        self._add_traceback(block, "nested" if java else "first", bool(java), line)

    def _open(self, level: str, prefix: str | None) -> _Block:
        self._block = _Block(self._line, self._line, level, prefix, muted=False)
        return self._block

    def _java(self, text: str, *, anywhere: bool) -> tuple[str, str] | None:
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

    def _add_traceback(self, block: _Block, relation: _Relation, within: bool, line: str) -> None:
        thrown = _Thrown("", "", True, relation, within, complete=False)
        if block.pending:
            thrown.add(block.pending)
        thrown.add(line)
        block.append(thrown)
        block.pending = ""
        block.state = "frames"

    def _add_java(self, block: _Block, name: str, message: str, relation: _Relation, line: str | None) -> None:
        thrown = _Thrown(name, message, False, relation, relation != "first")
        if line is not None:
            thrown.add(line)
        block.append(thrown)
        block.state = "java"
        task = _LOST_TASK.search(message)
        if task is None:
            return
        inner = task[1]
        if lost := _EXECUTOR_LOST.match(inner):
            block.append(_Thrown("ExecutorLostFailure", lost[1] or "for an unknown reason", False, "nested", True))
        elif named := _JAVA_NAME.match(inner.replace(_TRACEBACK, "")):
            block.append(_Thrown(named[1], named[2] or "", False, "nested", True))
        elif inner:
            name, _, rest = inner.partition("(")
            block.append(_Thrown(name.strip(), rest.partition(", shuffleId=")[0], False, "nested", True))
        if line is not None:
            block.sections[-1].add(line)

    def _continues(self, block: _Block, line: str, prefix: re.Match[str] | None) -> bool:
        """Whether the line belongs to the block, which takes it then; closes the block when it cannot go on."""
        if prefix is not None and prefix["level"]:
            same = block.prefix is not None and _same_form(block.prefix, line)
            if block.each_prefixed is None:
                block.each_prefixed = same
            if not (same and block.each_prefixed and block.prefix is not None):
                self._close()
                return False
            line = line[len(block.prefix) :]
        elif block.each_prefixed is None:
            block.each_prefixed = False
        taken = self._takes(block, line)
        if taken:
            block.stray = 0
            if line.strip():
                block.last_line = self._line
        elif self._block is block:
            block.stray += 1
            if block.stray > _MAX_STRAY_LINES:
                self._close()
        return taken

    def _takes(self, block: _Block, line: str) -> bool:
        if _TRACEBACK in line:
            return self._takes_traceback(block, line)
        if not line.strip():
            return True
        if block.state == "frames":
            return self._takes_frame(block, line)
        if _JAVA_FRAME.match(line):
            last = block.sections[-1]
            if not last.python:
                last.add(line)
            block.state = "java"
            return True
        if _DIRECT in line or _DURING in line:
            block.pending = line
            return True
        if caused := _CAUSED_BY.match(line):
            relation: _Relation = "suppressed" if caused[1] or caused[2] == "Suppressed" else "caused"
            named = _JAVA_NAME.match(caused[3])
            self._add_java(block, named[1] if named else caused[3], (named[2] or "") if named else "", relation, line)
            return True
        if line.startswith(": ") and block.sections[-1].python and (named := _JAVA_NAME.match(line, 2)):
            self._add_java(block, named[1], named[2] or "", "nested", line)
            return True
        return line.startswith("Driver stacktrace:")

    def _takes_traceback(self, block: _Block, line: str) -> bool:
        last = block.sections[-1]
        if block.state == "frames" and not last.complete:
            self._close()
            return False
        if block.pending:
            relation: _Relation = "direct" if _DIRECT in block.pending else "during"
            self._add_traceback(block, relation, last.within and last.python and block.state == "done", line)
            return True
        before = line[: line.index(_TRACEBACK)]
        caused = _CAUSED_BY.match(before)
        named = _JAVA_NAME.match(caused[3] if caused else before.removeprefix(": "))
        if caused or (named and before.startswith(": ")):
            how: _Relation = "caused" if caused else "nested"
            if caused and (caused[1] or caused[2] == "Suppressed"):
                how = "suppressed"
            self._add_java(block, named[1] if named else "", (named[2] or "") if named else "", how, None)
            self._add_traceback(block, "suppressed" if how == "suppressed" else "nested", True, line)
            return True
        if _simple(last.name) == "PythonException" and not before.strip():
            last.message = ""
            self._add_traceback(block, "nested", True, line)
            return True
        self._close()
        return False

    def _takes_frame(self, block: _Block, line: str) -> bool:
        last = block.sections[-1]
        if _JAVA_FRAME.match(line) and not _PYTHON_FRAME.match(line):
            block.state = "java"
            return True
        # An exception group draws a margin.
        bare = line.lstrip()
        drawn = bare[2:] if bare.startswith("| ") and last.head[0].lstrip()[:1] in ("+", "|") else line
        if drawn[:1] in (" ", "\t", ""):
            last.add(line)
            if frame := _PYTHON_FRAME.match(line):
                last.frame = frame[1][:_MAX_STORED_LINE]
            return True
        if named := _PYTHON_LAST.match(drawn):
            last.named(named[1], named[2] or "")
            last.complete = True
            last.add(line)
            block.state = "done"
            return True
        self._close()
        return False

    def _close(self) -> None:
        """Ends the block, if there is one, and keeps what it says."""
        block, self._block = self._block, None
        if block is None or block.muted:
            return
        groups = [(group, index) for group in block.groups() if (index := _deepest(group)) is not None]
        weak = not groups
        if not groups:
            if not (self._driver and block.sections[0].python and block.sections[-1].name):
                return
            groups = [(block.sections, len(block.sections) - 1)]
        last, index = groups[-1]
        effective = last[index]
        summary = _described(last, index)
        first = len(groups) - 1
        while first > 0 and groups[first][0][0].relation == "direct":
            first -= 1
        if first < len(groups) - 1:
            summary = f"{summary} (caused by {_described(*groups[first])})"[: 2 * _MAX_SUMMARY]
        key, explanation, rank = self._judged(block, effective, summary)
        if not explanation:
            for group, at in reversed(groups[:-1]):
                explanation, _ = _meaning(group[at].full(), driver=self._driver and not block.remote())
                if explanation:
                    break
        # The root of all comes first, then where the program raised the last one, then what that was about.
        shown = [groups[0][0][groups[0][1]], last[0], effective]
        shown = [thrown for thrown in block.sections if any(thrown is each for each in shown)]
        shown = [thrown for thrown in shown if thrown.head] or [effective]
        excerpt: list[str] = []
        for thrown in shown:
            lines = thrown.lines(_MAX_EXCERPT // len(shown))
            excerpt += lines[1:] if excerpt and excerpt[0] == lines[0] else lines
        known = _Known(key, summary, explanation, max(rank, _CONSEQUENCE) if weak else rank)
        self._add(known, block.first_line, block.last_line, tuple(excerpt[:_MAX_EXCERPT]))

    def _judged(self, block: _Block, effective: _Thrown, summary: str) -> tuple[str, str, int]:
        """Key, explanation and rank of what a block ended with."""
        python_first = block.sections[0].python
        explanation, memory = _meaning(effective.full(), driver=self._driver and not block.remote())
        key = _key(summary)
        if effective.name == "ExecutorLostFailure":
            known = _known(effective.message, driver=False)
            if known:
                key, explanation, memory = known.key, known.explanation, True
        if not effective.complete:
            return key, "The log ends before the exception is named.", _CUT_OFF
        if _CONSEQUENCES.search(effective.full()):
            return key, explanation, _CONSEQUENCE
        if any("AnnotatedConnectException" in thrown.name for thrown in block.sections):
            return key, "One half of the application lost the other; look for why that one ended.", _CONSEQUENCE
        if python_first and block.level == "INFO":
            return key, explanation, _INFORMED_TRACEBACK
        if self._driver and python_first:
            if block.level:
                return key, explanation, _DRIVER_LOGGED_TRACEBACK
            return key, explanation, _DRIVER_AFTER_WARNING if block.after_warning else _DRIVER_TRACEBACK
        if self._driver and block.main:
            return key, explanation, _DRIVER_MAIN
        if memory:
            return key, explanation, _OUT_OF_MEMORY
        return key, explanation, _KNOWN if explanation else _EXCEPTION

    def _add(
        self,
        known: _Known,
        first_line: int,
        last_line: int,
        excerpt: tuple[str, ...],
        about: re.Match[str] | None = None,
    ) -> None:
        """Keeps a cause, once for all containers that have it."""
        self._order += 1
        # A driver raises its last exception when it ends; elsewhere the first error is the cause of others.
        order = -self._order if self._driver and known.rank < _KILLED_FOR_MEMORY else self._order
        candidate = _Candidate(known, order, self._container, self._file, first_line, last_line, excerpt)
        former = self._candidates.get(known.key)
        affected = hash(about[0] if about else self._container)
        if former is None:
            self._candidates[known.key] = candidate
        else:
            candidate.containers = former.containers
            if known.rank < former.known.rank:
                self._candidates[known.key] = candidate
            elif known.rank == former.known.rank:
                former.order = min(former.order, order)
        containers = candidate.containers
        if len(containers) < _MAX_COUNTED:
            containers.add(affected)
        if len(self._candidates) > _MAX_CANDIDATES:
            worst = max(self._candidates, key=lambda each: _probability(self._candidates[each]))
            del self._candidates[worst]


def _probability(candidate: _Candidate) -> tuple[int, int]:
    return candidate.known.rank, candidate.order


def _same_form(prefix: str, line: str) -> bool:
    """Whether a line begins with this log prefix, at another time."""
    return _NUMBER.sub("0", prefix) == _NUMBER.sub("0", line[: len(prefix)])


def from_diagnostics(text: str) -> Cause | None:
    """What the diagnostics of an application on YARN say of its end; None when they say nothing that is known.

    Its file is "diagnostics", its lines are those of the text.
    """
    text = text[:_MAX_DIAGNOSTICS]
    diagnosis = Diagnosis()
    diagnosis.start_file("", "diagnostics")
    for line in text.splitlines():
        diagnosis.feed(line.removeprefix("Diagnostics: "))
    found = diagnosis.causes()
    for known, match in _verdicts(text):
        number = text.count("\n", 0, match.end()) + 1
        found.append(
            Cause(
                rank=known.rank,
                summary=known.summary,
                explanation=known.explanation,
                container="",
                file="diagnostics",
                first_line=number,
                last_line=number,
                excerpt=(_clean(match[0].strip()),),
            )
        )
    return min(found, key=lambda cause: cause.rank, default=None)


def _verdicts(text: str) -> Iterator[tuple[_Known, re.Match[str]]]:
    """What only the ResourceManager says, and what counts only when nobody says more."""
    if killed := _KILLED_BY_USER.search(text):
        summary = f"the application was killed by {killed[1] or 'a user'}"
        yield _Known("killed", summary, "Nothing needs to be wrong with it.", _TOLD), killed
    if lifetime := _LIFETIME.search(text):
        advice = "Raise the application's timeout or the queue's maximum lifetime, or make it faster."
        yield _Known("lifetime", "YARN ended the application after its lifetime", advice, _TOLD), lifetime
    if refused := _REFUSED.search(text):
        advice = "YARN did not take the application: check its queue, and its memory and cores against the limits."
        yield _Known("refused", _clean(refused[0].strip())[:_MAX_SUMMARY], advice, _DRIVER_MAIN), refused
    if ended := _USER_EXIT.search(text):
        advice = "The output of the driver says why."
        yield _Known("user exit", f"the driver ended with exit code {ended[1]}", advice, _EMPTY_WORDS), ended
    if executors := _EXECUTOR_FAILURES.search(text):
        advice = "Their own logs say why; spark.executor.maxNumFailures sets how many may fail."
        yield _Known("executors", "too many executors failed", advice, _CONSEQUENCE), executors
    if early := _EARLY.search(text):
        advice = "Its JVM was stopped by a signal or by System.exit before the application had ended."
        yield _Known("early", "the driver was stopped before its end", advice, _STOPPED), early
    for match in _EXIT_CODE.finditer(text):
        known = _exit(int(match[1]))
        if known and match[1] != "0":
            rank = _EMPTY_WORDS - 1 if int(match[1]) in _EXIT_WITHOUT_NEWS else known.rank
            yield known._replace(rank=rank), match
