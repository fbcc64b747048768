"""Lines that one process quotes from another belong to the other."""

import pytest

from replayctl.logs.diagnose import from_diagnostics
from tests.diagnose_logs import DRIVER, EXECUTOR, diagnosed, of_driver

EXECUTOR_SAID = (
    "26/11/24 02:12:33 ERROR Executor: Exception in task 0.0 in stage 1.0 (TID 2)\n"
    "java.lang.OutOfMemoryError: Java heap space\n"
    "\tat java.base/java.util.Arrays.copyOf(Arrays.java:3537)\n"
    "26/11/24 02:12:33 ERROR CoarseGrainedExecutorBackend: RECEIVED SIGNAL TERM\n"
    "26/11/24 02:12:33 INFO CoarseGrainedExecutorBackend: Driver commanded a shutdown\n"
    "26/11/24 02:12:33 INFO ShutdownHookManager: Shutdown hook called\n"
)
QUOTED = (
    f"Container from a bad node: {EXECUTOR} on host: n. Exit status: {{code}}. Diagnostics: "
    "[2026-11-24 02:12:33.100]Exception from container-launch.\n"
    f"Container id: {EXECUTOR}\n"
    "Exit code: {code}\n\n"
    "[2026-11-24 02:12:33.150]Container exited with a non-zero exit code {code}. Error file: prelaunch.err.\n"
    "Last 4096 bytes of prelaunch.err :\n"
    "Last 4096 bytes of stderr :\n"
    f"{EXECUTOR_SAID}\n\n"
    "[2026-11-24 02:12:33.151]Container exited with a non-zero exit code {code}. Error file: prelaunch.err.\n"
    "Last 4096 bytes of prelaunch.err :\n"
    "Last 4096 bytes of stderr :\n"
    f"{EXECUTOR_SAID}"
    "{end}"
)
ENDS = (".\n", "\n\n.\n", "")
FAILED = "Traceback (most recent call last):\n  File \"job.py\", line 3, in <module>\nKeyError: 'user_id'\n"


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("code", [143, 52, 1])
def test_an_executors_memory_is_not_the_drivers(code: int, end: str) -> None:
    text = (
        f"26/11/24 02:12:34 WARN YarnAllocator: {QUOTED.format(code=code, end=end)}"
        f"26/11/24 02:12:34 ERROR YarnClusterScheduler: Lost executor 2 on n: {QUOTED.format(code=code, end=end)}"
        "26/11/24 02:12:35 INFO DAGScheduler: Executor lost: 2 (epoch 1)\n"
    )
    causes = of_driver(text)
    assert causes[0].summary == "java.lang.OutOfMemoryError: Java heap space"
    assert "spark.executor.memory" in causes[0].explanation
    assert not any("driver" in f"{cause.summary} {cause.explanation}" for cause in causes)


@pytest.mark.parametrize("end", ENDS)
def test_the_driver_is_read_on_behind_what_it_quotes(end: str) -> None:
    own = "26/11/24 02:12:35 ERROR Main: java.lang.IllegalStateException: no items\n\tat a.B.c(B.java:1)\n"
    text = f"26/11/24 02:12:34 WARN YarnAllocator: {QUOTED.format(code=143, end=end)}{own}"
    assert "java.lang.IllegalStateException: no items" in [cause.summary for cause in of_driver(text)]
    causes = diagnosed((DRIVER, "stderr", text), (DRIVER, "stdout", FAILED))
    assert causes[0].summary == "KeyError: 'user_id'"


def test_a_quotation_ends_at_its_announced_length() -> None:
    text = (
        f"26/11/24 02:12:34 WARN YarnAllocator: Container from a bad node: {EXECUTOR} on host: n. Exit status: 143.\n"
        "Last 64 bytes of stderr :\n" + "x" * 60 + "\n" + FAILED
    )
    (cause,) = [cause for cause in of_driver(text) if cause.rank == 10]
    assert cause.summary == "KeyError: 'user_id'"


