"""The probable cause of a failed application, from logs as Spark and YARN write them."""

import tracemalloc
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from time import perf_counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replayctl.diagnose import Cause, Diagnosis, explain_exit_code, from_diagnostics

DRIVER = "container_e17_1732400000000_0042_01_000001"
EXECUTOR = "container_e17_1732400000000_0042_01_000003"
OTHER_EXECUTOR = "container_e17_1732400000000_0042_01_000004"


def diagnosed(*files: tuple[str, str, str]) -> list[Cause]:
    diagnosis = Diagnosis()
    for container, file, text in files:
        diagnosis.start_file(container, file)
        for line in text.splitlines():
            diagnosis.feed(line + "\n")
    return diagnosis.causes()


def of_driver(text: str) -> list[Cause]:
    return diagnosed((DRIVER, "stdout", text))


def of_executor(text: str) -> list[Cause]:
    return diagnosed((EXECUTOR, "stderr", text))


PYTHON_FAILURE = """\
fitting ALS on 1200 rows
Traceback (most recent call last):
  File "/data/yarn/container/train.py", line 88, in <module>
    main()
  File "/data/yarn/container/train.py", line 61, in main
    users = log["user_id"]
            ~~~^^^^^^^^^^^
KeyError: 'user_id'
"""

DRIVER_NOISE = """\
26/11/24 02:12:30 INFO SparkContext: Running Spark version 3.5.3
26/11/24 02:12:31 WARN NativeCodeLoader: Unable to load native-hadoop library for your platform
26/11/24 02:12:34 ERROR ApplicationMaster: User application exited with status 1
26/11/24 02:12:34 INFO ApplicationMaster: Final app status: FAILED, exitCode: 1, \
(reason: User application exited with status 1)
26/11/24 02:12:34 ERROR ApplicationMaster: Uncaught exception:
org.apache.spark.SparkException: Exception thrown in awaitResult:
\tat org.apache.spark.util.SparkThreadUtils$.awaitResult(SparkThreadUtils.scala:56)
Caused by: org.apache.spark.SparkUserAppException: User application exited with 1
\tat org.apache.spark.deploy.PythonRunner$.main(PythonRunner.scala:103)
\t... 3 more
26/11/24 02:12:34 INFO SparkContext: Invoking stop() from shutdown hook
26/11/24 02:12:34 ERROR Utils: Uncaught exception in thread shutdown-hook-0
java.util.concurrent.RejectedExecutionException: Task java.util.concurrent.FutureTask@1 rejected from x
\tat java.util.concurrent.ThreadPoolExecutor.reject(ThreadPoolExecutor.java:2065)
26/11/24 02:12:35 ERROR AsyncEventQueue: Listener EventLoggingListener threw an exception
java.io.FileNotFoundException: File does not exist: /logs/application_1732400000000_0042.inprogress
\tat org.apache.hadoop.hdfs.DFSClient.checkOpen(DFSClient.java:480)
"""

UDF_FAILURE = """\
26/11/24 02:12:30 INFO CoarseGrainedExecutorBackend: Got assigned task 3
26/11/24 02:12:34 ERROR Executor: Exception in task 0.3 in stage 2.0 (TID 3)
org.apache.spark.api.python.PythonException: Traceback (most recent call last):
  File "/data/spark/python/lib/pyspark.zip/pyspark/worker.py", line 1247, in main
    process()
  File "features.py", line 14, in <lambda>
    return 1 / row.count
           ~~^~~~~~~~~~~
ZeroDivisionError: division by zero

\tat org.apache.spark.api.python.BasePythonRunner$ReaderIterator.handlePythonException(PythonRunner.scala:572)
\tat org.apache.spark.api.python.PythonRunner$$anon$3.read(PythonRunner.scala:784)
\tat java.base/java.lang.Thread.run(Thread.java:829)
26/11/24 02:12:35 INFO CoarseGrainedExecutorBackend: Driver commanded a shutdown
26/11/24 02:12:35 ERROR CoarseGrainedExecutorBackend: RECEIVED SIGNAL TERM
"""

PY4J_FAILURE = """\
Traceback (most recent call last):
  File "/data/yarn/container/job.py", line 30, in <module>
    frame.write.parquet(target)
  File "/data/spark/python/lib/pyspark.zip/pyspark/errors/exceptions/captured.py", line 179, in deco
    return f(*a, **kw)
  File "/data/spark/python/lib/py4j-0.10.9.7-src.zip/py4j/protocol.py", line 326, in get_return_value
    raise Py4JJavaError(
py4j.protocol.Py4JJavaError: An error occurred while calling o99.parquet.
: org.apache.spark.SparkException: Job aborted due to stage failure: Task 7 in stage 4.0 failed 4 times, \
most recent failure: Lost task 7.3 in stage 4.0 (TID 91) (node5 executor 2): org.apache.spark.SparkException: \
[TASK_WRITE_FAILED] Task failed while writing rows to hdfs://nn/out.
\tat org.apache.spark.sql.errors.QueryExecutionErrors$.taskFailedWhileWritingRowsError(QueryExecutionErrors.scala:788)
\tat java.base/java.lang.Thread.run(Thread.java:829)
Caused by: java.io.IOException: Failed to create local dir
\tat org.apache.spark.storage.DiskBlockManager.getFile(DiskBlockManager.scala:110)
Caused by: java.io.IOException: No space left on device
\tat java.base/java.io.FileOutputStream.writeBytes(Native Method)
\t... 16 more

Driver stacktrace:
\tat org.apache.spark.scheduler.DAGScheduler.failJobAndIndependentStages(DAGScheduler.scala:2856)
\tat scala.collection.mutable.ResizableArray.foreach(ResizableArray.scala:62)
Caused by: org.apache.spark.SparkException: [TASK_WRITE_FAILED] Task failed while writing rows to hdfs://nn/out.
\tat org.apache.spark.sql.errors.QueryExecutionErrors$.taskFailedWhileWritingRowsError(QueryExecutionErrors.scala:788)
Caused by: java.io.IOException: Failed to create local dir
\tat org.apache.spark.storage.DiskBlockManager.getFile(DiskBlockManager.scala:110)
Caused by: java.io.IOException: No space left on device
\tat java.base/java.io.FileOutputStream.writeBytes(Native Method)
\t... 16 more
"""


