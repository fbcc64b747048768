"""Which release a run goes on with."""

from types import SimpleNamespace
from typing import Any

import pytest

from dags.run_notes import RunNotes

OLD, NEW, NEWER = "r_" + "0" * 16, "r_" + "1" * 16, "r_" + "2" * 16


def notes(*values: dict[str, Any], try_number: int = 1, clear_number: int = 0) -> RunNotes:
    instance = SimpleNamespace(try_number=try_number, xcom_pull=lambda task_ids, key: list(values))
    return RunNotes.read(instance, SimpleNamespace(clear_number=clear_number), ["a", "b"])


def note(task: str, release: str, at: int, clear: int = 0) -> dict[str, Any]:
    when = f"2026-01-01T00:00:{at:02}+00:00"
    return {"task": task, "release": release, "clear": clear, "at": when, "identity": "i", "artifact": "/a"}


def test_the_first_task_takes_what_is_published() -> None:
    assert notes().release(NEW) == NEW


def test_later_tasks_and_retries_go_on_with_what_the_run_began_with() -> None:
    assert notes(note("a", OLD, 1)).release(NEW) == OLD
    assert notes(note("a", OLD, 1), try_number=2).release(NEW) == OLD


def test_a_cleared_task_takes_what_is_published_and_the_others_follow_it() -> None:
    before = note("a", OLD, 1)
    assert notes(before, try_number=2, clear_number=1).release(NEW) == NEW
    after = note("b", NEW, 5, clear=1)
    assert notes(before, after, clear_number=1).release(NEWER) == NEW
    assert notes(before, after, try_number=2, clear_number=1).release(NEWER) == NEW
    assert notes(before, after, try_number=2, clear_number=2).release(NEWER) == NEWER


def test_a_task_that_was_never_tried_goes_on_though_another_was_cleared() -> None:
    assert notes(note("a", OLD, 1), try_number=1, clear_number=1).release(NEW) == OLD


@pytest.mark.parametrize("value", [None, "x", {}, {**note("a", OLD, 1), "release": "../../etc"}, {"task": "a"}])
def test_malformed_notes_are_ignored(value: Any) -> None:
    assert notes(value).release(NEW) == NEW
