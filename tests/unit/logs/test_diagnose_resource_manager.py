"""The ResourceManager's diagnostics of an application's end."""

import pytest

from replayctl.logs.diagnose import from_diagnostics
from tests.diagnose_logs import AM_FAILED, DRIVER


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


@pytest.mark.parametrize("between", ["\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"])
@pytest.mark.parametrize(
    ("last", "summary"),
    [("KeyError: 'a'", "KeyError: 'a'"), ("exited with exitCode: 13", "ended with exit code 13")],
)
def test_lines_of_diagnostics_end_at_line_feeds_only(between: str, last: str, summary: str) -> None:
    opening = (
        'Traceback (most recent call last):\n  File "a.py", line 1, in f\n' if "Key" in last else "first\nsecond\n"
    )
    cause = from_diagnostics(f"one{between}still one\n{opening}{last}\n")
    assert cause is not None
    assert cause.summary == summary
    assert cause.last_line == 4


@pytest.mark.parametrize(
    ("text", "who"),
    [
        ("was killed by user at 10.0.0.7", "a user"),
        ("was killed by user  at 10.0.0.7", "a user"),
        ("was killed by user at fe80:0:0:0:0:0:0:1", "a user"),
        ("was killed by user eva at 10.0.0.7", "eva"),
        ("was killed by user atal at 10.0.0.7", "atal"),
        ("was killed by user at at 10.0.0.7", "at"),
        ("was killed by user: eva", "eva"),
    ],
)
def test_who_killed_an_application(text: str, who: str) -> None:
    cause = from_diagnostics(f"Application application_1_2 {text}")
    assert cause is not None
    assert cause.summary == f"the application was killed by {who}"


def test_a_refusal_is_shown_with_what_stands_around_it() -> None:
    refusal = "to submit application_1_2 to unknown queue: none, asked by eva"
    cause = from_diagnostics(f"before\n{'a' * 300} {refusal} {'b' * 300}\nafter")
    assert cause is not None
    assert cause.first_line == 2
    assert refusal in cause.excerpt[0]
    assert set(cause.summary.partition(" to ")[0]) == {"a"}
    assert len(cause.excerpt[0]) < 500
    cause = from_diagnostics(f"before\n{refusal}\nafter")
    assert cause is not None
    assert cause.summary == refusal
    assert cause.excerpt == (refusal,)