def test_a_failed_task_that_quotes_its_executor() -> None:
    text = (
        "Traceback (most recent call last):\n"
        '  File "job.py", line 3, in <module>\n'
        "py4j.protocol.Py4JJavaError: An error occurred while calling o1.count.\n"
        ": org.apache.spark.SparkException: Job aborted due to stage failure: Task 0 in stage 1.0 failed 4 times, most "
        "recent failure: Lost task 0.3 in stage 1.0 (TID 9) (h executor 2): ExecutorLostFailure (executor "
        "2 exited caused "
        f"by one of the running tasks) Reason: {QUOTED.format(code=52, end='.' + chr(10))}"
        "Driver stacktrace:\n\tat a.B.c(B.java:1)\n"
    )
    causes = of_driver(text)
    assert causes[0].summary == "out of memory (exit code 52)"
    assert causes[1].summary == "java.lang.OutOfMemoryError: Java heap space"
    assert "spark.executor.memory" in causes[1].explanation
    assert (causes[0].first_line, causes[0].last_line) == (1, len(text.splitlines()))


def test_diagnostics_quote_the_driver() -> None:
    text = (
        "Application application_1_2 failed 1 times due to AM Container for appattempt_1_2_000001 exited "
        "with exitCode: 1\n"
        "Failing this attempt.Diagnostics: [2026-11-24 02:12:36.249]Exception from container-launch.\n"
        f"Container id: {DRIVER}\nExit code: 1\n"
        "Last 4096 bytes of stderr :\n"
        "26/11/24 02:12:33 ERROR Utils: Uncaught exception\n"
        "java.lang.OutOfMemoryError: Java heap space\n\tat a.B.c(B.java:1)\n"
    )
    cause = from_diagnostics(text)
    assert cause is not None
    assert "spark.driver.memory" in cause.explanation


def test_a_warning_about_a_task_is_about_its_executor() -> None:
    line = "26/11/24 02:12:34 WARN TaskSetManager: Lost task 0.0 in stage 1.0 (TID 2) ({}): {}\n\tat a.B.c(B.java:1)\n"
    heap = "java.lang.OutOfMemoryError: Java heap space"
    (cause,) = of_driver(line.format("h executor 1", heap))
    assert "spark.executor.memory" in cause.explanation
    (cause,) = of_driver(line.format("localhost executor driver", heap))
    assert "spark.driver.memory" in cause.explanation


def test_an_out_of_memory_error_during_the_kill_of_its_jvm() -> None:
    text = (
        "26/11/24 02:12:33 ERROR CoarseGrainedExecutorBackend: RECEIVED SIGNAL TERM\n"
        "26/11/24 02:12:33 ERROR Executor: Exception in task 1.0 in stage 2.0 (TID 2)\n"
        "java.lang.OutOfMemoryError: Java heap space\n"
        "\tat org.apache.spark.unsafe.types.UTF8String.repeat(UTF8String.java:833)\n"
        "26/11/24 02:12:33 INFO Executor: Not reporting error to driver during JVM shutdown.\n"
        "26/11/24 02:12:33 ERROR Utils: Uncaught exception in thread shutdown-hook-0\n"
        "java.lang.IllegalStateException: shutting down\n\tat a.B.c(B.java:1)\n"
    )
    lost = (
        "Traceback (most recent call last):\n"
        '  File "job.py", line 3, in <module>\n'
        "py4j.protocol.Py4JJavaError: An error occurred while calling o1.collect.\n"
        ": org.apache.spark.SparkException: Job aborted due to stage failure: ShuffleMapStage 5 (collect at x) has "
        "failed the maximum allowable number of times: 4. Most recent failure reason:\n"
        "org.apache.spark.shuffle.MetadataFetchFailedException: Missing an output location for shuffle 0 partition 1\n"
        "\tat a.B.c(B.java:1)\n"
    )
    for files in (
        [(EXECUTOR, "stderr", text), (DRIVER, "stdout", lost)],
        [(DRIVER, "stdout", lost), (EXECUTOR, "stderr", text)],
    ):
        first, second = diagnosed(*files)
        assert first.summary == "java.lang.OutOfMemoryError: Java heap space"
        assert "spark.executor.memory" in first.explanation
        assert "MetadataFetchFailedException" in second.summary