def test_a_traceback_of_the_driver_wins_over_the_noise_of_java() -> None:
    causes = diagnosed((DRIVER, "stderr", DRIVER_NOISE), (DRIVER, "stdout", PYTHON_FAILURE))
    assert [cause.summary for cause in causes] == ["KeyError: 'user_id'"]
    cause = causes[0]
    assert (cause.container, cause.file, cause.first_line, cause.last_line) == (DRIVER, "stdout", 2, 8)
    assert cause.excerpt == tuple(PYTHON_FAILURE.splitlines()[1:])
    assert cause.explanation == ""


def test_noise_alone_is_no_cause() -> None:
    assert diagnosed((DRIVER, "stderr", DRIVER_NOISE)) == []


@pytest.mark.parametrize(
    "line",
    [
        "java.lang.InterruptedException: sleep interrupted",
        "org.apache.spark.SparkException: Application application_1_2 finished with failed status",
        "org.apache.spark.SparkUserAppException: User application exited with 1",
        "org.apache.spark.SparkException: Job aborted due to stage failure: Task 1 in stage 0.0 failed 4 times",
        "java.io.IOException: Broken pipe",
        "26/11/24 02:12:34 WARN Client: java.net.ConnectException: Connection refused",
        "26/11/24 02:12:34 WARN TaskSetManager: Lost task 0.0 in stage 0.0 (TID 0) (h executor 1): a.b.CException: x",
        "26/11/24 02:12:34 INFO RetryInvocationHandler: java.net.ConnectException: Call From a to b failed",
        "26/11/24 02:12:34 INFO YarnAllocator: Completed container c (state: COMPLETE, exit status: 0)",
        "26/11/24 02:12:34 ERROR TaskSetManager: Task 0 in stage 0.0 failed 4 times; aborting job",
        "0 errors, 3 exceptions were handled. Exit status: unknown",
    ],
)
def test_lines_that_say_nothing(line: str) -> None:
    assert of_driver(line) == []
    assert of_executor(f"{line}\n\tat a.b.C.d(C.java:1)") == []


def test_an_exception_below_a_warning_is_part_of_it() -> None:
    text = "26/11/24 02:12:34 WARN Utils: it failed, trying again\njava.net.BindException: In use\n\tat a.B.c(B.java)"
    assert of_driver(text) == []


def test_a_failure_in_a_udf_is_the_python_one() -> None:
    causes = of_executor(UDF_FAILURE)
    assert [cause.summary for cause in causes] == ["ZeroDivisionError: division by zero"]
    assert causes[0].first_line == 3
    assert causes[0].excerpt[0].endswith("Traceback (most recent call last):")
    assert causes[0].excerpt[-1] == "ZeroDivisionError: division by zero"


def test_equal_causes_of_executors_count_once() -> None:
    causes = diagnosed((EXECUTOR, "stderr", UDF_FAILURE), (OTHER_EXECUTOR, "stderr", UDF_FAILURE))
    assert len(causes) == 1
    assert causes[0].container == EXECUTOR
    assert causes[0].explanation == "Seen in 2 containers."


def test_numbers_do_not_make_causes_different() -> None:
    other = UDF_FAILURE.replace("division by zero", "row 17")
    causes = diagnosed(
        (EXECUTOR, "stderr", UDF_FAILURE.replace("division by zero", "row 4")), (OTHER_EXECUTOR, "stderr", other)
    )
    assert [cause.summary for cause in causes] == ["ZeroDivisionError: row 4"]


def test_the_driver_and_its_executors_say_the_same_once() -> None:
    driver = (
        "Traceback (most recent call last):\n"
        '  File "job.py", line 3, in <module>\n'
        "    frame.collect()\n"
        "pyspark.errors.exceptions.captured.PythonException: \n"
        "  An exception was thrown from the Python worker. Please see the stack trace below.\n"
        "Traceback (most recent call last):\n"
        '  File "features.py", line 14, in <lambda>\n'
        "ZeroDivisionError: division by zero\n"
    )
    causes = diagnosed((EXECUTOR, "stderr", UDF_FAILURE), (DRIVER, "stdout", driver))
    assert [cause.summary for cause in causes] == ["ZeroDivisionError: division by zero"]
    assert causes[0].container == DRIVER
    assert any("job.py" in line for line in causes[0].excerpt)


def test_py4j_gives_way_to_the_deepest_java_cause() -> None:
    causes = of_driver(PY4J_FAILURE)
    assert [cause.summary for cause in causes] == ["java.io.IOException: No space left on device"]
    cause = causes[0]
    assert "disk" in cause.explanation
    assert (cause.first_line, cause.last_line) == (1, len(PY4J_FAILURE.splitlines()))
    assert any("job.py" in line for line in cause.excerpt)
    assert any(line.startswith("Caused by: java.io.IOException: No space") for line in cause.excerpt)
    assert len(cause.excerpt) <= 30


def test_py4j_around_a_failed_udf_names_the_udf() -> None:
    text = (
        "Traceback (most recent call last):\n"
        '  File "job.py", line 3, in <module>\n'
        "py4j.protocol.Py4JJavaError: An error occurred while calling o1.collectToPython.\n"
        ": org.apache.spark.SparkException: Job aborted due to stage failure: Task 0 in stage 0.0 failed 4 times, most "
        "recent failure: Lost task 0.3 in stage 0.0 (TID 3) (h executor 1): "
        "org.apache.spark.api.python.PythonException: Traceback (most recent call last):\n"
        '  File "features.py", line 2, in one\n'
        "KeyError: 'item'\n"
        "\n"
        "The above exception was the direct cause of the following exception:\n"
        "\n"
        "Traceback (most recent call last):\n"
        '  File "features.py", line 5, in two\n'
        "ValueError: bad row\n"
        "\n"
        "\tat org.apache.spark.api.python.BasePythonRunner.x(PythonRunner.scala:1)\n"
        "Driver stacktrace:\n"
        "\tat org.apache.spark.scheduler.DAGScheduler.y(DAGScheduler.scala:1)\n"
    )
    assert [cause.summary for cause in of_driver(text)] == ["ValueError: bad row (caused by KeyError: 'item')"]


