"""Starts of replayctl against hello-world programs on the same Typer, by CPU time: `python -m benchmarks help`."""

import os
import pty
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

_HELLO = '''
import typer
app = typer.Typer(rich_markup_mode={markup!r})
@app.command()
def hello(name: str = "world"):
    """Say hello."""
    print(name)
app()
'''
_COUNT = 25
Pairs = Callable[[str, Callable[[], float], Callable[[], float], int, str], None]


def run(scratch: Path, pairs: Pairs) -> None:
    """Prints the ratios of commands and of help, in a pipe and on a terminal."""
    # As on a user's machine: modules are compiled once.
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environ |= {"HOME": str(scratch), "USERNAME_ON_CLUSTER": "bench"}
    program = str(Path(sys.executable).parent / "replayctl")
    plain, rich = scratch / "plain_hello.py", scratch / "rich_hello.py"
    plain.write_text(_HELLO.format(markup=None))
    rich.write_text(_HELLO.format(markup="rich"))

    def piped(*argv: str) -> Callable[[], float]:
        return lambda: _piped(argv, environ)

    def typed(*argv: str) -> Callable[[], float]:
        return lambda: _on_terminal(argv, environ)

    hello = [sys.executable, str(plain)]
    pairs("settings show to hello world", piped(program, "settings", "show"), piped(*hello), _COUNT, "≤ 1.3")
    pairs("help to hello world", piped(program, "--help"), piped(*hello, "--help"), _COUNT, "≤ 1.3")
    pairs(
        "help on a terminal to hello world with rich help",
        typed(program, "--help"),
        typed(sys.executable, str(rich), "--help"),
        _COUNT,
        "≤ 1.1",
    )


def _piped(argv: Sequence[str], environ: dict[str, str]) -> float:
    return _cpu_s(subprocess.Popen(argv, env=environ, stdout=subprocess.DEVNULL))


def _on_terminal(argv: Sequence[str], environ: dict[str, str]) -> float:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(argv, env=environ, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    try:
        while os.read(ours, 1 << 16):
            pass
    except OSError:
        # How Linux reports that the program has ended.
        pass
    os.close(ours)
    return _cpu_s(process)


def _cpu_s(process: subprocess.Popen[bytes]) -> float:
    _, status, usage = os.wait4(process.pid, 0)
    # Set, so that Popen does not wait for it again.
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, process.args
    return usage.ru_utime + usage.ru_stime
