"""The program: global options, the list of commands, and the one place where errors become messages and exit codes.

A command is a function in `commands/` that takes `typer.Context` and its options and returns a `Result`; here it gets
its name. `main` renders the result. Nothing below this module prints or exits.
"""

from __future__ import annotations

import functools
import os
import re
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Annotated, Any, NoReturn, cast

import typer

from replayctl import __version__
from replayctl.commands import dags, forward, leaderboard, local, runs, scaffold, settings, yarn
from replayctl.console import output, redaction
from replayctl.console.reporter import StderrReporter
from replayctl.console.result import Block, Problem, Result
from replayctl.console.stream import reader_is_gone, silence
from replayctl.errors import (
    EXIT_BUG,
    EXIT_HANGUP,
    EXIT_INTERRUPTED,
    EXIT_TERMINATED,
    OperationFailed,
    ReplayctlError,
    UsageProblem,
)
from replayctl.settings.context import AppContext

_FLAGS = r"-v+|--verbose|-q|--quiet|--debug"
_OPTIONS = ("--output", "--profile")
_USAGE = 2

app = typer.Typer(
    name="replayctl",
    help="Deploy, run and understand two-stage recommender experiments on Airflow, Spark and MLflow.",
    no_args_is_help=True,
    add_completion=True,
    # Plain help: the rich one costs 0.2 s at each start.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("init")(scaffold.init)
app.command("new-dag")(scaffold.new_dag)
app.command("sync-dags")(dags.sync_dags)
app.command("releases")(dags.releases)
app.command("rollback")(dags.rollback)
app.command("gc")(dags.gc)
app.command("undeploy")(dags.undeploy)
app.command("run")(runs.run)
app.command("leaderboard")(leaderboard.leaderboard)

app.command("yarn-apps")(yarn.yarn_apps)
app.command("yarn-logs")(yarn.yarn_logs)
app.command("yarn-kill")(yarn.yarn_kill)
app.command("port-forward")(forward.port_forward)
app.command("open")(forward.open_page)
app.command("airflow-port-forward")(forward.airflow_port_forward)

_forwards = typer.Typer(help="Forwards that run in the background.", no_args_is_help=True)
_forwards.command("list")(forward.list_forwards)
_forwards.command("stop")(forward.stop_forwards)
app.add_typer(_forwards, name="forwards")

_local = typer.Typer(help="The embedded stack: Airflow, MLflow and data on this machine.", no_args_is_help=True)
_local.command("up")(local.up)
_local.command("down")(local.down)
_local.command("status")(local.status)
_local.command("data")(local.data)
_local.command("environments")(local.make_environments)
app.add_typer(_local, name="local")

_settings = typer.Typer(help="What is set, and where it comes from.", no_args_is_help=True)
_settings.command("show")(settings.show)
_settings.command("profiles")(settings.profiles)
app.add_typer(_settings, name="settings")


class _Ended(BaseException):
    """A signal asked for the end; unwinds like Ctrl-C, so that everything is cleaned up."""

    def __init__(self, exit_code: int) -> None:
        self.exit_code = exit_code


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"replayctl {__version__}")
        raise typer.Exit


def _confirm(question: str) -> None:
    if not sys.stdin.isatty():
        raise UsageProblem(f"{question} Nobody can be asked here", hint="say --yes")
    if not typer.confirm(redaction.clean(question), err=True):
        raise UsageProblem("nothing was done")