def test_py4j_around_a_lost_executor_names_its_memory() -> None:
    text = (
        "Traceback (most recent call last):\n"
        '  File "job.py", line 3, in <module>\n'
        "py4j.protocol.Py4JJavaError: An error occurred while calling o1.count.\n"
        ": org.apache.spark.SparkException: Job aborted due to stage failure: Task 0 in stage 0.0 failed 4 times, most "
        "recent failure: Lost task 0.3 in stage 0.0 (TID 3) (h executor 1): ExecutorLostFailure (executor 1 exited "
        "caused by one of the running tasks) Reason: Container killed by YARN for exceeding physical memory limits. "
        "5.5 GB of 5 GB physical memory used. Consider boosting spark.executor.memoryOverhead.\n"
        "Driver stacktrace:\n"
        "\tat org.apache.spark.scheduler.DAGScheduler.y(DAGScheduler.scala:1)\n"
    )
    warning = (
        "26/11/24 02:12:34 WARN YarnAllocator: Container killed by YARN for exceeding physical memory limits. "
        "5.6 GB of 5 GB physical memory used. Consider boosting spark.executor.memoryOverhead."
    )
    causes = diagnosed((DRIVER, "stderr", warning), (DRIVER, "stdout", text))
    assert [cause.summary for cause in causes] == [
        "executor killed by YARN for exceeding physical memory limits (5.5 GB of 5 GB physical memory used)"
    ]
    assert "spark.executor.memoryOverhead" in causes[0].explanation


@pytest.mark.parametrize(
    ("between", "summary"),
    [
        (
            "The above exception was the direct cause of the following exception:",
            "ValueError: b (caused by KeyError: 'a')",
        ),
        ("During handling of the above exception, another exception occurred:", "ValueError: b"),
    ],
)
def test_chained_tracebacks_show_the_root_first(between: str, summary: str) -> None:
    text = (
        "Traceback (most recent call last):\n"
        '  File "a.py", line 1, in <module>\n'
        "KeyError: 'a'\n\n"
        f"{between}\n\n"
        "Traceback (most recent call last):\n"
        '  File "a.py", line 3, in <module>\n'
        "ValueError: b\n"
    )
    causes = of_driver(text)
    assert [cause.summary for cause in causes] == [summary]
    assert causes[0].excerpt.index("KeyError: 'a'") < causes[0].excerpt.index("ValueError: b")
    assert between in causes[0].excerpt


def test_a_message_of_several_lines_does_not_break_a_chain() -> None:
    text = (
        "Traceback (most recent call last):\n"
        '  File "a.py", line 1, in <module>\n'
        "pyspark.errors.exceptions.captured.AnalysisException: [UNRESOLVED_COLUMN] no such column;\n"
        "'Project ['a]\n"
        "+- Relation [b#1] parquet\n\n"
        "The above exception was the direct cause of the following exception:\n\n"
        "Traceback (most recent call last):\n"
        '  File "a.py", line 3, in <module>\n'
        "RuntimeError: no features\n"
    )
    assert [cause.summary for cause in of_driver(text)] == [
        "RuntimeError: no features (caused by AnalysisException: [UNRESOLVED_COLUMN] no such column;)"
    ]


def test_a_long_traceback_keeps_its_beginning_and_its_end() -> None:
    frames = "".join(f'  File "a.py", line {number}, in f\n    f()\n' for number in range(500))
    causes = of_driver(f"Traceback (most recent call last):\n{frames}RecursionError: too deep\n")
    assert causes[0].excerpt[0] == "Traceback (most recent call last):"
    assert causes[0].excerpt[-1] == "RecursionError: too deep"
    assert len(causes[0].excerpt) == 30
    assert causes[0].last_line == 1002


def test_tracebacks_in_log_lines() -> None:
    first = "26/11/24 02:12:34 ERROR train: Traceback (most recent call last):\n"
    plain = first + '  File "a.py", line 1, in <module>\nKeyError: 1\n26/11/24 02:12:35 INFO train: done\n'
    each = (
        first + '26/11/24 02:12:34 ERROR train:   File "a.py", line 1, in <module>\n'
        "26/11/24 02:12:35 ERROR train: KeyError: 1\n26/11/24 02:12:35 INFO train: done\n"
    )
    for text in (plain, each):
        causes = of_driver(text)
        assert [cause.summary for cause in causes] == ["KeyError: 1"]
        assert (causes[0].first_line, causes[0].last_line) == (1, 3)


def test_the_last_traceback_of_a_driver_is_the_one_that_ended_it() -> None:
    text = PYTHON_FAILURE + "trying again\n" + PYTHON_FAILURE.replace("KeyError: 'user_id'", "ValueError: no users")
    assert [cause.summary for cause in of_driver(text)] == ["ValueError: no users", "KeyError: 'user_id'"]


def test_the_driver_ranks_above_its_executors() -> None:
    causes = diagnosed((EXECUTOR, "stderr", UDF_FAILURE), (DRIVER, "stdout", PYTHON_FAILURE))
    assert [cause.summary for cause in causes] == ["KeyError: 'user_id'", "ZeroDivisionError: division by zero"]
    assert causes[0].rank < causes[1].rank


