"""The part of a failed task's log that its user sees."""

from __future__ import annotations

import pytest

from replayctl.experiments.log_excerpt import failed_application, log_excerpt

RELEASE = "r_05c63310774e85a5"
START = (
    "::group::Log message source details",
    "/logs/attempt=1.log",
    "::endgroup::",
    "::group::Pre Execute",
    "Filling up the DagBag from /dags/dag_odd_zoe.py",
    "::endgroup::",
)
STEP = (
    *START,
    "computing combine (mode=union)",
    'the step: {"workload": "combine"}',
    "Traceback (most recent call last):",
    f'  File "/home/me/spark files/zoe/{RELEASE}/dag_submit.py", line 24, in main',
    "    runner.run(document)",
    f'  File "/home/me/spark files/zoe/{RELEASE}/{RELEASE}.zip/{RELEASE}/workloads/combine.py", line 38, in run',
    "    models = {name: models[xyz] for name in models}",
    '  File "/env/lib/python3.11/site-packages/pandas/core.py", line 5, in apply',
    "NameError: name 'xyz' is not defined",
)
OPERATOR = (
    "Task failed with exception",
    "Traceback (most recent call last):",
    f'  File "/dags/replayctl_releases/zoe/{RELEASE}/dag_operators.py", line 205, in submit',
    "AirflowException: the step failed: NameError: name 'xyz' is not defined",
)


def test_the_steps_traceback_is_shown_and_the_operators_echo_is_not() -> None:
    assert log_excerpt(STEP + OPERATOR, 40) == (
        "computing combine (mode=union)",
        "Traceback (most recent call last):",
        '  File "dag_submit.py", line 24, in main',
        "    runner.run(document)",
        '  File "workloads/combine.py", line 38, in run',
        "    models = {name: models[xyz] for name in models}",
        '  File "/env/lib/python3.11/site-packages/pandas/core.py", line 5, in apply',
        "NameError: name 'xyz' is not defined",
    )


def test_the_message_of_a_step_error_is_shown_once() -> None:
    own = ("computing combine (mode=union)", "reading candidates", "StepError: no table x")
    log = (*START, *own, *OPERATOR[:-1], f"AirflowException: the step failed: {own[-1]}", "::group::Post Execute")
    assert log_excerpt(log, 40) == own


def test_the_hook_of_spark_adds_nothing_to_what_the_driver_says() -> None:
    failed = (*OPERATOR[:-1], "AirflowException: Cannot execute: spark-submit --master local[2] x. Error code is: 1.")
    own = ("computing als (rank=32)", "StepError: no table x", "26/11/26 12:44:18 INFO ShutdownHookManager: called")
    assert log_excerpt((*START, own[0], "Spark-Submit cmd: spark-submit x", *own[1:], *failed), 40) == own
    words = failed[-1].removeprefix("AirflowException: ")
    assert log_excerpt((*START, own[0], *failed), 40) == (own[0], words)


def test_what_only_the_operator_says_is_shown_without_its_traceback() -> None:
    words = "input split (/a) is incomplete: clear task split"
    log = (*START, *OPERATOR[:-1], f"AirflowException: {words}", "second line", "::group::Post Execute")
    assert log_excerpt(log, 40) == (words, "second line")


def test_a_defect_of_the_operator_and_a_failure_of_the_worker_are_shown_whole() -> None:
    defect = ("Task failed with exception", "Traceback (most recent call last):", "KeyError: 'x'")
    assert log_excerpt((*START, *defect), 40) == defect
    failed_start = ("::group::Pre Execute", "Top level error", "Traceback (most recent call last):", "OSError: x")
    assert log_excerpt(failed_start, 40) == failed_start[1:]


def test_only_the_last_lines_are_shown() -> None:
    assert log_excerpt([f"line {number}" for number in range(100)], 2) == ("line 98", "line 99")
    assert log_excerpt([], 40) == ()


@pytest.mark.parametrize(
    "how",
    [
        "ended with final status: FAILED",
        "ended with state: FAILED, final status: FAILED",
        "returned unexpected final status: X",
    ],
)
def test_the_application_that_failed_with_the_task_is_found(how: str) -> None:
    followed = "YARN application application_1_0001 status: RUNNING"
    failed = f"RuntimeError: YARN application application_2_0002 {how}"
    assert failed_application([followed]) is None
    assert failed_application([followed, failed, "Diagnostics: User application exited with status 1"]) == (
        "application_2_0002"
    )
