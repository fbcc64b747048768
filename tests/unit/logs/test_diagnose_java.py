"""Exceptions of the JVM, as Spark logs them."""

import pytest

from tests.diagnose_logs import DRIVER, DRIVER_NOISE, EXECUTOR, JAVA_FAILURE, PY4J_FAILURE, diagnosed, of_driver

LOST_EXECUTOR = (
    "org.apache.spark.SparkException: Job aborted due to stage failure: Task 0 in stage 1.0 failed 4 times, most "
    "recent failure: Lost task 0.3 in stage 1.0 (TID 9) (h executor 2): ExecutorLostFailure (executor 2 exited caused "
    "by one of the running tasks) Reason: {}\nDriver stacktrace:\n\tat a.B.c(B.java:1)\n"
)


def test_noise_alone_is_not_a_cause() -> None:
    assert diagnosed((DRIVER, "stderr", DRIVER_NOISE)) == []


def test_an_exception_below_a_warning_is_part_of_it() -> None:
    text = "26/11/24 02:12:34 WARN Utils: it failed, trying again\njava.net.BindException: In use\n\tat a.B.c(B.java)"
    assert of_driver(text) == []


@pytest.mark.parametrize(
    "time",
    [
        form.format(date)
        for date in ("26/11/24", "2026/11/24", "26-11-24", "2026-11-24")
        for form in ("{} 02:12:34", "[{} 02:12:34]", "{}T02:12:34,123")
    ],
)
def test_the_level_before_an_exception_is_known_with_each_form_of_date(time: str) -> None:
    exception = "java.net.BindException: In use\n\tat a.B.c(B.java)"
    assert of_driver(f"{time} WARN Utils: it failed, trying again\n{exception}") == []
    (cause,) = of_driver(f"{time} WARN Utils: trying\n{time} ERROR Utils: it failed\n{exception}")
    assert cause.summary == "java.net.BindException: In use"


@pytest.mark.parametrize("line", ["/opt/a", "ab/cd: busy", "/usr/bin/java: busy", "left-hand side", "12/34", "1 - a"])
def test_a_line_without_a_date_does_not_end_a_warning(line: str) -> None:
    exception = "java.net.BindException: In use\n\tat a.B.c(B.java)"
    assert of_driver(f"26/11/24 02:12:34 WARN Utils: it failed, trying again\n{line}\n{exception}") == []


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
        "io.netty.channel.AbstractChannel$AnnotatedConnectException: Connection refused: node1/10.0.0.1",
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
    assert len(causes) == 1


@pytest.mark.parametrize(
    "before",
    [
        "",
        'Exception in thread "main" ',
        "26/11/24 02:12:34 ERROR Tool: ",
        "26/11/24 02:12:34 ERROR Executor: Exception in task 0.0 in stage 1.0 (TID 2): ",
        "org.apache.spark.SparkException: Job aborted due to stage failure: Task 0 in stage 1.0 failed 4 times, most "
        "recent failure: Lost task 0.3 in stage 1.0 (TID 9) (h executor 2): ",
    ],
)
def test_an_exit_code_in_the_message_of_an_exception_is_part_of_it(before: str) -> None:
    text = (
        f"{before}a.b.ToolException: tool ended with exit code 134\n"
        "\tat a.b.Tool.run(Tool.java:1)\n"
        "Caused by: java.io.IOException: No space left on device\n"
        "\tat a.b.Tool.write(Tool.java:9)\n"
    )
    (cause,) = of_driver(text)
    assert cause.summary == "java.io.IOException: No space left on device"
    assert (cause.first_line, cause.last_line) == (1, 4)
    (cause,) = of_driver(text.partition("Caused by")[0])
    assert cause.summary == "a.b.ToolException: tool ended with exit code 134"


def test_an_exit_code_of_an_exception_below_a_warning_is_part_of_the_warning() -> None:
    text = "26/11/24 02:12:34 WARN Tool: again\na.b.ToolException: tool ended with exit code 134\n\tat a.B.c(B.java)"
    (cause,) = of_driver(text)
    assert (cause.summary, cause.rank) == ("a.b.ToolException: tool ended with exit code 134", 80)


@pytest.mark.parametrize(
    "line",
    [
        "26/11/24 02:12:34 ERROR YarnScheduler: Lost executor 2 on n: Exit status: 134. Diagnostics: a.b.CException: x",
        "26/11/24 02:12:34 WARN a.b.ToolException: tool ended with exit code 134",
        "org.apache.spark.SparkException: Exception thrown in awaitResult: ended with exit code 134",
        "org.apache.spark.SparkException: Job aborted due to stage failure: Task 0 in stage 1.0 failed 4 times, most "
        "recent failure: Lost task 0.3 in stage 1.0 (TID 9) (h executor 2): ExecutorLostFailure (executor 2 exited "
        "caused by one of the running tasks) Reason: Container from a bad node. Exit status: 134.",
    ],
)
def test_an_exit_code_counts_where_the_exception_says_less(line: str) -> None:
    (cause,) = of_driver(f"{line}\n\tat a.B.c(B.java:1)\n")
    assert cause.summary == "ended with exit code 134"
    assert cause.rank == 50


@pytest.mark.parametrize("before", ["", "java.lang.IllegalStateException: x\nCaused by: "])
@pytest.mark.parametrize(
    ("reason", "summary", "rank"),
    [
        ("Container from a bad node. Exit status: 1.", "ended with exit code 1", 50),
        ("Container from a bad node. Exit status: 10.", "ended with exit code 10", 50),
    ],
)
def test_a_lost_executor_is_not_always_one_of_memory(before: str, reason: str, summary: str, rank: int) -> None:
    (cause,) = of_driver(before + LOST_EXECUTOR.format(reason))
    assert (cause.summary, cause.rank) == (summary, rank)


@pytest.mark.parametrize(
    ("reason", "rank"),
    [
        ("Container from a bad node. Exit status: 139.", 50),
        ("Container from a bad node. Exit status: 143.", 70),
        ("Container from a bad node. Exit status: 137.", 24),
        ("Executor heartbeat timed out after 130000 ms", 24),
        ("Container killed by YARN for exceeding physical memory limits. 5.5 GB of 5 GB physical memory used.", 24),
        ("Container container_1_2_01_000004 on host: n was preempted.", 30),
    ],
)
def test_a_lost_executor_below_another_exception_ranks_by_its_reason(reason: str, rank: int) -> None:
    (cause,) = of_driver("java.lang.IllegalStateException: x\nCaused by: " + LOST_EXECUTOR.format(reason))
    assert cause.rank == rank