JAVA_FAILURE = """\
Exception in thread "main" org.apache.spark.sql.execution.QueryExecutionException: Encountered error while reading
\tat org.apache.spark.sql.errors.QueryExecutionErrors$.a(QueryExecutionErrors.scala:731)
\tSuppressed: java.lang.IllegalStateException: closing
\t\tat a.B.c(B.java:1)
Caused by: java.lang.RuntimeException: reading failed
\tat a.B.c(B.java:1)
Caused by: java.io.FileNotFoundException: File does not exist: /data/log/part-0.parquet
\tat org.apache.hadoop.hdfs.DFSClient.open(DFSClient.java:1)
\t... 12 more
"""


def test_the_deepest_cause_in_java() -> None:
    causes = of_driver(JAVA_FAILURE)
    assert [cause.summary for cause in causes] == [
        "java.io.FileNotFoundException: File does not exist: /data/log/part-0.parquet"
    ]
    assert causes[0].last_line == 9
    assert causes[0].excerpt[0].startswith('Exception in thread "main"')


@pytest.mark.parametrize(
    ("line", "part", "explained"),
    [
        ("java.lang.OutOfMemoryError: Java heap space", "Java heap space", "spark.{side}.memory"),
        ("java.lang.OutOfMemoryError: GC overhead limit exceeded", "GC overhead", "spark.{side}.memory"),
        ("java.lang.OutOfMemoryError: unable to create native thread: possibly out of memory", "native", "threads"),
        ("java.lang.OutOfMemoryError: unable to create new native thread", "native", "threads"),
        ("java.lang.StackOverflowError", "StackOverflowError", "-Xss"),
        ("java.net.UnknownHostException: nn-old", "nn-old", "host name"),
        ("java.net.ConnectException: Connection refused", "refused", "host and port"),
        ("java.lang.ClassNotFoundException: org.postgresql.Driver", "postgresql", "--jars"),
        (
            "java.lang.UnsupportedClassVersionError: a/B has been compiled by a more recent version",
            "UnsupportedClassVersionError",
            "newer Java",
        ),
        (
            "org.apache.hadoop.security.AccessControlException: Permission denied: user=eva, access=WRITE",
            "user=eva",
            "owner",
        ),
        (
            "org.apache.spark.sql.AnalysisException: [PATH_NOT_FOUND] Path does not exist: hdfs://nn/none.",
            "hdfs://nn/none",
            "Check the path",
        ),
        ("java.io.IOException: No space left on device", "No space", "disk"),
        ("java.io.FileNotFoundException: /data/x (No such file)", "/data/x", "Check the path"),
    ],
)
def test_java_exceptions_and_what_to_do(line: str, part: str, explained: str) -> None:
    for container, side in ((DRIVER, "driver"), (EXECUTOR, "executor")):
        for text in (
            f"26/11/24 02:12:34 ERROR Utils: Aborting\n{line}\n\tat a.B.c(B.java:1)\n",
            f"26/11/24 02:12:34 ERROR Executor: Exception in task 1: {line}\n\tat a.B.c(B.java:1)\n",
            f"2026-11-24 02:12:34,123 ERROR {line}\n\tat a.B.c(B.java:1)\n",
            f'Exception in thread "dispatcher" {line}\n\tat a.B.c(B.java:1)\n',
        ):
            causes = diagnosed((container, "stderr", text))
            assert len(causes) == 1, text
            assert part in causes[0].summary
            assert explained.format(side=side) in causes[0].explanation


@pytest.mark.parametrize(
    ("last", "explained"),
    [
        ("ModuleNotFoundError: No module named 'replay'", "wheels lack"),
        ("MemoryError", "spark.driver.memoryOverhead"),
        ("FileNotFoundError: [Errno 2] No such file or directory: 'x.json'", "Check the path"),
        ("PermissionError: [Errno 13] Permission denied: '/x'", "read or write"),
        ("OSError: [Errno 28] No space left on device", "disk"),
        ("ConnectionRefusedError: [Errno 111] Connection refused", "host and port"),
        (
            "pyspark.errors.exceptions.captured.AnalysisException: [PATH_NOT_FOUND] Path does not exist: x",
            "Check the path",
        ),
    ],
)
def test_python_exceptions_and_what_to_do(last: str, explained: str) -> None:
    causes = of_driver(PYTHON_FAILURE.replace("KeyError: 'user_id'", last))
    assert [cause.summary for cause in causes] == [last.removeprefix("pyspark.errors.exceptions.captured.")]
    assert explained in causes[0].explanation


def test_main_classes_that_threw() -> None:
    text = (
        "26/11/24 02:12:34 ERROR ApplicationMaster: User class threw exception: \n"
        "org.apache.spark.sql.AnalysisException: [PATH_NOT_FOUND] Path does not exist: hdfs://nn/none.\n"
        "\tat org.apache.spark.sql.errors.QueryCompilationErrors$.x(QueryCompilationErrors.scala:1)\n"
        "26/11/24 02:12:34 INFO ApplicationMaster: Final app status: FAILED, exitCode: 15, (reason: User class threw "
        "exception: org.apache.spark.sql.AnalysisException: [PATH_NOT_FOUND] Path does not exist: hdfs://nn/none.\n"
    )
    assert [cause.summary for cause in of_driver(text)] == [
        "org.apache.spark.sql.AnalysisException: [PATH_NOT_FOUND] Path does not exist: hdfs://nn/none."
    ]


