"""What exceptions mean: what to do about those that are known, and which are no cause themselves.

Rules are matched with `name: message`, for Java and Python alike.
"""

from __future__ import annotations

import re

_MORE_MEMORY = "Raise spark.{side}.memory, or give it less data at once."
MORE_OVERHEAD = (
    "Python workers and native libraries need memory outside the Java heap: raise spark.{side}.memoryOverhead"
    " or spark.{side}.memory, or give it less data at once."
)

# Those of memory come first; the first that is found counts.
_OF_MEMORY = {
    r"unable to create (?:new )?native thread": (
        "The node or the container may not start more threads; ask for fewer cores or a higher limit of processes."
    ),
    r"OutOfMemoryError.*(?:Direct buffer|Metaspace)": "Not the heap but other memory of the JVM ran out.",
    r"OutOfMemoryError.*GC overhead": "The JVM did little but collect garbage: its heap is too small. " + _MORE_MEMORY,
    r"OutOfMemoryError": "The Java heap is too small. " + _MORE_MEMORY,
    r"^MemoryError|bad_alloc|(?:Cannot|Unable to) allocate memory": MORE_OVERHEAD,
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

# They follow from the cause, or only say that there is one.
NOISE = re.compile(
    r"InterruptedException|InterruptedIOException|SparkUserAppException|RejectedExecutionException|TaskKilledException"
    r"|ClosedChannelException|ClosedByInterruptException|CancellationException|Broken ?pipe|Connection reset by peer"
    r"|Application \S+ finished with failed status|User application exited with|Exception thrown in awaitResult"
    r"|SparkException: (?:\[\w+\] )?(?:Job aborted|Task failed while writing|Writing job aborted)"
    r"|[Ss]topped SparkContext|SparkContext was shut down|SparkContext has been shutdown"
    r"|ExecutorDeadException|RpcEnvStoppedException|RpcEnv already stopped|^SystemExit|^TaskKilled|cancelled as part of"
    r"|^(?:[\w.]+\.)?Py4JJavaError"
)
CONSEQUENCES = re.compile(
    r"Py4JNetworkError|Py4JError: An error occurred while trying|Answer from Java side is empty|^KeyboardInterrupt"
    r"|EOFException|^EOFError|Connection from \S+ closed|Python worker exited unexpectedly"
)
_JAVA_SIDE_DIED = re.compile(r"Py4JNetworkError|Answer from Java side")


def side(driver: bool) -> str:
    """Whose settings are meant by `{side}` in an explanation."""
    return "driver" if driver else "executor"


def meaning(text: str, *, driver: bool) -> tuple[str, bool]:
    """An explanation and whether memory is the cause; an empty one for what is not known."""
    if _JAVA_SIDE_DIED.search(text):
        return "The Java half of the driver died first; look for the reason there, often it is memory.", False
    for pattern, explanation, memory in _MEANINGS:
        if pattern.search(text):
            return explanation.replace("{side}", side(driver)), memory
    return "", False
