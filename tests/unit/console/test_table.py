"""Tables on terminals of any width: nothing is lost without a mark, and what is copied stays whole."""

import datetime
import io
import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from replayctl.console import output, table
from replayctl.console.result import Result, Table
from replayctl.console.times import duration, moment, short_duration, short_moment

ID = "application_1700000000000_0042"
STARTED = datetime.datetime(2030, 11, 25, 19, 2, 3, tzinfo=datetime.UTC)
APPLICATIONS = Table(
    ("application", "state", "name", "started", "took", "user", "uses"),
    [
        (ID, "SUCCEEDED", "two_stage_ml100k_alice.first_level_als", STARTED, duration(709), "alice", None),
        (ID, "RUNNING", "x", STARTED, duration(5.25), "bob", "4096 MB, 2 cores"),
    ],
    numeric=(4,),
    shorten=(2,),
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


Show = Callable[..., str]


@pytest.fixture
def show(monkeypatch: pytest.MonkeyPatch) -> Show:
    def render(shape: Table, columns: int, *, stdout: io.StringIO | None = None) -> str:
        monkeypatch.setenv("COLUMNS", str(columns))
        stream = stdout or Terminal()
        output.Output("human", stdout=stream, stderr=io.StringIO()).show(Result("x", {}, (shape,)))
        return re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())

    return render


@pytest.mark.parametrize(
    ("columns", "columns_shown", "missing"),
    [
        (60, ("state", "name"), "started, took, user, uses"),
        (80, ("state", "name", "started"), "took, user, uses"),
        (100, ("state", "name", "started", "took", "user"), "uses"),
        (200, APPLICATIONS.columns, None),
    ],
)
def test_last_columns_go_as_a_whole_and_are_named(
    show: Show, columns: int, columns_shown: tuple[str, ...], missing: str
) -> None:
    text = show(APPLICATIONS, columns)
    header, *_ = text.splitlines()
    assert header.split() == ["application", *(name for name in columns_shown if name != "application")]
    assert (f"not shown, too narrow: {missing} (" in text) == bool(missing)
    assert text.count(ID) == 2
    assert "SUCCEEDED" in text
    assert max(map(len, text.splitlines()[:4])) <= columns
    assert ("11m 49s" in text and "5.2s" in text) == ("took" in columns_shown)
    assert ("4096 MB, 2 cores" in text) == ("uses" in columns_shown)


def test_a_name_that_is_shortened_keeps_both_ends_and_a_mark(show: Show) -> None:
    text = show(APPLICATIONS, 80)
    assert re.search(r" two_s\w*…\w*l_als ", text), text
    assert "two_stage_ml100k_alice.first_level_als" in show(APPLICATIONS, 200)


def test_pipes_get_exact_values_whatever_the_width(show: Show) -> None:
    first, second = show(APPLICATIONS, 20, stdout=io.StringIO()).splitlines()[1:]
    assert first == f"{ID}\tSUCCEEDED\ttwo_stage_ml100k_alice.first_level_als\t2030-11-25T19:02:03+00:00\t709\talice\t-"
    assert second.split("\t")[4] == "5.2"


def test_an_id_wider_than_the_terminal_is_folded_and_not_cut(show: Show) -> None:
    assert ID in show(APPLICATIONS, 20).replace("\n", "").replace(" ", "")


def test_text_that_may_wrap_is_all_there(show: Show) -> None:
    words = " ".join(f"word{number}" for number in range(40))
    text = show(Table(("setting", "what for"), [("a.setting", words)], wrap=(1,)), 60)
    assert [word for word in text.split() if word.startswith("word")] == words.split()
    path = "/a/very/long/path" * 12
    assert path in re.sub(r"[\n ]", "", show(Table(("x", "path"), [("x", path)], wrap=(1,)), 40))


@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=8),
    st.integers(1, 250),
)
def test_widths_fit_and_are_between_least_and_natural(pairs: list[tuple[int, int]], room: int) -> None:
    natural = [max(pair) for pair in pairs]
    least = [min(pair) for pair in pairs]
    widths = table.fit(natural, least, room)
    assert 1 <= len(widths) <= len(natural)
    if len(widths) > 1 or least[0] <= room:
        assert sum(widths) + 2 * (len(widths) - 1) <= room
        assert all(low <= width <= high for low, width, high in zip(least, widths, natural, strict=False))
    if len(widths) < len(natural):
        # One more would not have fitted.
        count = len(widths) + 1
        assert sum(least[:count]) + 2 * (count - 1) > room


@given(st.text(st.characters(exclude_categories=["C", "M"]), max_size=80), st.integers(3, 90))
def test_what_is_cut_has_a_mark(text: str, width: int) -> None:
    cell = table.shorten(text, width)
    assert cell_len(cell) <= width
    if cell != text:
        head, _, tail = cell.partition("…") if "…" not in text else (cell, "", "")
        assert "…" in cell
        assert text.startswith(head) or "…" in text
        assert text.endswith(tail)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0.0s"), (0, "0.0s"), (4.25, "4.2s"), (9.94, "9.9s"), (9.96, "10s"), (59.4, "59s"), (59.6, "1m 00s"),
        (709, "11m 49s"), (3599.6, "1h 00m"), (3600, "1h 00m"), (11_100, "3h 05m"), (86_400, "1d 00h"),
        (187_000, "2d 03h"),
    ],
)  # fmt: skip
def test_durations_have_their_two_largest_units(seconds: float, text: str) -> None:
    assert short_duration(seconds) == text


def test_moments_are_local_and_tell_the_year_only_when_it_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    import time

    time.tzset()
    try:
        assert short_moment(STARTED, now=STARTED) == "Nov 26 04:02"
        assert short_moment(STARTED, now=STARTED.replace(year=2031)) == "Nov 26  2030"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_moment_that_is_none_is_shown_as_it_is() -> None:
    assert moment("2030-11-25T19:02:03+00:00") == STARTED
    assert moment("yesterday") == "yesterday"
    assert moment(None) is moment("") is None


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"])
def test_a_moment_without_a_local_time_is_shown_as_it_is(show: Show, text: str) -> None:
    assert moment(text) == text
    assert text in show(Table(("uploaded",), [(moment(text),)]), 80)