@pytest.mark.parametrize(
    ("line", "summary"),
    [
        (
            "26/11/24 02:12:34 ERROR YarnScheduler: Lost executor 3 on node5: Container killed by YARN for exceeding "
            "virtual memory limits. 11.2 GB of 10.5 GB virtual memory used.",
            "executor killed by YARN for exceeding virtual memory limits (11.2 GB of 10.5 GB virtual memory used)",
        ),
        (
            f"Container [pid=4,containerID={EXECUTOR}] is running beyond physical memory limits. Current usage: "
            "5.1 GB of 5 GB physical memory used; 7 GB of 10.5 GB virtual memory used. Killing container.",
            "executor killed by YARN for exceeding physical memory limits (5.1 GB of 5 GB physical memory used)",
        ),
        (
            f"Container [pid=4,containerID={DRIVER}] is running 10485760B beyond the 'PHYSICAL' memory limit. Current "
            "usage: 1.1 GB of 1 GB physical memory used; 3 GB of 2.1 GB virtual memory used. Killing container.",
            "driver killed by YARN for exceeding physical memory limits (1.1 GB of 1 GB physical memory used)",
        ),
        (
            "26/11/24 02:12:34 WARN YarnAllocator: Container from a bad node: container_1_2_01_000007 on host: n. "
            "Exit status: 137. Diagnostics: [2026-11-24 02:12:33.100]Container killed on request. Exit code is 137",
            "killed, probably for using too much memory (exit code 137)",
        ),
        (
            "26/11/24 02:12:34 INFO YarnAllocator: Completed container c on host: n (state: COMPLETE, "
            "exit status: -104)",
            "killed for using too much memory (exit code -104)",
        ),
        (
            "26/11/24 02:12:34 ERROR YarnScheduler: Lost executor 2 on n: Container exited with exit status: 52",
            "out of memory (exit code 52)",
        ),
        (
            "ExecutorLostFailure (executor 3 exited unrelated to the running tasks) Reason: Container "
            "container_1_2_01_000004 on host: n was preempted.",
            "an executor was lost: Container container_1_2_01_000004 on host: n was preempted.",
        ),
        (
            "ExecutorLostFailure (executor 3 exited caused by one of the running tasks) Reason: Executor heartbeat "
            "timed out after 130000 ms",
            "an executor stopped sending heartbeats",
        ),
        (
            "terminate called after throwing an instance of 'std::bad_alloc'",
            "std::bad_alloc: a native library ran out of memory",
        ),
        ("Killed", "a process was killed (SIGKILL)"),
        ("launch_container.sh: line 35: 4711 Killed   python3 train.py", "a process was killed (SIGKILL)"),
        ("# java.lang.OutOfMemoryError: Java heap space", "java.lang.OutOfMemoryError: Java heap space"),
        (
            "26/11/24 02:12:34 ERROR ApplicationMaster: SparkContext did not initialize after waiting for 100000 ms.",
            "the driver made no SparkContext in time",
        ),
        (
            "/bin/bash: line 1: ./env/bin/python: No such file or directory",
            "./env/bin/python: No such file or directory",
        ),
        ("put: Permission denied: user=eva, access=WRITE", "put: Permission denied: user=eva, access=WRITE"),
    ],
)
def test_single_lines_that_tell_the_cause(line: str, summary: str) -> None:
    causes = of_driver(line)
    assert [cause.summary for cause in causes] == [summary]
    assert causes[0].explanation
    assert (causes[0].first_line, causes[0].last_line) == (1, 1)
    assert causes[0].excerpt[0][:20] in line


def test_a_heap_that_is_full_on_many_executors() -> None:
    text = (
        "26/11/24 02:12:34 ERROR Executor: Exception in task 3.0 in stage 1.0 (TID 9)\n"
        "java.lang.OutOfMemoryError: Java heap space\n"
        "\tat java.base/java.util.Arrays.copyOf(Arrays.java:3537)\n"
        "26/11/24 02:12:34 ERROR SparkUncaughtExceptionHandler: Uncaught exception in thread Thread[x,5,main]\n"
        "java.lang.OutOfMemoryError: Java heap space\n"
        "\tat java.base/java.util.Arrays.copyOf(Arrays.java:3537)\n"
        "26/11/24 02:12:34 ERROR CoarseGrainedExecutorBackend: RECEIVED SIGNAL TERM\n"
    )
    files = [(f"container_1732400000000_0042_01_{number:06}", "stderr", text) for number in range(2, 32)]
    causes = diagnosed(*files)
    assert [cause.summary for cause in causes] == ["java.lang.OutOfMemoryError: Java heap space"]
    assert causes[0].explanation.endswith("Seen in 30 containers.")
    assert causes[0].first_line == 2


def test_a_killed_application_has_a_signal_only() -> None:
    text = (
        "26/11/24 02:12:30 INFO SparkContext: Running Spark version 3.5.3\n"
        "26/11/24 02:12:34 ERROR ApplicationMaster: RECEIVED SIGNAL TERM\n"
        "26/11/24 02:12:34 ERROR Utils: Uncaught exception in thread Driver\n"
        "java.lang.IllegalStateException: stopped\n\tat a.B.c(B.java:1)\n"
    )
    causes = diagnosed((DRIVER, "stderr", text), (EXECUTOR, "stderr", text.replace("ApplicationMaster", "Backend")))
    assert [cause.summary for cause in causes] == ["the driver was stopped from outside (SIGTERM)"]
    assert causes[0].last_line == 2


def test_the_java_side_that_died_is_a_consequence() -> None:
    text = (
        "Traceback (most recent call last):\n"
        '  File "protocol.py", line 1, in x\n'
        "py4j.protocol.Py4JNetworkError: Answer from Java side is empty\n"
    )
    memory = "java.lang.OutOfMemoryError: Java heap space\n\tat a.B.c(B.java:1)\n"
    causes = diagnosed((DRIVER, "stdout", text), (DRIVER, "stderr", memory))
    assert [cause.summary.partition(":")[0] for cause in causes] == ["java.lang.OutOfMemoryError", "Py4JNetworkError"]
    assert "Java half" in causes[1].explanation


def test_what_spark_itself_lost_is_a_consequence() -> None:
    text = (
        "26/11/24 02:12:34 ERROR CoarseGrainedExecutorBackend: Executor self-exiting due to : lost the driver\n"
        "java.io.IOException: Failed to connect to node1/10.0.0.1:4040\n"
        "\tat org.apache.spark.network.client.TransportClientFactory.createClient(TransportClientFactory.java:1)\n"
        "Caused by: io.netty.channel.AbstractChannel$AnnotatedConnectException: Connection refused: node1/10.0.0.1\n"
        "Caused by: java.net.ConnectException: Connection refused\n"
    )
    causes = diagnosed((EXECUTOR, "stderr", text), (DRIVER, "stdout", "Killed"))
    assert [cause.summary for cause in causes] == [
        "a process was killed (SIGKILL)",
        "java.net.ConnectException: Connection refused",
    ]