@app.callback()
def _root(
    ctx: typer.Context,
    profile: Annotated[
        str | None, typer.Option(help="The profile to work with; REPLAYCTL_PROFILE, or 'local'.", show_default=False)
    ] = None,
    mode: Annotated[str, typer.Option("--output", help="human, or json: one document on stdout.")] = "human",
    verbose: Annotated[int, typer.Option("--verbose", "-v", count=True, help="Say more of what is done.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only the answer, warnings and errors.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the whole traceback of an unexpected error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    if mode not in ("human", "json"):
        raise typer.BadParameter(f"{mode!r} is neither human nor json", param_hint="--output")
    out: output.Output = ctx.obj
    reporter = StderrReporter(verbose, quiet=quiet, progress=mode == "human")
    # A status line that is still shown goes before the answer or the error comes.
    ctx.call_on_close(reporter.close)

    def announce(result: Result) -> None:
        reporter.close()
        out.announce(result)

    def show_first(blocks: Sequence[Block]) -> None:
        reporter.close()
        out.show_first(blocks)

    def write_log(data: bytes, raw: bool) -> None:
        reporter.close()
        out.write_log(data, raw)

    ctx.obj = AppContext(
        profile=profile,
        reporter=reporter,
        announce=announce,
        show_first=show_first,
        write_log=write_log,
        confirm=_confirm,
    )


def lift_global_options(argv: Sequence[str]) -> list[str]:
    """The arguments with the global options in front, where Typer wants them and people do not type them.

    What follows `--` is left alone.
    """
    lifted: list[str] = []
    rest: list[str] = []
    words = iter(argv)
    for word in words:
        if word == "--":
            rest += [word, *words]
        elif re.fullmatch(_FLAGS, word) or word.startswith(tuple(f"{option}=" for option in _OPTIONS)):
            lifted.append(word)
        elif word in _OPTIONS:
            value = next(words, None)
            # Without a value it stays last: in front it would take the command for its value.
            if value is None:
                rest.append(word)
            else:
                lifted += [word, value]
        else:
            rest.append(word)
    return [*lifted, *rest]


@functools.cache
def _program() -> Any:
    """The commands as a tree; made once, because the making costs as much as half of Typer's import."""
    return typer.main.get_command(app)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The console script: ends the process with the command's exit code."""
    sys.exit(run(sys.argv[1:] if argv is None else argv))


def run(argv: Sequence[str]) -> int:
    """Runs one command line and returns its exit code; everything that can be raised becomes a message here."""
    words = lift_global_options(argv)
    out = output.Output("json" if _wants_json(words) else "human")
    try:
        code = _run(words, out, _command_name(words))
        out.flush()
    except BrokenPipeError:
        # Whoever read our answer has seen enough.
        silence()
        return 0
    except OSError as error:
        silence()
        StderrReporter().warn(f"the answer cannot be written: {error.strerror}")
        return OperationFailed.exit_code
    return code


def _run(words: Sequence[str], out: output.Output, command: str) -> int:
    _install_signal_handlers()
    answered = False
    try:
        _check_values_of_global_options(words)
        answer = _answer(words, out, command)
        if not isinstance(answer, Result):
            return answer
        answered = True
        out.show(answer)
        return answer.exit_code
    except ReplayctlError as error:
        out.show_error(command, output.problem_of(error), error.exit_code)
        return error.exit_code
    except KeyboardInterrupt:
        out.show_error(command, Problem("interrupted", "interrupted"), EXIT_INTERRUPTED)
        return EXIT_INTERRUPTED
    except _Ended as ended:
        out.show_error(command, Problem("interrupted", "asked to end by a signal"), ended.exit_code)
        return ended.exit_code
    except Exception as error:
        # Our own reader may be gone or full; a pipe or file of the command's that fails is another matter.
        unwritten = isinstance(error, OSError) and answered
        if unwritten or (isinstance(error, BrokenPipeError) and reader_is_gone()):
            raise
        # The last resort: a bug becomes one line and a file.
        out.show_error(command, _bug(error, debug="--debug" in words), EXIT_BUG)
        return EXIT_BUG


def _answer(words: Sequence[str], out: output.Output, command: str) -> Result | int:
    try:
        answer = _program().main(args=list(words), prog_name="replayctl", standalone_mode=False, obj=out)
    except typer.TyperException as error:
        # Usage errors of the parser: ours to show, in JSON too.
        shown = cast("Any", error)
        if type(error).__name__ == "NoArgsIsHelpError":
            typer.echo(shown.format_message(), err=True)
            return _USAGE
        context = getattr(shown, "ctx", None)
        where = context.command_path if context else "replayctl"
        hint = f"see: {where} --help"
        out.show_error(command, Problem("usage", shown.format_message(), hint), _USAGE)
        return _USAGE
    except (typer.Abort, EOFError):
        raise KeyboardInterrupt from None
    except SystemExit as ended:
        # What Typer makes of any broken pipe, silently.
        if isinstance(ended.__context__, BrokenPipeError):
            raise ended.__context__ from None
        raise
    if isinstance(answer, Result):
        return answer
    if answer == EXIT_INTERRUPTED:
        # Typer's word for Ctrl-C; it has printed nothing.
        raise KeyboardInterrupt
    return int(answer or 0)


def _check_values_of_global_options(words: Sequence[str]) -> None:
    if words and words[-1] in _OPTIONS and "--" not in words:
        raise UsageProblem(f"option {words[-1]} needs a value", hint="see: replayctl --help")


def _wants_json(words: Sequence[str]) -> bool:
    """Whether the last word on --output, before `--`, is json: the same one counts for Typer."""
    mode = ""
    options = iter(words)
    for word in options:
        if word == "--":
            break
        if word == "--output":
            mode = next(options, "")
        elif word.startswith("--output="):
            mode = word.partition("=")[2]
    return mode == "json"


def _command_name(words: Sequence[str]) -> str:
    """The command's words, for the envelope of a failure: options and their values are no part of it."""
    names: list[str] = []
    level = _program()
    skip = False
    for word in words:
        if skip or word.startswith("-"):
            skip = word in _OPTIONS
            continue
        level = getattr(level, "commands", {}).get(word)
        if level is None:
            break
        names.append(word)
    return " ".join(names) or "replayctl"


def _install_signal_handlers() -> None:
    def end(number: int, _frame: FrameType | None) -> None:
        raise _Ended(EXIT_TERMINATED if number == signal.SIGTERM else EXIT_HANGUP)

    for number in (signal.SIGTERM, signal.SIGHUP):
        # Ignored by our caller, as nohup does it, it stays ignored.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, end)


def _bug(error: Exception, *, debug: bool) -> Problem:
    import tempfile
    import traceback

    text = redaction.clean("".join(traceback.format_exception(error)))
    # Made by mkstemp: readable by the user alone.
    descriptor, path = tempfile.mkstemp(prefix="replayctl-bug-", suffix=".txt")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(f"replayctl {__version__}, Python {sys.version.split()[0]}\n{text}")
    kind = type(error).__name__
    message = f"a bug in replayctl: {kind}: {error}"
    return Problem("bug", message, f"please report it with {path}", text if debug else None)
