"""Logs of any form and length: no exceptions, no long delays, little memory."""

import tracemalloc
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from time import perf_counter, process_time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replayctl.logs.diagnose import Diagnosis, from_diagnostics
from tests.diagnose_logs import (
    AM_FAILED,
    DRIVER,
    DRIVER_NOISE,
    EXECUTOR,
    JAVA_FAILURE,
    PY4J_FAILURE,
    PYTHON_FAILURE,
    UDF_FAILURE,
    diagnosed,
)


def test_empty() -> None:
    assert Diagnosis().causes() == []
    assert diagnosed((DRIVER, "stdout", "")) == []


def test_one_endless_line() -> None:
    diagnosis = Diagnosis()
    started = perf_counter()
    diagnosis.feed("java.lang.OutOfMemoryError: " + "a.B" * 10_000_000)
    for unit in ("a.", "Error ", "Exception: ", "Lost task 1 in stage 1 (TID ", "[2026-11-24 02:12:34 ", "\x1b[", "1 "):
        diagnosis.feed("26/11/24 02:12:34 ERROR " + unit * 1_000_000 + "xception rror")
        diagnosis.feed("xception rror exit " + unit * 1_000_000)
    assert perf_counter() - started < 5
    causes = diagnosis.causes()
    assert causes[0].summary.startswith("java.lang.OutOfMemoryError: a.Ba.B")
    assert len(causes[0].summary) <= 300
    assert all(len(line) <= 500 for line in causes[0].excerpt)


def test_control_characters_and_invalid_text() -> None:
    text = (
        "\r[Stage 3:====>   (1 + 1) / 2]\r\x1b[31mTraceback (most recent call last):\x1b[0m\n"
        '  File "a.py", line 1, in \x07f\n'
        "ValueError: bad \x1b]0;title\x07 \udce9\u202e text\n"
    )
    diagnosis = Diagnosis()
    for line in text.split("\n"):
        diagnosis.feed(line)
    (cause,) = diagnosis.causes()
    for part in (cause.summary, *cause.excerpt):
        assert part.isprintable(), part
        part.encode()
    assert cause.summary.startswith("ValueError: bad ")


def test_a_container_that_begins_within_a_traceback() -> None:
    diagnosis = Diagnosis()
    diagnosis.start_file(EXECUTOR, "stderr")
    for line in UDF_FAILURE.splitlines()[:5]:
        diagnosis.feed(line)
    diagnosis.start_file(DRIVER, "stdout")
    diagnosis.feed("KeyError: 'not of that traceback'")
    for line in PYTHON_FAILURE.splitlines():
        diagnosis.feed(line)
    causes = diagnosis.causes()
    assert [cause.container for cause in causes] == [DRIVER, EXECUTOR]
    assert causes[0].summary == "KeyError: 'user_id'"
    assert causes[0].first_line == 3
    assert causes[1].summary.startswith("a Python traceback without its end")


def test_asking_twice_and_for_fewer() -> None:
    diagnosis = Diagnosis()
    for line in (PYTHON_FAILURE + PY4J_FAILURE).splitlines():
        diagnosis.feed(line)
    assert diagnosis.causes() == diagnosis.causes()
    assert len(diagnosis.causes()) == 2
    assert len(diagnosis.causes(limit=1)) == 1
    assert diagnosis.causes(limit=0) == []


def stored(thing: Any) -> int:
    """The characters that an object holds on to, itself included."""
    if isinstance(thing, str):
        return len(thing)
    if isinstance(thing, dict):
        return sum(stored(key) + stored(value) for key, value in thing.items())
    if is_dataclass(thing) and not isinstance(thing, type):
        return sum(stored(getattr(thing, attribute.name)) for attribute in fields(thing))
    if isinstance(thing, Iterable) and not isinstance(thing, bytes):
        return sum(stored(part) for part in thing)
    return sum(stored(value) for value in vars(thing).values()) if hasattr(thing, "__dict__") else 0


