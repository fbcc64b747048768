"""The story on stderr: what is said where, and how far long work is."""

import io
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from rich.live import Live

from replayctl.console import reporter as reporters
from replayctl.console.reporter import StderrReporter
from tests.reporters import RecordingReporter


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def terminal_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")


def waiting(stream: io.StringIO, **options: bool) -> str:
    reporter = StderrReporter(stream=stream, **options)  # type: ignore[arg-type]
    for number in range(5):
        reporter.status(f"waiting {number}")
    reporter.step("done")
    reporter.note("hidden")
    reporter.warn("look")
    return stream.getvalue()


def test_a_status_takes_one_line_of_a_terminal_and_is_gone_in_the_end() -> None:
    screen = waiting(Terminal())
    # Nothing but the story itself makes a line.
    assert screen.replace("\r\n", "\n").count("done\n") == 1
    assert screen.rindex("\x1b[2K") < screen.index("done")
    assert screen.rindex("\x1b[?25h") < screen.index("done"), "the cursor is back"


def test_a_line_of_another_thread_leaves_no_status_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    reporter = StderrReporter(1, stream=screen)
    another = threading.Thread(target=reporter.note, args=("note",))
    start = Live.start

    def start_late(live: Live, refresh: bool = False) -> None:
        another.start()
        another.join(0.2)
        start(live, refresh)

    monkeypatch.setattr(Live, "start", start_late)
    threads = threading.active_count()
    reporter.status("waiting")
    another.join(10)
    assert screen.getvalue().rindex("\x1b[?25h") > screen.getvalue().rindex("\x1b[?25l"), "the cursor is back"
    assert screen.getvalue().endswith("note\n")
    deadline = time.monotonic() + 10
    while threading.active_count() > threads:
        assert time.monotonic() < deadline, "the status is still drawn"
        time.sleep(0.01)


@pytest.mark.parametrize("kind", ["dumb", "pipe", "ascii"])
def test_elsewhere_it_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    stream = io.StringIO() if kind == "pipe" else Terminal()
    if kind == "dumb":
        monkeypatch.setenv("TERM", "dumb")
    if kind == "ascii":
        monkeypatch.setattr(stream, "encoding", "ascii", raising=False)
    output = waiting(stream)
    assert output.count("waiting") == 1
    assert "done" in output
    assert "hidden" not in output
    assert "\x1b" not in output


class Clock:
    """Time that passes when a thread pauses; after `ticks` pauses the thread ends."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, ticks: int) -> None:
        self.now, self.ticks = 100.0, ticks
        monkeypatch.setattr(reporters.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(reporters.threading, "Thread", self.thread)

    def thread(self, *, target: Callable[[], None], **_options: Any) -> "Clock":
        self.target = target
        return self

    def start(self) -> None:
        """Not by itself: `run` runs it."""

    def run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def wait(_event: object, seconds: float) -> None:
            self.ticks -= 1
            self.now += seconds
            if self.ticks < 0:
                raise EOFError

        monkeypatch.setattr(reporters.threading.Event, "wait", wait)
        with pytest.raises(EOFError):
            self.target()


def test_a_long_wait_gives_a_sign_of_life_every_ten_seconds_until_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    clock = Clock(monkeypatch, 35)
    reporter = StderrReporter(stream=stream)
    reporter.status("installing packages")
    clock.run(monkeypatch)
    assert stream.getvalue().splitlines() == [f"[{s:7.1f}s] … installing packages" for s in (0, 10, 20, 30)]
    reporter.step("installed")
    clock.ticks = 35
    clock.run(monkeypatch)
    assert stream.getvalue().splitlines()[4:] == ["[   36.0s] installed"]


def test_the_clock_of_a_status_continues_between_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporters, "_TICK_S", 0.01)
    drawn = threading.Event()

    class Drawn(Terminal):
        def write(self, text: str) -> int:
            if "99.0s" in text:
                drawn.set()
            return super().write(text)

    now = 0.0
    monkeypatch.setattr(reporters.StderrReporter, "_clock", lambda _self: f"[{now:7.1f}s]")
    reporter = StderrReporter(stream=Drawn())
    reporter.status("waiting")
    now = 99.0
    assert drawn.wait(30), "the line was not drawn again"
    reporter.close()


def test_quiet_leaves_warnings_and_json_leaves_the_story() -> None:
    assert "look" in waiting(io.StringIO(), quiet=True)
    assert "done" not in waiting(io.StringIO(), quiet=True)
    output = waiting(io.StringIO(), progress=False)
    assert "waiting" not in output
    assert "done" in output


def test_a_bar_says_what_how_much_and_how_long_still(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    now = 100.0
    monkeypatch.setattr(reporters.time, "monotonic", lambda: now)
    with StderrReporter(stream=stream).progress("uploading [red]a.jar", 300_000_000, "bytes") as advance:
        for _ in range(3):
            now += 1
            advance(50_000_000)
    screen = stream.getvalue()
    assert "uploading [red]a.jar" in screen
    assert "150.0/300.0 MB" in screen
    assert "50.0 MB/s" in screen
    assert "00:03" in screen


def test_short_work_has_no_bar() -> None:
    stream = Terminal()
    with StderrReporter(stream=stream).progress("sending", 10) as advance:
        advance(10)
    assert stream.getvalue() == ""


def test_a_log_gets_a_line_of_progress_every_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    reporter = StderrReporter(stream=stream)
    now = 100.0
    monkeypatch.setattr(reporters.time, "monotonic", lambda: now)
    with reporter.progress("installing", 40) as advance:
        for _ in range(30):
            now += 1
            advance(1)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[0].endswith("… installing: 10 of 40, 30 s left")


def test_a_story_that_nobody_hears_stops_nothing() -> None:
    class Gone(Terminal):
        def write(self, _text: str) -> int:
            raise BrokenPipeError

    for stream in (Gone(), io.StringIO()):
        reporter = StderrReporter(1, stream=stream)
        for say in (reporter.step, reporter.note, reporter.warn, reporter.status):
            say("hello")
        with reporter.progress("sending", 10) as advance:
            advance(10)
        reporter.close()


def test_a_recording_keeps_what_was_done() -> None:
    reporter = RecordingReporter()
    with reporter.progress("sending", 10, "bytes") as advance:
        advance(4)
        advance(6)
    assert reporter.messages("progress") == ["sending: 10 of 10 bytes"]


def test_nobody_is_asked_without_a_terminal_nor_for_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("an answer\n"))
    assert StderrReporter(stream=Terminal()).ask("who? ", False) is None
    terminal = Terminal("an answer\n")
    monkeypatch.setattr("sys.stdin", terminal)
    assert StderrReporter(stream=Terminal(), progress=False).ask("who? ", False) is None
    assert StderrReporter(stream=io.StringIO()).ask("who? ", False) is None
    assert terminal.tell() == 0


def test_a_question_is_asked_in_a_line_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Terminal("alice\n"))
    stream = Terminal()
    reporter = StderrReporter(stream=stream)
    reporter.status("waiting")
    assert reporter.ask("who\x1b[2J? ", False) == "alice"
    assert "\x1b[2J" not in stream.getvalue()
    assert stream.getvalue().index("\x1b[2K") < stream.getvalue().index("who")
    # Ctrl-D, after which a line of its own begins.
    assert reporter.ask("again? ", False) == ""
    assert stream.getvalue().endswith("again? \n")
