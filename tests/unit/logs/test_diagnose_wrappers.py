"""Of a chain of exceptions, the most specific one is reported."""

import pytest

from tests.diagnose_logs import of_driver, of_executor

TASK = (
    "org.apache.spark.SparkException: Job aborted due to stage failure: Task 0 in stage 1.0 failed 4 "
    "times, most recent "
    "failure: Lost task 0.3 in stage 1.0 (TID 9) (h executor 2): {}"
)
PY4J = (
    "Traceback (most recent call last):\n"
    '  File "job.py", line 3, in <module>\n'
    "    frame.count()\n"
    "py4j.protocol.Py4JJavaError: An error occurred while calling o1.count.\n"
    ": {}"
)
FRAME = "\n\tat a.B.c(B.java:1)\n"


@pytest.mark.parametrize(
    ("wrapper", "cause", "advice"),
    [
        (
            "org.apache.spark.SparkException: Python worker exited unexpectedly (crashed)",
            "java.io.EOFException",
            "spark.executor.memoryOverhead",
        ),
        (
            'java.io.IOException: Cannot run program "./env/bin/python": error=2, No such file or directory',
            "java.io.IOException: error=2, No such file or directory",
            "PYSPARK_PYTHON",
        ),
        (
            'java.io.IOException: Cannot run program "./env/bin/python": error=13, Permission denied',
            "java.io.IOException: error=13, Permission denied",
            "PYSPARK_PYTHON",
        ),
        (
            "org.apache.spark.SparkException: Could not execute broadcast in 300 secs. You can increase "
            "the timeout for "
            "broadcasts via spark.sql.broadcastTimeout",
            "java.util.concurrent.TimeoutException: Futures timed out after [300 seconds]",
            "spark.sql.broadcastTimeout",
        ),
        (
            "org.apache.spark.SparkException: Kryo serialization failed: Buffer overflow. Available: 0, "
            "required: 1. To "
            "avoid this, increase spark.kryoserializer.buffer.max value.",
            "com.esotericsoftware.kryo.KryoException: Buffer overflow. Available: 0, required: 1",
            "spark.kryoserializer.buffer.max",
        ),
        (
            "org.apache.spark.sql.execution.QueryExecutionException: Parquet column cannot be converted in file "
            "hdfs://nn/p/a.parquet. Column: [c], Expected: int, Found: BINARY",
            "org.apache.spark.sql.execution.datasources.SchemaColumnConvertNotSupportedException",
            "another type",
        ),
        (
            "org.apache.spark.SparkException: Parquet column cannot be converted in file "
            "hdfs://nn/p/a.parquet. Column: "
            "[c], Expected: int, Found: BINARY.",
            "org.apache.spark.sql.execution.datasources.SchemaColumnConvertNotSupportedException: column: [c], "
            "physicalType: BINARY, logicalType: int",
            "another type",
        ),
        (
            "java.net.ConnectException: Call From node1 to nn:8020 failed on connection exception: "
            "java.net.ConnectException: Connection refused; see the wiki",
            "java.net.ConnectException: Connection refused",
            "Nothing listens",
        ),
        (
            "org.apache.spark.SparkException: Not enough memory to build and broadcast the table to all worker nodes.",
            "java.lang.OutOfMemoryError: Java heap space",
            "spark.sql.autoBroadcastJoinThreshold",
        ),
        (
            "org.apache.spark.SparkException: Python worker failed to connect back.",
            "java.net.SocketTimeoutException: Accept timed out",
            "PYSPARK_PYTHON",
        ),
    ],
)
def test_a_wrapper_that_says_more_than_its_cause(wrapper: str, cause: str, advice: str) -> None:
    chain = f"{wrapper}{FRAME}Caused by: {cause}{FRAME}\t... 9 more\n"
    for text in (
        f"26/11/24 02:12:34 ERROR Executor: Exception in task 0.0 in stage 1.0 (TID 9)\n{chain}",
        PY4J.format(chain),
        PY4J.format(
            TASK.format(chain) + f"\nDriver stacktrace:{FRAME}Caused by: {wrapper}{FRAME}Caused by: {cause}{FRAME}"
        ),
    ):
        for causes in (of_driver(text), of_executor(text)):
            assert [cause.summary for cause in causes] == [wrapper[:300]]
            assert advice in causes[0].explanation


@pytest.mark.parametrize(
    ("wrapper", "cause"),
    [
        ("org.apache.spark.SparkException: Exception thrown in awaitResult: disk", "java.io.IOException: disk"),
        ("java.lang.RuntimeException: java.io.IOException: disk", "java.io.IOException: disk"),
        ("java.lang.IllegalStateException: cannot go on", "java.io.IOException: disk"),
        ("java.util.concurrent.ExecutionException: java.io.IOException: disk", "java.io.IOException: disk"),
        ("org.apache.spark.SparkException: Task failed while writing rows.", "java.io.IOException: disk"),
    ],
)
def test_a_wrapper_that_says_no_more_gives_way(wrapper: str, cause: str) -> None:
    causes = of_driver(PY4J.format(f"{wrapper}{FRAME}Caused by: {cause}{FRAME}"))
    assert [cause.summary for cause in causes] == [cause]


