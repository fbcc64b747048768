"""Layouts of log lines, and the prefixes that log collectors add to them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replayctl.logs.diagnose.layout import begins_log_line, head, uncarried
from tests.diagnose_logs import diagnosed, of_driver

LAYOUTS = [
    "26/11/24 02:12:34 {level} Executor: {message}",
    "2026-11-24 02:12:34,123 {level} executor.Executor: {message}",
    "2026-11-24 02:12:34 {level}  Executor:94 - {message}",
    "2026-11-24T02:12:34.123Z {level} Executor: {message}",
    "2026-11-24T02:12:34.123Z [main] {level} com.example.Job - {message}",
    "2026-11-24 02:12:34,123 [Executor task launch worker for task 0.0 (TID 1)] {level} o.a.s.e.Executor - {message}",
    "2026-11-24 02:12:34.123 [Thread-6] {level} [Job:94]: {message}",
    "2026-11-24 02:12:34 | {level} | job:run:12 - {message}",
    "02:12:34 [{level}] [o.a.s.s.DAGScheduler:61] - {message}",
    "02:12:34.567 {level} org.apache.spark.executor.Executor: {message}",
    "[2026-11-24 02:12:34,123] {level} job.Actor [] [] - {message}",
    "[{level}] {message}",
    "[main] {level} com.example.Job - {message}",
    "{level} Executor: {message}",
    "{level}:root:{message}",
]
CARRIERS = [
    "",
    "[2026-11-24, 02:12:34 UTC] {{spark_submit.py:571}} INFO - ",
    "[2026-11-24T02:12:34.123+0000] {{pod_manager.py:418}} INFO - [base] ",
    "[2026-11-24 02:12:34,123] {{{{spark_submit_hook.py:415}}}} INFO - ",
    "[2026-11-24 02:12:34,123] {{logging_mixin.py:103}} {{PID:117 TID:13}} INFO - ",
    "[2026-11-24T02:12:34.123456Z][DEFAULT] ",
    "2026-11-24T02:12:34.123456789Z stderr F ",
    "Nov 24 02:12:34 node5.example.org spark[31144]: ",
]
STACK = "java.lang.Exception: boom\n\tat com.example.Job.run(Job.java:10) ~[job.jar:1.0]\n"


def carried(carrier: str, text: str) -> str:
    return "".join(f"{carrier.format()}{line}\n" for line in text.splitlines())


@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_exceptions_in_each_layout(layout: str, carrier: str) -> None:
    error = layout.format(level="ERROR", message="Exception in task 1")
    again = layout.format(level="WARN", message="it failed, trying again")
    for text in (
        f"{error}\n{STACK}",
        layout.format(level="ERROR", message=f"it failed: {STACK}"),
        f"{again}\n{error}\n{STACK}",
    ):
        assert [cause.summary for cause in of_driver(carried(carrier, text))] == ["java.lang.Exception: boom"]
    assert of_driver(carried(carrier, f"{error}\n{again}\n{STACK}")) == []


@pytest.mark.parametrize("level", ["INFO", "WARN"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_stacks_below_lines_that_are_not_errors(layout: str, level: str) -> None:
    for text in (
        f"{layout.format(level=level, message='the training ended')}\n{STACK}",
        layout.format(level=level, message=f"the training ended: {STACK}"),
    ):
        (cause,) = of_driver(text)
        assert cause.summary == "java.lang.Exception: boom"
        failed = 'Traceback (most recent call last):\n  File "a.py", line 1, in <module>\nKeyError: 1\n'
        assert [cause.summary for cause in of_driver(f"{text}{failed}")] == ["KeyError: 1"]


@pytest.mark.parametrize("carrier", [*CARRIERS, "train-1  | ", "Job 36: Subtask train "])
def test_tracebacks_that_are_carried(carrier: str) -> None:
    text = (
        "starting\n"
        "Traceback (most recent call last):\n"
        '  File "/opt/job.py", line 3, in <module>\n'
        "    main()\n"
        "KeyError: 'a'\n\n"
        "The above exception was the direct cause of the following exception:\n\n"
        "Traceback (most recent call last):\n"
        '  File "/opt/job.py", line 9, in <module>\n'
        "ValueError: no items\n"
    )
    (cause,) = of_driver(carried(carrier, text))
    assert cause.summary == "ValueError: no items (caused by KeyError: 'a')"
    assert (cause.first_line, cause.last_line) == (2, 11)


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("level", ["INFO", "WARN", "ERROR"])
def test_lines_of_other_threads_in_between(level: str, count: int) -> None:
    other = f"26/11/24 02:12:34 {level} BlockManagerInfo: Removed broadcast_1_piece0 on h:1 in memory\n" * count
    text = (
        "Traceback (most recent call last):\n"
        f"{other}"
        '  File "/opt/job.py", line 3, in <module>\n'
        f"{other}"
        "    frame.count()\n"
        "py4j.protocol.Py4JJavaError: An error occurred while calling o1.count.\n"
        f"{other}"
        ": org.apache.spark.SparkException: Exception thrown in awaitResult: \n"
        "\tat com.example.Job.run(Job.java:10)\n"
        f"{other}"
        "\tat com.example.Job.main(Job.java:3)\n"
        f"{other}"
        "Caused by: java.io.IOException: No space left on device\n"
        "\tat com.example.Job.write(Job.java:7)\n"
    )
    (cause,) = of_driver(text)
    assert cause.summary == "java.io.IOException: No space left on device"
    assert (cause.first_line, cause.last_line) == (1, len(text.splitlines()))


@pytest.mark.parametrize(
    "line",
    [
        "2026-11-24 02:12:34 the training failed: java.lang.Exception: boom",
        "the training failed with java.lang.Exception: boom",
        "? java.lang.Exception: boom",
        "com.example.Broken: boom",
        'Exception in thread "main" com.example.Broken: boom',
        'Exception in thread "main" Broken: boom',
    ],
)
def test_a_stack_proves_the_line_above_it(line: str) -> None:
    (cause,) = of_driver(f"{line}\n\tat com.example.Job.run(Job.java:10)\n")
    assert cause.summary.endswith(": boom")
    assert of_driver(line) == []


def test_a_task_of_airflow_that_submits_twice() -> None:
    line = "[2026-11-24T02:12:31.123+0000] {{spark_submit.py:573}} INFO - {}\n".format
    text = (
        line("26/11/24 02:12:31 INFO SparkContext: Running Spark version 3.5.3")
        + line("26/11/24 02:12:33 INFO ShutdownHookManager: Shutdown hook called")
        + line("26/11/24 02:13:31 INFO SparkContext: Running Spark version 3.5.3")
        + line("Traceback (most recent call last):")
        + line('  File "/opt/job.py", line 3, in <module>')
        + line("KeyError: 'second'")
        + "[2026-11-24T02:13:35.123+0000] {taskinstance.py:1851} ERROR - Task failed with exception\n"
        "Traceback (most recent call last):\n"
        '  File "/airflow/providers/spark_submit.py", line 160, in execute\n'
        "airflow.exceptions.AirflowException: Cannot execute: spark-submit job.py. Error code is: 1.\n"
    )
    assert diagnosed(("", "task", text))[0].summary == "KeyError: 'second'"


def test_notebooks() -> None:
    text = (
        "---------------------------------------------------------------------------\n"
        "KeyError                                  Traceback (most recent call last)\n"
        "<ipython-input-9-b69a81af6891> in <module>()\n"
        "      1 x = {}\n"
        "----> 2 x['a']\n\n"
        "KeyError: 'a'\n\n"
        "During handling of the above exception, another exception occurred:\n\n"
        "TypeError                                 Traceback (most recent call last)\n"
        "Cell In[29], line 1\n"
        "----> 1 spark_class.main(args)\n\n"
        "TypeError: 'JavaPackage' object is not callable\n"
    )
    (cause,) = of_driver(text)
    assert cause.summary == "TypeError: 'JavaPackage' object is not callable"
    assert "--jars" in cause.explanation


@given(st.text(max_size=200))
def test_any_text_has_or_has_not_a_beginning(text: str) -> None:
    rest, _ = uncarried(text)
    assert text.endswith(rest)
    begins = head(text)
    assert begins is None or (begins.after_level <= begins.end and text.startswith(begins.form))
    assert begins_log_line(text, text[:1]) in (True, False)
