"""Exceptions that are not causes: they follow from a cause, or only report that there is one."""

from __future__ import annotations

import re

# These are not specific at all.
NOISE = re.compile(
    r"InterruptedException|InterruptedIOException|SparkUserAppException|RejectedExecutionException|TaskKilledException"
    r"|ClosedChannelException|ClosedByInterruptException|CancellationException|Broken ?pipe|Connection reset by peer"
    r"|Application \S+ finished with failed status|User application exited with|Exception thrown in awaitResult"
    r"|SparkException: (?:\[\w+\] )?(?:Job aborted|Task failed while writing|Writing job aborted)"
    r"|[Ss]topped SparkContext|SparkContext was shut down|SparkContext has been shutdown"
    r"|ExecutorDeadException|RpcEnvStoppedException|RpcEnv already stopped|^SystemExit|^TaskKilled|cancelled as part of"
    r"|^(?:[\w.]+\.)?Py4JJavaError|Shutdown hooks cannot be modified|Cannot call methods on a stopped"
    r"|SparkException: Yarn application has already ended|^(?:[\w.]+\.)?AirflowException: Cannot execute"
    r"|ExitCodeException exitCode=|^org\.apache\.spark\.SparkException: $"
)
# One half of something lost the other half.
CONSEQUENCES = re.compile(
    r"Py4JNetworkError|Py4JError: An error occurred while (?:trying|calling)(?!.*Trace)|Answer from Java side is empty"
    r"|^KeyboardInterrupt|EOFException|^EOFError|Connection from \S+ closed|CalledProcessError"
    r"|Python worker exited unexpectedly \(crashed\)\W*$|AnnotatedConnectException|AbstractChannel\$Annotated"
)
# Executors ended, and their own logs may say why.
FOLLOWS_LOSS = re.compile(
    r"MetadataFetchFailed|Missing an output location for shuffle|^FetchFailed"
    r"|FetchFailedException(?!: (?:Too large|.*2 ?GB))"
    r"|^ExecutorLostFailure(?!.*(?:[Ee]xit|memory limits|heartbeat|preempted))"
)
# These are hardly specific; what they caused may be more so.
WEAK = re.compile(
    r"java\.io\.IOException: error=\d+|[\w.$]*(?:TimeoutException|SocketException|InvocationTargetException"
    r"|UndeclaredThrowableException|CompletionException$|ExecutionException$|ConvertNotSupportedException)"
)
# The driver's Python lost its JVM. The last of these may also be a cause: of two versions that do not fit.
_JVM_LOST = re.compile(
    r"Py4JNetworkError|Answer from Java side|Error while (?:sending or )?receiving"
    r"|Py4JError: An error occurred while (?:trying|calling)(?!.*Trace)"
)
_JVM_WITHOUT = re.compile(r"does not exist in the JVM")
_OF_SOCKETS = re.compile(r"^(?:Connection(?:Refused|Reset|Aborted)?Error|BrokenPipeError|EOFError|OSError)\b")
_OF_PY4J = re.compile(r"py4j|clientserver\.py|java_gateway\.py")


def lost_jvm(text: str, frame: str) -> bool:
    """Whether a Python exception (as `name: message`, raised at this frame) only reports that the JVM is lost."""
    return bool(_JVM_LOST.search(text) or (_OF_SOCKETS.match(text) and _OF_PY4J.search(frame)))


def may_have_lost_jvm(text: str) -> bool:
    """Whether a Python exception may follow from a lost JVM, or from a JVM with other classes than expected."""
    return bool(_JVM_WITHOUT.search(text))


# A warning with one of these was dealt with.
HANDLED = re.compile(
    r"\b[Rr]e-?try|[Tt]rying again|[Tt]ry again|[Aa]ttempting port|[Ff]all(?:ing)? ?back|[Ii]gnor|[Ss]kipp"
    r"|will continue|[Ww]ill (?:use|try)|returning NoSuchObject|Caught exception|[Uu]nable to load native"
    r"|[Uu]sing (?:builtin|default)|[Cc]annot (?:find|locate) .{0,60}; |[Dd]eprecated"
)