def test_a_cause_without_a_message_is_reported_with_its_wrapper() -> None:
    chain = (
        "org.apache.spark.SparkException: [FAILED_EXECUTE_UDF] Failed to execute user defined function "
        "(f: (int) => int)."
        f"{FRAME}Caused by: java.lang.NullPointerException{FRAME}"
    )
    (cause,) = of_driver(PY4J.format(chain))
    assert "FAILED_EXECUTE_UDF" in cause.summary
    assert cause.summary.endswith("(caused by java.lang.NullPointerException)")


@pytest.mark.parametrize("name", ["java.lang.Exception", "java.lang.Error", "java.lang.Throwable", "scala.MatchError"])
def test_bare_exceptions_are_exceptions(name: str) -> None:
    for text in (
        f"26/11/24 02:12:34 ERROR Executor: Exception in task 0.0 in stage 1.0 (TID 9)\n{name}: boom{FRAME}",
        f'Exception in thread "main" {name}: boom{FRAME}',
        f"26/11/24 02:12:34 ERROR Main: failed with {name}: boom{FRAME}",
        PY4J.format(f"{name}: boom{FRAME}"),
        PY4J.format(TASK.format(f"{name}: boom{FRAME}")),
        f"java.lang.IllegalStateException: x{FRAME}Caused by: {name}: boom{FRAME}",
    ):
        assert [cause.summary for cause in of_driver(text)] == [f"{name}: boom"]


BARRIER = (
    "org.apache.spark.SparkException: Job aborted due to stage failure: Could not recover from a failed barrier "
    "ResultStage. Most recent failure reason: Stage failed because barrier task ResultTask(12, 39) finished "
    "unsuccessfully.\n"
)


@pytest.mark.parametrize(
    ("reason", "summary"),
    [
        ("java.lang.Exception: Binding port 12792 failed", "java.lang.Exception: Binding port 12792 failed"),
        (
            "ExecutorLostFailure (executor 5 exited caused by one of the running tasks) Reason: \n"
            "The executor with id 5 exited with exit code 134(unexpected).",
            "ended with exit code 134",
        ),
        (
            "ExecutorLostFailure (executor 5 exited caused by one of the running tasks) Reason: Container from a bad "
            "node: container_1_2_01_000007 on host: n. Exit status: 137.",
            "killed, probably for using too much memory (exit code 137)",
        ),
        (
            "org.apache.spark.api.python.PythonException: Traceback (most recent call last):\n"
            '  File "features.py", line 14, in f\n'
            "ValueError: bad row\n",
            "ValueError: bad row",
        ),
    ],
)
def test_barrier_stages_have_the_reason_on_the_next_line(reason: str, summary: str) -> None:
    for text in (PY4J.format(BARRIER + reason + FRAME), f'Exception in thread "main" {BARRIER}{reason}{FRAME}'):
        assert [cause.summary for cause in of_driver(text)] == [summary]


def test_py4j_tells_of_java_below_trace() -> None:
    text = (
        "Traceback (most recent call last):\n"
        '  File "job.py", line 3, in <module>\n'
        "py4j.protocol.Py4JError: An error occurred while calling o45.setIt. Trace:\n"
        "py4j.Py4JException: Method setIt([class java.lang.String]) does not exist\n"
        "\tat py4j.reflection.ReflectionEngine.getMethod(ReflectionEngine.java:318)\n"
    )
    (cause,) = of_driver(text)
    assert cause.summary == "py4j.Py4JException: Method setIt([class java.lang.String]) does not exist"
    assert "versions" in cause.explanation


WORKER = (
    "26/11/24 02:12:34 ERROR Executor: Exception in task 0.0 in stage 0.0 (TID 0)\n"
    "org.apache.spark.SparkException: \n"
    "Error from python worker:\n"
    "{}"
    "PYTHONPATH was:\n"
    "  /opt/spark/python/lib/pyspark.zip:/opt/spark/jars\n"
    "{}\n"
    "\tat org.apache.spark.api.python.PythonWorkerFactory.startDaemon(PythonWorkerFactory.scala:246)\n"
)
EOF_OF_DAEMON = (
    "org.apache.spark.SparkException: EOFException occurred while reading the port number from daemon's stdout."
)


@pytest.mark.parametrize("last", [EOF_OF_DAEMON, "java.io.EOFException", "java.io.IOException: Cannot read the port"])
@pytest.mark.parametrize(
    ("error", "summary"),
    [
        ("  ./env/bin/python: No module named pyspark\n", "./env/bin/python: No module named pyspark"),
        (
            "  warning: something\n  /usr/bin/python3.11: No module named replay.daemon\n",
            "/usr/bin/python3.11: No module named replay.daemon",
        ),
        (
            "  Traceback (most recent call last):\n"
            '    File "/usr/lib/python3.11/runpy.py", line 187, in _run_module_as_main\n'
            "      mod_name, mod_spec, code = _get_module_details(mod_name)\n"
            '    File "/opt/spark/python/lib/pyspark.zip/pyspark/daemon.py", line 33, in <module>\n'
            "  ModuleNotFoundError: No module named 'numpy'\n",
            "ModuleNotFoundError: No module named 'numpy'",
        ),
    ],
)
def test_the_error_of_a_python_worker_is_the_reason(error: str, summary: str, last: str) -> None:
    text = WORKER.format(error, last)
    for whole in (text, PY4J.format(TASK.format(text.partition("\n")[2]))):
        causes = of_executor(whole)
        assert [cause.summary for cause in causes] == [summary]
        assert "environment" in causes[0].explanation