def test_a_failed_job_that_does_not_say_why() -> None:
    text = PY4J_FAILURE.splitlines()[:8]
    bare = ": org.apache.spark.SparkException: Job aborted due to stage failure: ShuffleMapStage 5 has failed too often"
    (cause,) = of_driver("\n".join([*text, bare, "\tat a.B.c(B.java:1)"]))
    assert cause.summary == bare[2:]
    assert cause.rank == 60


def test_an_exception_of_the_name_node() -> None:
    text = (
        "Traceback (most recent call last):\n"
        '  File "job.py", line 3, in <module>\n'
        "py4j.protocol.Py4JJavaError: An error occurred while calling o1.parquet.\n"
        ": org.apache.hadoop.security.AccessControlException: Permission denied: user=eva, access=WRITE\n"
        "\tat a.B.c(B.java:1)\n"
        "Caused by: org.apache.hadoop.ipc.RemoteException(org.apache.hadoop.security.AccessControlException): "
        "Permission denied: user=eva, access=WRITE\n"
        "\tat a.B.c(B.java:1)\n"
    )
    (cause,) = of_driver(text)
    assert cause.summary.endswith("AccessControlException): Permission denied: user=eva, access=WRITE")
    assert "owner" in cause.explanation


def test_whose_memory_it_was() -> None:
    text = (
        "Traceback (most recent call last):\n"
        '  File "job.py", line 3, in <module>\n'
        "py4j.protocol.Py4JJavaError: An error occurred while calling o1.collectToPython.\n"
        ": org.apache.spark.SparkException: {}java.lang.OutOfMemoryError: Java heap space\n"
        "\tat a.B.c(B.java:1)\n"
        "Caused by: java.lang.OutOfMemoryError: Java heap space\n"
        "\tat a.B.c(B.java:1)\n"
    )
    (own,) = of_driver(text.format(""))
    assert "spark.driver.memory" in own.explanation
    task = "Job aborted due to stage failure: Lost task 0.3 in stage 1.0 (TID 9) (h executor 2): "
    (remote,) = of_driver(text.format(task))
    assert "spark.executor.memory" in remote.explanation
    assert own.summary == remote.summary == "java.lang.OutOfMemoryError: Java heap space"


def test_an_early_end_has_its_exit_code() -> None:
    (cause,) = of_driver(
        "26/11/24 02:12:34 INFO ApplicationMaster: Final app status: FAILED, exitCode: 16, (reason: Shutdown hook "
        "called before final status was reported.)"
    )
    assert cause.summary == "ended with exit code 16"


def test_containers_may_be_named_with_their_node() -> None:
    cause, other = diagnosed(
        (f"{EXECUTOR} on node5", "stderr", PYTHON_FAILURE.replace("user_id", "item_id")),
        (f"{DRIVER} on node1", "stdout", PYTHON_FAILURE),
    )
    assert cause.container == f"{DRIVER} on node1"
    assert other.rank == 30


def test_released_executors_are_no_cause() -> None:
    assert of_driver("26/11/24 02:12:34 INFO YarnAllocator: Completed container c (exit status: 143)") == []
    assert of_driver("26/11/24 02:12:34 WARN YarnAllocator: Container from a bad node. Exit status: 143.") != []


def test_shuffle_data_that_was_lost() -> None:
    text = (
        "26/11/24 02:12:34 ERROR FileFormatWriter: Aborting job 5c5b.\n"
        "org.apache.spark.SparkException: Job aborted due to stage failure: Task 0 in stage 1.0 failed 4 times, most "
        "recent failure: Lost task 0.3 in stage 1.0 (TID 9) (h executor 2): FetchFailed(BlockManagerId(3, h, 7337, "
        "None), shuffleId=0, mapIndex=0, mapId=1, reduceId=0, message=\n"
        "org.apache.spark.shuffle.FetchFailedException: Connection from h/1.1.1.1:7337 closed\n"
        "\tat a.B.c(B.java:1)\n)\nDriver stacktrace:\n\tat a.B.c(B.java:1)\n"
    )
    causes = of_driver(text)
    assert causes[0].summary == "FetchFailed: BlockManagerId(3, h, 7337, None)"
    assert len(causes[0].excerpt) == 1
    assert causes[1].rank == 60


def test_exception_groups() -> None:
    text = (
        "  + Exception Group Traceback (most recent call last):\n"
        '  |   File "a.py", line 1, in <module>\n'
        "  |     raise group\n"
        "  | ExceptionGroup: two (2 sub-exceptions)\n"
        "  +-+---------------- 1 ----------------\n"
        "    | Traceback (most recent call last):\n"
        '    |   File "a.py", line 9, in f\n'
        "    | ValueError: one\n"
        "    +------------------------------------\n"
    )
    assert [cause.summary for cause in of_driver(text)] == [
        "ValueError: one",
        "ExceptionGroup: two (2 sub-exceptions)",
    ]


@pytest.mark.parametrize(
    ("text", "summary"),
    [
        ("Application killed by user.", "the application was killed by a user"),
        ("Max number of executor failures (6) reached", "too many executors failed"),
        ("Shutdown hook called before final status was reported.", "the driver was stopped before its end"),
        (
            "Application application_1_2 is killed by ResourceManager as it has exceeded the lifetime period.",
            "YARN ended the application after its lifetime",
        ),
        (
            "exited with  exitCode: -1000\nFailing this attempt.Diagnostics: File does not exist: hdfs://nn/env.tar.gz\n"
            "java.io.FileNotFoundException: File does not exist: hdfs://nn/env.tar.gz\n\tat a.B.c(B.java:1)",
            "java.io.FileNotFoundException: File does not exist: hdfs://nn/env.tar.gz",
        ),
        (
            "Last 4096 bytes of stderr :\npython3: can't open file 'train.py': [Errno 2] No such file or directory",
            "python3: can't open file 'train.py': [Errno 2] No such file or directory",
        ),
    ],
)
def test_other_words_of_the_resource_manager(text: str, summary: str) -> None:
    cause = from_diagnostics(text)
    assert cause is not None
    assert cause.summary == summary
    assert cause.explanation


