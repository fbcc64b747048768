"""No secret in foreign text reaches the user, whichever way it is shown: canaries in each of them."""

import dataclasses
import io
from pathlib import Path

import pytest

from replayctl import cli
from replayctl.console import output
from replayctl.console.reporter import StderrReporter
from replayctl.console.result import Fields, Lines, Problem, Result, Table
from replayctl.errors import OperationFailed
from replayctl.settings.context import AppContext
from tests.diagnose_logs import of_driver

WORDS = (
    "MYSQL_PASSWORD=c4nary AWS_SECRET_ACCESS_KEY=c4nary fs.s3a.secret.key=c4nary\n"
    '{"refresh_token": "c4nary"} --conf spark.hadoop.fs.s3a.access.key=c4nary\n'
    "-----BEGIN RSA PRIVATE KEY-----\nc4naryAAAA\nc4nary==\n-----END RSA PRIVATE KEY-----"
)


@dataclasses.dataclass(frozen=True)
class Data:
    words: str
    lines: tuple[str, ...]
    conf: dict[str, str]
    api_key: str


RESULT = Result(
    "test",
    Data(WORDS, tuple(WORDS.splitlines()), {"spark.hadoop.fs.s3a.secret.key": "c4nary", "x": WORDS}, "c4nary"),
    (
        Lines(WORDS.splitlines()),
        Fields([("fs.s3a.secret.key", "c4nary"), ("x", WORDS)], title=WORDS),
        Table(("a", WORDS), [("x", WORDS)]),
    ),
    warnings=(WORDS,),
    problems=(Problem("failed", WORDS, WORDS, WORDS),),
)


@pytest.mark.parametrize("mode", ["human", "json"])
def test_answers(mode: output.Mode) -> None:
    stdout, stderr = io.StringIO(), io.StringIO()
    out = output.Output(mode, stdout=stdout, stderr=stderr)
    out.show(RESULT)
    out.announce(RESULT)
    out.show_error("test", Problem("failed", WORDS, WORDS, WORDS), 1)
    out.write_log(f"{WORDS}\n".encode(), raw=False)
    out.flush()
    printed_text = stdout.getvalue() + stderr.getvalue()
    assert "***" in printed_text
    assert "c4nary" not in printed_text


def test_a_log_that_comes_in_small_pieces() -> None:
    stdout = io.StringIO()
    out = output.Output("human", stdout=stdout)
    data = f"{WORDS}\n".encode()
    for start in range(0, len(data), 7):
        out.write_log(data[start : start + 7], raw=False)
    out.flush()
    assert stdout.getvalue().count("\n") == WORDS.count("\n") + 1
    assert "c4nary" not in stdout.getvalue()


def test_progress_messages() -> None:
    stream = io.StringIO()
    reporter = StderrReporter(1, stream=stream)
    for tell in (reporter.step, reporter.note, reporter.warn, reporter.status):
        tell(WORDS)
    assert "***" in stream.getvalue()
    assert "c4nary" not in stream.getvalue()


@pytest.mark.parametrize("mode", ["human", "json"])
def test_errors_and_bugs(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: str
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for error in (OperationFailed(WORDS, hint=WORDS, details=WORDS), RuntimeError(WORDS)):

        def broken(_self: AppContext, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(AppContext, "settings", property(broken))
        cli.run(["settings", "show", "--debug", "--output", mode])
        out, err = capfd.readouterr()
        saved = "".join(path.read_text() for path in tmp_path.glob("replayctl-bug-*.txt"))
        assert "***" in out + err
        assert "c4nary" not in out + err + saved


@pytest.mark.parametrize("mode", ["human", "json"])
def test_settings_of_spark_and_what_is_wrong_with_them(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setenv("REPLAYCTL_YARN_SPARK_CONF", "spark.hadoop.fs.s3a.secret.key=c4nary\nspark.x=1")
    assert cli.run(["settings", "show", "--output", mode]) == 0
    out, err = capfd.readouterr()
    assert "spark.x" in out
    assert "c4nary" not in out + err
    monkeypatch.setenv("REPLAYCTL_YARN_SPARK_CONF", "fs.s3a.secret.key=c4nary")
    assert cli.run(["settings", "show", "--output", mode]) == 3
    out, err = capfd.readouterr()
    assert "c4nary" not in out + err


@pytest.mark.parametrize("mode", ["human", "json"])
def test_causes_of_a_failure(mode: output.Mode) -> None:
    traceback = (
        "Traceback (most recent call last):\n"
        '  File "app.py", line 3, in <module>\n    connect(password="c4nary")\n'
        "ValueError: cannot sign in with MYSQL_PASSWORD=c4nary, {'refresh_token': 'c4nary'}\n"
    )
    causes = of_driver(traceback)
    assert "c4nary" in str(causes)
    stdout = io.StringIO()
    output.Output(mode, stdout=stdout).show(Result("test", {"causes": causes}, (Lines(str(causes).splitlines()),)))
    assert "cannot sign in with" in stdout.getvalue()
    assert "c4nary" not in stdout.getvalue()
