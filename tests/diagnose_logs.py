"""Logs as Spark and YARN write them, and the diagnosis of each."""

from replayctl.logs.diagnose import Cause, Diagnosis

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
