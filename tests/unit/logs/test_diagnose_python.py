"""Tracebacks of drivers and of Python workers, and Java exceptions reported by py4j."""

import pytest

from tests.diagnose_logs import (
    DRIVER,
    DRIVER_NOISE,
    EXECUTOR,
    OTHER_EXECUTOR,
    PY4J_FAILURE,
    PYTHON_FAILURE,
    UDF_FAILURE,
    diagnosed,
    of_driver,
    of_executor,
)


def test_a_traceback_of_the_driver_wins_over_the_noise_of_java() -> None:
    causes = diagnosed((DRIVER, "stderr", DRIVER_NOISE), (DRIVER, "stdout", PYTHON_FAILURE))
    assert [cause.summary for cause in causes] == ["KeyError: 'user_id'"]
    cause = causes[0]
    assert (cause.container, cause.file, cause.first_line, cause.last_line) == (DRIVER, "stdout", 2, 8)
    assert cause.excerpt == tuple(PYTHON_FAILURE.splitlines()[1:])
    assert cause.explanation == ""


def test_what_a_step_says_to_its_user_wins_over_its_exit_code() -> None:
    message = "StepError: data/log.csv has no column rating"
    causes = diagnosed((DRIVER, "stderr", DRIVER_NOISE), (DRIVER, "stdout", f"  warnings.warn(\n{message}\n"))
    assert (causes[0].summary, causes[0].excerpt) == (message, (message,))
    assert not of_driver(f"2026-11-26 08:59:28,403 replay INFO {message}\n")


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
    prefixed = (
        first + '26/11/24 02:12:34 ERROR train:   File "a.py", line 1, in <module>\n'
        "26/11/24 02:12:35 ERROR train: KeyError: 1\n26/11/24 02:12:35 INFO train: done\n"
    )
    for text in (plain, prefixed):
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


def test_a_traceback_without_its_end() -> None:
    text = 'Traceback (most recent call last):\n  File "a.py", line 7, in <module>\n    main()\n'
    (cause,) = of_driver(text)
    assert cause.summary == 'a Python traceback without its end, last at File "a.py", line 7'
    assert cause.excerpt == tuple(text.splitlines())
    assert cause.last_line == 3


@pytest.mark.parametrize(
    ("last", "summary"),
    [
        ("__main__.main.<locals>.NoRows: no rows", "main.<locals>.NoRows: no rows"),
        ("features.<lambda>.<locals>.NoRows", "features.<lambda>.<locals>.NoRows"),
        ("Überlauf: x", "Überlauf: x"),
        ("пакет.Ошибка: нет строк", "пакет.Ошибка: нет строк"),
    ],
)
def test_all_names_that_python_gives_exceptions(last: str, summary: str) -> None:
    causes = of_driver(PYTHON_FAILURE.replace("KeyError: 'user_id'", last))
    assert [cause.summary for cause in causes] == [summary]
    assert causes[0].excerpt[-1] == last


@pytest.mark.parametrize("line", ["<1% done: waiting", "main.<3>.x: y", "9Rows: x", "<locals>: x"])
def test_lines_that_name_no_exception_do_not_end_a_traceback(line: str) -> None:
    causes = of_driver(PYTHON_FAILURE.replace("KeyError: 'user_id'", line))
    assert [cause.summary for cause in causes] == [
        'a Python traceback without its end, last at File "/data/yarn/container/train.py", line 61'
    ]
