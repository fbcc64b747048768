"""What is printed: one JSON shape, nothing from elsewhere taken for markup, no secret."""

import dataclasses
import datetime
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replayctl.console import output, redaction
from replayctl.console.result import Fields, Lines, Problem, Result, Table
from replayctl.console.secret import Secret
from replayctl.console.secret_names import secret_kind

RESULT = Result(
    "test",
    {"path": Path("/x"), "at": datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC), "names": ("a", "b")},
    (Lines(("[bold]not markup[/bold]",)), Fields((("a", "1"), ("long", "2"))), Table(("x", "y"), (("1\t2", "b\nc"),))),
    warnings=("look",),
    problems=(Problem("failed", "m", "h", "d1\nd2"),),
)


def show(mode: output.Mode, result: Result) -> tuple[str, str]:
    stdout, stderr = io.StringIO(), io.StringIO()
    output.Output(mode, stdout=stdout, stderr=stderr).show(result)
    return stdout.getvalue(), stderr.getvalue()


def test_for_people_the_answer_is_on_stdout_and_the_rest_on_stderr() -> None:
    stdout, stderr = show("human", RESULT)
    assert stdout == "[bold]not markup[/bold]\na:    1\nlong: 2\nx\ty\n1 2\tb c\n"
    assert stderr == "warning: look\nerror: m\n  | d1\n  | d2\nhint: h\n"


def test_for_programs_there_is_one_document_and_nothing_else() -> None:
    stdout, stderr = show("json", RESULT)
    assert stderr == ""
    document = json.loads(stdout)
    assert list(document) == ["schema", "command", "status", "exit_code", "data", "warnings", "errors"]
    assert document["data"] == {"path": "/x", "at": "2026-01-02T00:00:00+00:00", "names": ["a", "b"]}
    assert document["errors"] == [{"code": "failed", "message": "m", "hint": "h", "details": "d1\nd2"}]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text().filter(lambda name: not secret_kind(name)), inner),
    )
)
def test_data_survive_the_envelope(data: object) -> None:
    stdout, _ = show("json", Result("x", {"data": data}, ()))
    assert json.loads(stdout)["data"] == {"data": data}


def test_what_has_no_place_in_json_is_refused_and_not_guessed() -> None:
    with pytest.raises(TypeError, match="object"):
        output.to_json({"x": object()})


def test_secrets_in_data_are_masked() -> None:
    @dataclasses.dataclass
    class Holder:
        password: Secret

    assert output.to_json(Holder(Secret("hunter2"))) == {"password": "***"}
    assert output.to_json(dataclasses.asdict(Holder(Secret("hunter2")))) == {"password": "***"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\x1b[2Jgone\x07", "gone"),
        ("\x1b]0;title\x07x", "]0;titlex"),
        ("a\r\x1b[Kb", "ab"),
        ("tab\tstays\n", "tab\tstays\n"),
        ("http://me:hunter2@host/x", "http://***@host/x"),
        ("Authorization: Bearer abcdefghij.klm", "Authorization: Bearer ***"),
        ('{"password": "hunter2", "x": 1}', '{"password": "***", "x": 1}'),
        ("token=abc&y=1", "token=***&y=1"),
    ],
)
def test_foreign_text_is_made_harmless(text: str, expected: str) -> None:
    assert redaction.clean(text) == expected


@given(st.text())
def test_no_control_character_gets_through(text: str) -> None:
    assert not [
        character
        for character in redaction.clean(text)
        if (ord(character) < 32 and character not in "\t\n") or 127 <= ord(character) < 160
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_tables_on_a_terminal_keep_brackets_and_whole_ids() -> None:
    stdout = Terminal()
    table = Table(("id", "n"), (("[/opt/x] application_1_0001", "1"),), title="[red]t", numeric=(1,))
    output.Output("human", stdout=stdout, stderr=io.StringIO()).show(Result("x", {}, (table,)))
    assert "[/opt/x] application_1_0001" in stdout.getvalue()
    assert "[red]t" in stdout.getvalue()


def test_what_people_copy_is_not_folded_while_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    stdout = Terminal()
    row = (
        "application_1700000000000_0042",
        "a long name of an application",
        "FINISHED, FAILED",
        "2030-01-01T00:00:00Z",
    )
    table = Table(("application", "name", "state", "started"), (row,))
    output.Output("human", stdout=stdout, stderr=io.StringIO()).show(Result("x", {}, (table,)))
    assert row[0] in stdout.getvalue()
