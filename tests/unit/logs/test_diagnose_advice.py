"""Advice for known messages names the setting or command to change."""

import pytest

from replayctl.logs.diagnose import from_diagnostics
from tests.diagnose_logs import DRIVER, EXECUTOR, diagnosed, of_driver

PYTHON = 'Traceback (most recent call last):\n  File "job.py", line 3, in <module>\n{}\n'


@pytest.mark.parametrize(
    ("last", "advice"),
    [
        ("TypeError: 'JavaPackage' object is not callable", "--jars"),
        ("py4j.protocol.Py4JError: com.example.Classifier does not exist in the JVM", "--packages"),
        ("torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", "smaller batches"),
        ("numpy.core._exceptions._ArrayMemoryError: Unable to allocate 29.8 GiB for an array", "memoryOverhead"),
        ("RuntimeError: can't start new thread", "spark.driver.cores"),
        ("FileNotFoundError: [Errno 2] No such file or directory: 'spark-submit'", "Check the path"),
        ("pyspark.errors.exceptions.captured.AnalysisException: [UNRESOLVED_COLUMN] `x`", "schema"),
        ("_pickle.PicklingError: Could not serialize object: TypeError: cannot pickle '_thread.lock'", "enclose"),
    ],
)
def test_exceptions_of_python(last: str, advice: str) -> None:
    (cause,) = of_driver(PYTHON.format(last))
    assert advice in cause.explanation


@pytest.mark.parametrize(
    ("exception", "advice"),
    [
        (
            "java.lang.IllegalAccessError: class org.apache.spark.storage.StorageUtils$ (in unnamed "
            "module @0x1) cannot "
            "access class sun.nio.ch.DirectBuffer (in module java.base) because module java.base does not "
            "export sun.nio.ch",
            "JAVA_HOME",
        ),
        (
            "org.apache.hadoop.ipc.RemoteException(org.apache.hadoop.hdfs.server.namenode.SafeModeException): Cannot "
            "create directory /user/eva. Name node is in safe mode.",
            "hdfs dfsadmin -safemode get",
        ),
        (
            "org.apache.hadoop.hdfs.protocol.DSQuotaExceededException: The DiskSpace quota is exceeded",
            "hdfs dfs -count",
        ),
        ("java.io.FileNotFoundException: /data/blockmgr/0c/x.index (Too many open files)", "ulimit -n"),
        ("java.io.FileNotFoundException: File file:/nope/x.jar does not exist", "--jars"),
        ("java.lang.ClassNotFoundException: Failed to find data source: kafka.", "--packages"),
        ("java.lang.IllegalArgumentException: System memory 259522560 must be at least 471859200.", "--driver-memory"),
        (
            "org.apache.spark.SparkException: Job aborted due to stage failure: Total size of serialized "
            "results of 9 tasks "
            "(1025.0 MiB) is bigger than spark.driver.maxResultSize (1024.0 MiB)",
            "raise spark.driver.maxResultSize",
        ),
        (
            "org.apache.hadoop.ipc.RemoteException(org.apache.hadoop.security.token.SecretManager$InvalidToken): token "
            "(HDFS_DELEGATION_TOKEN token 3 for eva) is expired",
            "--keytab",
        ),
    ],
)
def test_exceptions_of_java(exception: str, advice: str) -> None:
    for text in (
        f'Exception in thread "main" {exception}\n\tat a.B.c(B.java:1)\n',
        PYTHON.format(
            f"py4j.protocol.Py4JJavaError: An error occurred while calling o1.x.\n: {exception}\n\tat a.B.c(B.java)"
        ),
    ):
        (cause,) = of_driver(text)
        assert advice in cause.explanation


@pytest.mark.parametrize(
    ("line", "summary", "advice"),
    [
        (
            "python: pthread_mutex_lock.c:81: __pthread_mutex_lock: Assertion `mutex->__data.__owner == 0' failed.",
            "Assertion",
            "native library",
        ),
        ("  what():  Unsupported feature index", "what():  Unsupported feature index", "native library"),
        ("free(): invalid pointer", "free(): invalid pointer", "native library"),
        (
            "[LightGBM] [Fatal] Check failed: (num_data) > (0) at dataset.cpp, line 39 .",
            "[Fatal] Check failed",
            "native",
        ),
        ("/bin/bash: /bin/java: No such file or directory", "/bin/java: No such file or directory", "path"),
        ("/usr/bin/env: 'python3': No such file or directory", "python3: No such file or directory", "path"),
        ("sh: 1: exec: ./env/bin/python: not found", "./env/bin/python: not found", "packed environment"),
        ("Error: Failed to load class com.example.Main.", "Failed to load class com.example.Main", "--jars"),
        ("train.py: error: the following arguments are required: --dataset", "arguments are required", "--help"),
        (
            "26/11/24 02:12:34 ERROR TaskSetManager: Total size of serialized results of 9 tasks (1025.0 "
            "MiB) is bigger than "
            "spark.driver.maxResultSize (1024.0 MiB)",
            "spark.driver.maxResultSize",
            "raise spark.driver.maxResultSize",
        ),
    ],
)
def test_single_lines(line: str, summary: str, advice: str) -> None:
    lost = f"26/11/24 02:12:36 ERROR YarnScheduler: Lost executor 1 on n: Container {EXECUTOR}. Exit status: {{}}.\n"
    for code in (134, 255):
        causes = diagnosed((EXECUTOR, "stderr", line), (DRIVER, "stderr", lost.format(code)))
        assert summary in causes[0].summary
        assert advice in causes[0].explanation


@pytest.mark.parametrize("code", [134, 255])
def test_exit_codes_of_native_failures(code: int) -> None:
    for text in (f"exited with  exitCode: {code}", f"Container exited with a non-zero exit code {code}"):
        cause = from_diagnostics(text)
        assert cause is not None
        assert "native library" in cause.explanation