PIECES = st.sampled_from(
    [
        *PYTHON_FAILURE.splitlines(),
        *DRIVER_NOISE.splitlines(),
        *UDF_FAILURE.splitlines(),
        *PY4J_FAILURE.splitlines(),
        *JAVA_FAILURE.splitlines(),
        *AM_FAILED.splitlines(),
        "The above exception was the direct cause of the following exception:",
        "During handling of the above exception, another exception occurred:",
        "Caused by: ",
        ": ",
        "\tCaused by: Traceback (most recent call last):",
        "Killed",
        "",
    ]
)


LINES = st.one_of(PIECES, st.text(max_size=80), st.tuples(PIECES, st.text(max_size=20)).map("".join))


@settings(deadline=None, max_examples=400)
@given(st.lists(st.one_of(LINES, st.tuples(st.text(max_size=10), st.text(max_size=10))), max_size=60))
def test_nothing_that_is_fed_raises(lines: list[str | tuple[str, str]]) -> None:
    diagnosis = Diagnosis()
    for line in lines:
        if isinstance(line, tuple):
            diagnosis.start_file(*line)
        else:
            diagnosis.feed(line)
        assert stored(diagnosis) < 1_500_000
    causes = diagnosis.causes()
    assert len({cause.summary for cause in causes}) == len(causes) <= 5
    assert [cause.rank for cause in causes] == sorted(cause.rank for cause in causes)
    for cause in causes:
        assert cause.summary.isprintable()
        assert len(cause.excerpt) <= 30
        assert 1 <= cause.first_line <= cause.last_line <= len(lines)
    from_diagnostics("\n".join(line for line in lines if isinstance(line, str)))


@settings(deadline=None, max_examples=300)
@given(st.text())
def test_any_diagnostics_are_read(text: str) -> None:
    cause = from_diagnostics(text)
    assert cause is None or cause.summary


def test_memory_stays_flat() -> None:
    def lines() -> Iterable[str]:
        for number in range(2_000):
            for step in range(11):
                yield f"26/11/24 02:12:34 INFO Executor: Running step {step} of task {number} {'without news ' * 20}"
            yield f"26/11/24 02:12:34 ERROR Executor: Exception in task {number}"
            yield f"x.y.Z{chr(97 + number % 26) * (number % 300)}Exception: {'long ' * 300}"
            yield f"\tat a.B.c(B.java:{number})"
            yield f"Caused by: x.y.Other{chr(97 + number % 26) * (number % 200)}Exception: {'m' * 3_000}"
            yield "\tat a.B.c(B.java:1)"
            yield "Traceback (most recent call last):"
            yield f'  File "{"p" * 2_000}.py", line {number}, in f'
            yield f"Some{chr(97 + number % 26) * (number % 100)}Error: {number}"
            yield "The above exception was the direct cause of the following exception:"

    diagnosis = Diagnosis()
    count = 0
    tracemalloc.start()
    try:
        for line in lines():
            if count % 200 == 0:
                diagnosis.start_file(f"container_1_2_01_{count:06}", "stderr")
            diagnosis.feed(line)
            count += 1
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 40_000
    assert peak < 16_000_000
    assert stored(diagnosis) < 1_500_000
    assert len(diagnosis.causes()) == 5


def test_a_chain_without_end_stays_small() -> None:
    diagnosis = Diagnosis()
    diagnosis.feed("java.lang.IllegalStateException: first")
    for number in range(50_000):
        diagnosis.feed(f"Caused by: a.b.C{number}Exception: {'m' * 1_000}")
    assert stored(diagnosis) < 1_500_000
    assert diagnosis.causes()[0].summary.startswith("a.b.C49999Exception: mmm")


@pytest.mark.parametrize(
    "unit",
    [
        "x",
        " ",
        "job ",
        "exceed",
        "unknown ",
        "application killed by ",
        "killed by YARN for exceeding memory limits " + "1" * 3_900 + "\n",
    ],
)
def test_long_diagnostics_are_read_quickly(unit: str) -> None:
    text = unit * (200_000 // len(unit))

    def seconds() -> float:
        started = process_time()
        from_diagnostics(text)
        return process_time() - started

    # What else the machine does can only add to it.
    assert min(seconds() for _ in range(3)) < 0.3
