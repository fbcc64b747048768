"""Single lines on containers: kills, limits, exit codes."""

import pytest

from replayctl.logs.diagnose import explain_exit_code
from tests.diagnose_logs import DRIVER, EXECUTOR, PYTHON_FAILURE, diagnosed, of_driver, of_executor


@pytest.mark.parametrize(
    "line",
    [
        "java.lang.InterruptedException: sleep interrupted",
        "org.apache.spark.SparkException: Application application_1_2 finished with failed status",
        "org.apache.spark.SparkUserAppException: User application exited with 1",
        "org.apache.spark.SparkException: Job aborted due to stage failure: Task 1 in stage 0.0 failed 4 times",
        "java.io.IOException: Broken pipe",
        "26/11/24 02:12:34 WARN Client: java.net.ConnectException: Connection refused; will retry",
        "26/11/24 02:12:34 INFO RetryInvocationHandler: java.net.ConnectException: Call From a to b failed",
        "26/11/24 02:12:34 INFO YarnAllocator: Completed container c (state: COMPLETE, exit status: 0)",
        "26/11/24 02:12:34 ERROR TaskSetManager: Task 0 in stage 0.0 failed 4 times; aborting job",
        "0 errors, 3 exceptions were handled. Exit status: unknown",
    ],
)
def test_lines_that_say_nothing(line: str) -> None:
    assert of_driver(line) == []
    assert of_executor(f"{line}\n\tat a.b.C.d(C.java:1)") == []


@pytest.mark.parametrize(
    ("line", "rank"),
    [
        ("26/11/24 02:12:34 WARN Client: java.net.ConnectException: Connection refused", 80),
        ("26/11/24 02:12:34 INFO Client: java.net.ConnectException: Connection refused", 80),
        (
            "26/11/24 02:12:34 WARN TaskSetManager: Lost task 0.0 in stage 0.0 (TID 0) (h executor 1): "
            "java.net.ConnectException: Connection refused",
            27,
        ),
    ],
)
def test_a_warning_counts_where_a_stack_follows_and_nothing_else_tells_more(line: str, rank: int) -> None:
    assert of_driver(line) == []
    (cause,) = of_driver(f"{line}\n\tat a.b.C.d(C.java:1)")
    assert (cause.summary, cause.rank) == ("java.net.ConnectException: Connection refused", rank)
    (error,) = of_driver(f"{line}\n\tat a.b.C.d(C.java:1)\n26/11/24 02:12:35 ERROR Main: a.b.CException: x")[:1]
    assert (error.summary == "a.b.CException: x") == (rank == 80)


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
        (
            "Out of memory: Kill process 4711 (python3) score 901 or sacrifice child",
            "a process was killed (SIGKILL)",
        ),
        ("memory cgroup out of memory: kill process 4711 (python3)", "a process was killed (SIGKILL)"),
        ("Out of memory: Killed process 4711 (python3)", "a process was killed (SIGKILL)"),
        ("CONTAINER ENDED WITH EXIT CODE 139", "ended with exit code 139"),
        ("EXIT STATUS: 137", "killed, probably for using too much memory (exit code 137)"),
        (
            "tar: env.tar.gz: No space left on device, exit code 1",
            "tar: env.tar.gz: No space left on device, exit code 1",
        ),
        ("# java.lang.OutOfMemoryError: Java heap space", "java.lang.OutOfMemoryError: Java heap space"),
        (
            "26/11/24 02:12:34 ERROR ApplicationMaster: SparkContext did not initialize after waiting for 100000 ms.",
            "the driver did not create a SparkContext in time",
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


def test_released_executors_are_not_a_cause() -> None:
    assert of_driver("26/11/24 02:12:34 INFO YarnAllocator: Completed container c (exit status: 143)") == []
    assert of_driver("26/11/24 02:12:34 WARN YarnAllocator: Container from a bad node. Exit status: 143.") != []


def test_executors_released_by_dynamic_allocation_are_not_a_cause() -> None:
    released = "26/11/24 02:12:34 INFO YarnAllocator: Completed container c (state: COMPLETE, exit status: -100)"
    assert of_driver(released) == []
    (cause,) = of_driver(released.replace("INFO", "WARN"))
    assert cause.summary == "ended with exit code -100"


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
