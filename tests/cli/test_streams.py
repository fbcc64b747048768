"""The program among others: closed and full streams, nohup, a status line on a terminal, options at the end."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from replayctl import cli
from replayctl.settings.context import AppContext

ROOT = Path(__file__).parents[2]


def program(body: str, *argv: str) -> list[str]:
    """`settings show` whose settings are read by `body`, with `self` the context."""
    code = (
        "import os, signal, sys, time\n"
        "from replayctl import cli\n"
        "from replayctl.settings.context import AppContext\n"
        "from replayctl.errors import OperationFailed\n"
        "real = AppContext.settings\n"
        f"def read(self):\n    {body}\n    return real.func(self)\n"
        "AppContext.settings = property(read)\n"
        f"cli.main(['settings', 'show', *{argv!r}])\n"
    )
    return [sys.executable, "-c", code]


def shell(line: str) -> subprocess.CompletedProcess[str]:
    line = line.replace("REPLAYCTL", f'"{sys.executable}" -m replayctl')
    return subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_a_broken_connection_is_distinguished_from_a_closed_reader() -> None:
    result = subprocess.run(
        program("raise BrokenPipeError(32, 'to the server')", "--output", "json"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, json.loads(result.stdout)["errors"][0]["code"]) == (70, "bug")


def test_a_closed_stdout_is_not_a_bug() -> None:
    result = shell("REPLAYCTL settings show >&-")
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("mode", ["human", "json"])
def test_an_answer_that_cannot_be_written_is_a_failure_and_no_bug(mode: str) -> None:
    result = shell(f"REPLAYCTL settings show --output {mode} >/dev/full")
    assert result.returncode == 1
    assert result.stderr == "error: cannot write the answer: No space left on device\n"
    assert len(result.stderr.splitlines()) == 1


def test_a_closed_reader_in_json_mode_and_on_failure_is_not_an_error() -> None:
    for words in ("settings show --output json", "--profile nowhere settings show --output json", "--help"):
        result = shell(f'REPLAYCTL {words} | true; exit "${{PIPESTATUS[0]}}"')
        assert (result.returncode in (0, 3), result.stderr) == (True, ""), words


def test_hangups_that_the_caller_ignores_stay_ignored() -> None:
    body = "os.kill(os.getpid(), signal.SIGHUP)"
    command = subprocess.list2cmdline(["exec", sys.executable]) + ' -c "$CODE"'
    result = subprocess.run(
        ["bash", "-c", f"trap '' HUP; {command}"],
        cwd=ROOT,
        env={**os.environ, "CODE": program(body)[-1]},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert subprocess.run(program(body), cwd=ROOT, capture_output=True, check=False).returncode == 129


def on_terminal(command: list[str], columns: int = 80) -> tuple[int, bytes]:
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        environ = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        environ |= {"TERM": "xterm", "NO_COLOR": "1"}
        termios.tcsetwinsize(0, (50, columns))
        os.execve(command[0], command, environ)  # noqa: S606 - no shell is the point
    screen = b""
    try:
        while piece := os.read(terminal, 4096):
            screen += piece
    except OSError:
        # Linux's end of a terminal.
        pass
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), screen


@pytest.mark.parametrize("end", ["raise OperationFailed('it said no')", "pass"])
def test_a_status_line_is_gone_before_the_answer_comes(end: str) -> None:
    code, screen = on_terminal(program(f"self.reporter.status('waiting'); {end}"))
    assert code == (0 if end == "pass" else 1)
    assert screen.rindex(b"\x1b[2K") > screen.index(b"waiting")


@pytest.mark.parametrize("option", ["--output", "--profile"])
def test_an_option_without_its_value_does_not_eat_the_command(capfd: pytest.CaptureFixture[str], option: str) -> None:
    assert cli.run(["settings", "show", option]) == 2
    assert f"option {option} requires a value" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("argv", "is_json"),
    [
        (["settings", "show", "--output", "json", "--output", "human"], False),
        (["--output=human", "settings", "show", "--output=json"], True),
        (["settings", "show", "-vvv", "--output", "json"], True),
        (["settings", "show", "--", "--output", "json"], False),
    ],
)
def test_the_last_mode_before_the_double_dash_counts(
    capfd: pytest.CaptureFixture[str], argv: list[str], is_json: bool
) -> None:
    cli.run(argv)
    assert capfd.readouterr().out.startswith("{") == is_json


def test_settings_keep_their_types_and_hide_passwords_in_addresses(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPLAYCTL_MLFLOW_URL", "http://me:hunter4@host:1")
    monkeypatch.setenv("REPLAYCTL_AIRFLOW_PASSWORD", "hunter5")
    for mode in ("human", "json"):
        cli.run(["settings", "show", "--output", mode])
        out, err = capfd.readouterr()
        assert "hunter4" not in out + err
        assert "hunter5" not in out + err
    values = json.loads(out)["data"]["settings"]
    assert values["local.airflow_port"]["value"] == 8080
    assert values["local.python"]["value"] is None
    assert values["airflow.password"]["value"] == "***"


def test_a_servers_words_do_not_repeat_our_password(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from replayctl.console.secret import Secret
    from replayctl.errors import AuthFailed

    def refuse(_self: AppContext) -> None:
        Secret("open-sesame")
        raise AuthFailed("refused", details="no user has the word open-sesame")

    monkeypatch.setattr(AppContext, "settings", property(refuse))
    for mode in ("human", "json"):
        assert cli.run(["settings", "show", "--output", mode]) == 4
        out, err = capfd.readouterr()
        assert "open-sesame" not in out + err
    assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL


@pytest.mark.parametrize("command", ["", "yarn-logs", "yarn-kill", "gc", "upd-wheels-and-jars", "port-forward"])
@pytest.mark.parametrize(("columns", "is_rich"), [(80, True), (79, False), (60, False)])
def test_help_fits_its_terminal_and_cuts_no_word(command: str, columns: int, is_rich: bool) -> None:
    _, screen = on_terminal([sys.executable, "-m", "replayctl", *command.split(), "--help"], columns)
    text = re.sub(r"\x1b\[[0-9;]*m", "", screen.decode())
    lines = text.splitlines()
    # Examples are commands, and are never wrapped.
    assert all(len(line) <= columns or line.lstrip().startswith("replayctl ") for line in lines)
    assert ("╭" in text) == is_rich
    assert not re.search(r"\w…", text)