def test_what_the_resource_manager_says() -> None:
    killed = from_diagnostics("Application application_1_2 was killed by user eva at 10.0.0.7")
    assert killed is not None
    assert killed.summary == "the application was killed by eva"
    assert killed.file == "diagnostics"
    simple = from_diagnostics("User application exited with status 1")
    assert simple is not None
    assert simple.summary == "the driver ended with exit code 1"
    assert simple.rank > 80
    thrown = from_diagnostics(
        "User class threw exception: org.apache.spark.sql.AnalysisException: Path does not exist: x\n\tat a.B.c(B.java)"
    )
    assert thrown is not None
    assert thrown.summary == "org.apache.spark.sql.AnalysisException: Path does not exist: x"
    queue = from_diagnostics("Application application_1_2 submitted by user eva to unknown queue: none")
    assert queue is not None
    assert "unknown queue: none" in queue.summary


@pytest.mark.parametrize(
    "text", ["", "\n\n", "AM container is launched, waiting for AM container to Register with RM", "\x00"]
)
def test_diagnostics_that_say_nothing(text: str) -> None:
    assert from_diagnostics(text) is None


AM_FAILED = f"""\
Application application_1732400000000_0042 failed 2 times due to AM Container for \
appattempt_1732400000000_0042_000002 exited with  exitCode: 13
Failing this attempt.Diagnostics: [2026-11-24 02:12:36.249]Exception from container-launch.
Container id: {DRIVER}
Exit code: 13

[2026-11-24 02:12:36.250]Container exited with a non-zero exit code 13. Error file: prelaunch.err.
Last 4096 bytes of prelaunch.err :
Last 4096 bytes of stderr :
"""


def test_diagnostics_with_an_exit_code() -> None:
    cause = from_diagnostics(AM_FAILED)
    assert cause is not None
    assert cause.summary == "ended with exit code 13"
    assert "SparkContext" in cause.explanation
    assert cause.first_line == 1


def test_diagnostics_with_the_end_of_a_traceback() -> None:
    cause = from_diagnostics(AM_FAILED + "ain()\n  File \"train.py\", line 3, in main\n    x()\nKeyError: 'a'\n")
    assert cause is not None
    assert cause.summary == "KeyError: 'a'"


def test_diagnostics_of_a_driver_killed_for_memory() -> None:
    cause = from_diagnostics(
        "Application application_1_2 failed 1 times due to AM Container for appattempt_1_2_000001 exited with "
        " exitCode: -104\nFailing this attempt.Diagnostics: [2026-11-24 02:12:33.349]Container "
        f"[pid=1,containerID={DRIVER}] is running 5242880B beyond the 'PHYSICAL' memory limit. "
        "Current usage: 2.0 GB of 2 GB physical memory used; 4 GB of 4.2 GB virtual memory used. Killing container.\n"
        "Dump of the process-tree for it :\n"
    )
    assert cause is not None
    assert cause.summary.startswith("driver killed by YARN for exceeding physical memory limits (2.0 GB of 2 GB")
    assert "spark.driver.memoryOverhead" in cause.explanation


@pytest.mark.parametrize(
    "code",
    [1, 10, 13, 15, 16, 50, 51, 52, 53, 56, 126, 127, 130, 134, 137, 139, 143, 255, *range(-108, -99)],
)
def test_known_exit_codes(code: int) -> None:
    words = explain_exit_code(code)
    assert words
    assert not words.endswith(".")


def test_exit_codes_in_words() -> None:
    assert explain_exit_code(0) is None
    assert explain_exit_code(77) is None
    assert "SIGKILL" in (explain_exit_code(137) or "")
    assert "SIGTERM" in (explain_exit_code(143) or "")
    assert "preempt" in (explain_exit_code(-102) or "")
    assert "physical" in (explain_exit_code(-104) or "")
    assert "virtual" in (explain_exit_code(-103) or "")


def test_empty() -> None:
    assert Diagnosis().causes() == []
    assert diagnosed((DRIVER, "stdout", "")) == []


def test_one_endless_line() -> None:
    diagnosis = Diagnosis()
    started = perf_counter()
    diagnosis.feed("java.lang.OutOfMemoryError: " + "a.B" * 10_000_000)
    for unit in ("a.", "Error ", "Exception: ", "Lost task 1 in stage 1 (TID ", "[2026-11-24 02:12:34 ", "\x1b[", "1 "):
        diagnosis.feed("26/11/24 02:12:34 ERROR " + unit * 1_000_000 + "xception rror")
        diagnosis.feed("xception rror exit " + unit * 1_000_000)
    assert perf_counter() - started < 5
    causes = diagnosis.causes()
    assert causes[0].summary.startswith("java.lang.OutOfMemoryError: a.Ba.B")
    assert len(causes[0].summary) <= 300
    assert all(len(line) <= 500 for line in causes[0].excerpt)


def test_control_characters_and_invalid_text() -> None:
    text = (
        "\r[Stage 3:====>   (1 + 1) / 2]\r\x1b[31mTraceback (most recent call last):\x1b[0m\n"
        '  File "a.py", line 1, in \x07f\n'
        "ValueError: bad \x1b]0;title\x07 \udce9\u202e text\n"
    )
    diagnosis = Diagnosis()
    for line in text.split("\n"):
        diagnosis.feed(line)
    (cause,) = diagnosis.causes()
    for shown in (cause.summary, *cause.excerpt):
        assert shown.isprintable(), shown
        shown.encode()
    assert cause.summary.startswith("ValueError: bad ")


