"""What printing must survive: odd numbers, odd characters, closed streams, secrets in unexpected places."""

import io
import json
from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replayctl.console import output, redaction
from replayctl.console.result import Fields, Lines, Result, Table
from replayctl.console.secret import Secret


class Encoded(io.TextIOWrapper):
    """A stream with an encoding, as a terminal's."""

    def __init__(self, encoding: str) -> None:
        super().__init__(io.BytesIO(), encoding=encoding, newline="")

    def text(self) -> str:
        self.flush()
        return self.buffer.getvalue().decode(self.encoding)  # type: ignore[attr-defined]


def as_json(data: object, stream: io.TextIOBase | None = None) -> str:
    stdout = stream or io.StringIO()
    output.Output("json", stdout=stdout, stderr=io.StringIO()).show(Result("x", data, ()))
    return stdout.text() if isinstance(stdout, Encoded) else stdout.getvalue()


def refuse(word: str) -> NoReturn:
    raise AssertionError(f"{word} is not JSON")


@given(st.lists(st.floats()))
def test_numbers_that_json_lacks_become_null(numbers: list[float]) -> None:
    values = json.loads(as_json({"n": numbers}), parse_constant=refuse)["data"]["n"]
    assert [value is None for value in values] == [
        number != number or abs(number) == float("inf") for number in numbers
    ]


@given(st.text(st.characters(categories=["L", "N", "Cs", "So"])), st.sampled_from(["utf-8", "ascii", "koi8-r"]))
def test_every_character_reaches_the_reader_of_json(text: str, encoding: str) -> None:
    assert json.loads(as_json({"t": text}, Encoded(encoding)))["data"]["t"] == text


def test_people_get_an_escape_for_what_their_terminal_lacks() -> None:
    stdout = Encoded("ascii")
    output.Output("human", stdout=stdout, stderr=io.StringIO()).show(Result("x", {}, (Lines(("Дима \udcff",)),)))
    assert stdout.text() == "\\u0414\\u0438\\u043c\\u0430 \\udcff\n"


def test_sets_of_mixed_values_have_one_order() -> None:
    assert output.to_json({1, "a", None}) == output.to_json({None, "a", 1})


def test_a_known_secret_is_masked_wherever_it_turns_up() -> None:
    Secret("correct-horse")
    Secret("correct-horse-battery")
    assert redaction.clean("server: no user with correct-horse-battery") == "server: no user with ***"
    assert "correct-horse" not in as_json({"list": ["say correct-horse"]})


def test_a_known_secret_of_several_lines_leaves_line_ends_where_they_are() -> None:
    Secret("correct-horse\n\nbattery\n")
    cleaner = redaction.LogCleaner()
    assert cleaner.clean("correct-horse\n\nbattery\n") == "***\n\n***\n"
    assert cleaner.clean("after\n") == "after\n"


def test_a_short_secret_does_not_eat_ordinary_words() -> None:
    Secret("on")
    assert redaction.clean("one connection") == "one connection"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("basic validation failed", "basic validation failed"),
        ("Authorization: Basic YWxhZGRpbg==", "Authorization: Basic ***"),
        ('{"authorization": "Token abcdef"}', '{"authorization": "Token ***"}'),
    ],
)
def test_prose_does_not_look_like_a_header(text: str, expected: str) -> None:
    assert redaction.clean(text) == expected


def test_addresses_in_data_lose_their_password() -> None:
    assert "hunter3" not in as_json({"url": "http://me:hunter3@host:1", "deep": [{"x": "ftp://a:hunter3@h"}]})


def test_titles_and_names_from_elsewhere_are_made_harmless() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    view = (Fields((("n\x1b[2J", "v"),)), Table(("c\x1b[2J",), (("v",),), title="t\x1b[2J"))
    stdout = Terminal()
    output.Output("human", stdout=stdout, stderr=io.StringIO()).show(Result("x", {}, view))
    assert "\x1b[2J" not in stdout.getvalue()
