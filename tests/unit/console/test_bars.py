"""Progress bars in logs: what was drawn over is gone, the rest stays."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replayctl.console import output
from replayctl.console.bars import last_state, last_states, without_former_states
from replayctl.console.result import Lines, Result

TQDM = "\r  0%|          | 0/3\r 33%|###       | 1/3\r100%|##########| 3/3\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (TQDM, "100%|##########| 3/3\n"),
        ("a\r\nb\r\n", "a\nb\n"),
        # Spark wipes its bar with blanks before it goes on.
        ("[Stage 0:> (0 + 2) / 2]\r                       \r26/11/25 INFO done\n", "26/11/25 INFO done\n"),
        ("[Stage 0:> (0 + 2) / 2]\r                       \r\n", "[Stage 0:> (0 + 2) / 2]\n"),
        ("epoch 1\r\x1b[Kepoch 2\r\x1b[K\n", "\x1b[Kepoch 2\n"),
        # Keras goes back over its bar.
        ("1/2 [=>.]\b\b\b\b\b\b\b\b\b2/2 [==>]\n", "2/2 [==>]\n"),
        ("bold\b\b\b\bBOLD\b\n", "BOLD\n"),
        ("no bar\n\nat all", "no bar\n\nat all"),
        ("\r\r\r", ""),
    ],
)
def test_the_last_state_is_shown(text: str, expected: str) -> None:
    assert last_states(text) == expected
    assert b"".join(last_state(line + b"\n") for line in text.encode().split(b"\n")) == expected.encode() + b"\n"


@given(st.text(st.sampled_from("ab \r\n\b\x1b"), max_size=40))
def test_lines_stay_lines_and_nothing_is_made_up(text: str) -> None:
    output = last_states(text)
    assert output.count("\n") == text.count("\n")
    assert "\r" not in output
    assert "\b" not in output
    for before, after in zip(text.split("\n"), output.split("\n"), strict=True):
        letters = set(before) & set("ab")
        assert set(after) & set("ab") <= letters
        if "\b" not in before:
            assert bool(set(after) & letters) == bool(letters)


@given(st.lists(st.text(st.sampled_from("ab \r"), max_size=12)))
def test_a_line_that_is_not_over_may_be_shortened_at_any_time(parts: list[str]) -> None:
    pending = b""
    for part in parts:
        pending = without_former_states(pending + part.encode())
        assert pending.count(b"\r") <= 1
    assert last_state(pending) == last_state("".join(parts).encode())


def write(stream: io.StringIO, *data: str, raw: bool = False) -> str:
    out = output.Output("human", stdout=stream, stderr=io.StringIO())
    for chunk in data:
        out.write_log(chunk.encode(), raw)
    out.flush()
    return stream.getvalue()


@given(st.integers(1, len(TQDM)))
def test_a_pipe_gets_the_last_state_however_the_bytes_come(step: int) -> None:
    pieces = [TQDM[start : start + step] for start in range(0, len(TQDM), step)]
    assert write(io.StringIO(), "before\n", *pieces, "after") == "before\n100%|##########| 3/3\nafter\n"


def test_raw_bytes_are_untouched() -> None:
    assert write(io.StringIO(), TQDM, raw=True) == TQDM


def test_a_terminal_sees_a_bar_move_and_keeps_its_last_state() -> None:
    screen = write(Terminal(), "\r 0%|", "\r50%|  password=hunter2\r", "99%|\r", "100%|\nafter\n")
    wipe = "\r\x1b[2K"
    assert screen == f"{wipe}50%|  password=***{wipe}99%|{wipe}100%|\nafter\n"


def test_a_bar_without_end_stays_small_in_memory() -> None:
    out = output.Output("human", stdout=io.StringIO(), stderr=io.StringIO())
    for number in range(20_000):
        out.write_log(b"\r%6d/20000 %s" % (number, b"#" * 500), raw=False)
    assert len(out._log) < 2000
    out.flush()


def test_the_cause_comes_again_on_a_terminal_and_only_after_a_log() -> None:
    result = Result("yarn-logs", {}, (), closing=(Lines(("the cause",)),))
    for stream, log, times in ((Terminal(), b"log\n", 2), (Terminal(), b"", 1), (io.StringIO(), b"log\n", 1)):
        out = output.Output("human", stdout=stream, stderr=io.StringIO())
        out.show_first((Lines(("the cause",)),))
        out.write_log(log, raw=False)
        out.show(result)
        assert stream.getvalue().count("the cause") == times
        assert stream.getvalue().endswith("the cause\n") == (times == 2 or not log)


def test_output_before_the_document_is_not_part_of_it() -> None:
    stdout = io.StringIO()
    out = output.Output("json", stdout=stdout, stderr=io.StringIO())
    out.show_first((Lines(("the cause",)),))
    assert stdout.getvalue() == ""