def test_a_traceback_without_its_end() -> None:
    text = 'Traceback (most recent call last):\n  File "a.py", line 7, in <module>\n    main()\n'
    (cause,) = of_driver(text)
    assert cause.summary == 'a Python traceback without its end, last at File "a.py", line 7'
    assert cause.excerpt == tuple(text.splitlines())
    assert cause.last_line == 3


def test_a_container_that_begins_within_a_traceback() -> None:
    diagnosis = Diagnosis()
    diagnosis.start_file(EXECUTOR, "stderr")
    for line in UDF_FAILURE.splitlines()[:5]:
        diagnosis.feed(line)
    diagnosis.start_file(DRIVER, "stdout")
    diagnosis.feed("KeyError: 'not of that traceback'")
    for line in PYTHON_FAILURE.splitlines():
        diagnosis.feed(line)
    causes = diagnosis.causes()
    assert [cause.container for cause in causes] == [DRIVER, EXECUTOR]
    assert causes[0].summary == "KeyError: 'user_id'"
    assert causes[0].first_line == 3
    assert causes[1].summary.startswith("a Python traceback without its end")


def test_asking_twice_and_for_fewer() -> None:
    diagnosis = Diagnosis()
    for line in (PYTHON_FAILURE + PY4J_FAILURE).splitlines():
        diagnosis.feed(line)
    assert diagnosis.causes() == diagnosis.causes()
    assert len(diagnosis.causes()) == 2
    assert len(diagnosis.causes(limit=1)) == 1
    assert diagnosis.causes(limit=0) == []


def stored(thing: Any) -> int:
    """The characters that an object holds on to, itself included."""
    if isinstance(thing, str):
        return len(thing)
    if isinstance(thing, dict):
        return sum(stored(key) + stored(value) for key, value in thing.items())
    if is_dataclass(thing) and not isinstance(thing, type):
        return sum(stored(getattr(thing, each.name)) for each in fields(thing))
    if isinstance(thing, Iterable) and not isinstance(thing, bytes):
        return sum(stored(each) for each in thing)
    return sum(stored(value) for value in vars(thing).values()) if hasattr(thing, "__dict__") else 0


PIECES = st.sampled_from(
    [
        *PYTHON_FAILURE.splitlines(),
        *DRIVER_NOISE.splitlines(),
        *UDF_FAILURE.splitlines(),
        *PY4J_FAILURE.splitlines(),
        *JAVA_FAILURE.splitlines(),
        *AM_FAILED.splitlines(),
        "The above exception was the direct cause of the following exception:",
        "During handling of the above exception, another exception occurred:",
        "Caused by: ",
        ": ",
        "\tCaused by: Traceback (most recent call last):",
        "Killed",
        "",
    ]
)
LINES = st.one_of(PIECES, st.text(max_size=80), st.tuples(PIECES, st.text(max_size=20)).map("".join))


@settings(deadline=None, max_examples=400)
@given(st.lists(st.one_of(LINES, st.tuples(st.text(max_size=10), st.text(max_size=10))), max_size=60))
def test_nothing_that_is_fed_raises(lines: list[str | tuple[str, str]]) -> None:
    diagnosis = Diagnosis()
    for line in lines:
        if isinstance(line, tuple):
            diagnosis.start_file(*line)
        else:
            diagnosis.feed(line)
        assert stored(diagnosis) < 1_500_000
    causes = diagnosis.causes()
    assert len({cause.summary for cause in causes}) == len(causes) <= 5
    assert [cause.rank for cause in causes] == sorted(cause.rank for cause in causes)
    for cause in causes:
        assert cause.summary.isprintable()
        assert len(cause.excerpt) <= 30
        assert 1 <= cause.first_line <= cause.last_line <= len(lines)
    from_diagnostics("\n".join(line for line in lines if isinstance(line, str)))


@settings(deadline=None, max_examples=300)
@given(st.text())
def test_any_diagnostics_are_read(text: str) -> None:
    cause = from_diagnostics(text)
    assert cause is None or cause.summary


def test_memory_stays_flat() -> None:
    def lines() -> Iterable[str]:
        for number in range(2_000):
            for step in range(91):
                yield f"26/11/24 02:12:34 INFO Executor: Running step {step} of task {number} {'without news ' * 20}"
            yield f"26/11/24 02:12:34 ERROR Executor: Exception in task {number}"
            yield f"x.y.Z{chr(97 + number % 26) * (number % 300)}Exception: {'long ' * 300}"
            yield f"\tat a.B.c(B.java:{number})"
            yield f"Caused by: x.y.Other{chr(97 + number % 26) * (number % 200)}Exception: {'m' * 3_000}"
            yield "\tat a.B.c(B.java:1)"
            yield "Traceback (most recent call last):"
            yield f'  File "{"p" * 2_000}.py", line {number}, in f'
            yield f"Some{chr(97 + number % 26) * (number % 100)}Error: {number}"
            yield "The above exception was the direct cause of the following exception:"

    diagnosis = Diagnosis()
    count = 0
    tracemalloc.start()
    try:
        for line in lines():
            if count % 1_000 == 0:
                diagnosis.start_file(f"container_1_2_01_{count:06}", "stderr")
            diagnosis.feed(line)
            count += 1
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 200_000
    assert peak < 16_000_000
    assert stored(diagnosis) < 1_500_000
    assert len(diagnosis.causes()) == 5


def test_a_chain_without_end_stays_small() -> None:
    diagnosis = Diagnosis()
    diagnosis.feed("java.lang.IllegalStateException: first")
    for number in range(50_000):
        diagnosis.feed(f"Caused by: a.b.C{number}Exception: {'m' * 1_000}")
    assert stored(diagnosis) < 1_500_000
    assert diagnosis.causes()[0].summary.startswith("a.b.C49999Exception: mmm")
