"""The program: global options, the list of commands, and the one place where errors become messages and exit codes.

A command is a function in `commands/` that takes `typer.Context` and its options and returns a `Result`; here it gets
its name. `main` renders the result. Nothing below this module prints or exits.

Annotations are not postponed here, because Typer would evaluate those of the root command twice at each start.
"""

import functools
import gc
import os
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Annotated, Any, NoReturn, cast

import typer

from replayctl import __version__
from replayctl.commands import tree
from replayctl.commands.command_line import CommandLine, sort_out
from replayctl.console import output, redaction
from replayctl.console.reporter import StderrReporter
from replayctl.console.result import Block, Problem, Result
from replayctl.console.stream import reader_is_gone, silence
from replayctl.console.trouble import trouble_of
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

_USAGE = 2
# Rich help needs as many columns.
_RICH_COLUMNS = 80


app = typer.Typer(
    name="replayctl",
    help="Deploy, run and understand two-stage recommender experiments on Airflow, Spark and MLflow.",
    cls=tree.Grouped,
    no_args_is_help=True,
    # Commands below inherit it.
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=True,
    pretty_exceptions_enable=False,
)

_FORWARDS = {"list": "forward.list_forwards", "stop": "forward.stop_forwards"}
_LOCAL: Mapping[str, str] = {
    "up": "local.up",
    "down": "local.down",
    "status": "local.status",
    "data": "local.data",
    "environments": "local.make_environments",
}
_RUNS: Mapping[str, str] = {"list": "runs.list_runs", "follow": "runs.follow", "stop": "runs.stop"}
_SETTINGS = {"show": "settings.show", "profiles": "settings.profiles"}
# The groups of the help, in the order in which a user needs them. Functions in `commands/` are named, not imported: a
# call needs one of them.
_COMMANDS: tree.Groups = {
    "Deploy": {
        "init": "scaffold.init",
        "new-dag": "scaffold.new_dag",
        "sync-dags": "dags.sync_dags",
        "releases": "dags.releases",
        "rollback": "dags.rollback",
        "gc": "dags.gc",
        "undeploy": "dags.undeploy",
    },
    "Run": {
        "run": "runs.run",
        "runs": ("List, follow and stop runs.", _RUNS),
        "leaderboard": "leaderboard.leaderboard",
        "mlflow-sync": "mlflow.mlflow_sync",
    },
    "Cluster": {
        "port-forward": "forward.port_forward",
        "airflow-port-forward": "forward.airflow_port_forward",
        "open": "forward.open_page",
        "forwards": ("List and stop background forwards.", _FORWARDS),
        "airflow-config": "airflow.airflow_config",
        "yarn-apps": "yarn.yarn_apps",
        "yarn-logs": "yarn.yarn_logs",
        "yarn-kill": "yarn.yarn_kill",
    },
    "Images and packages": {
        "build-airflow-image": "images.build_airflow_image",
        "push-airflow-image": "images.push_airflow_image",
        "images": "images.images",
        "build-python-env": "python_env.build_python_env",
        "upd-wheels-and-jars": "packages.upd_wheels_and_jars",
    },
    "This machine": {"local": ("Run Airflow and MLflow on this machine, with sample data.", _LOCAL)},
    "Settings": {"settings": ("Show settings, their sources and the profiles.", _SETTINGS)},
}


@app.command("help", rich_help_panel="Settings")
def _help(
    ctx: typer.Context,
    words: Annotated[list[str] | None, typer.Argument(metavar="[COMMAND]...", help="The command's words.")] = None,
) -> None:
    """Show the help of a command, like its option -h."""
    context: Any = ctx.find_root()
    for word in words or ():
        command = context.command
        below = getattr(command, "commands", {}).get(word)
        if below is None:
            if hasattr(command, "resolve_command"):
                # Raises the parser's own error, with the nearest names.
                command.resolve_command(context, [word])
            raise UsageProblem(f"{context.command_path} has no subcommands", hint=f"run `{context.command_path} -h`")
        context = type(context)(below, info_name=word, parent=context)
    typer.echo(context.get_help())


class _Ended(BaseException):
    """A signal ended the program; unwinds like Ctrl-C, so that everything is cleaned up."""

    def __init__(self, exit_code: int) -> None:
        self.exit_code = exit_code


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"replayctl {__version__}")
        raise typer.Exit


def _confirm(question: str) -> None:
    if not sys.stdin.isatty():
        raise UsageProblem(f"cannot ask for confirmation without a terminal: {question}", hint="pass --yes to confirm")
    if not typer.confirm(redaction.clean(question), err=True):
        raise UsageProblem("canceled; nothing was changed")


@app.callback()
def _root(
    ctx: typer.Context,
    profile: Annotated[
        str | None, typer.Option(help="Profile to use; $REPLAYCTL_PROFILE or 'local' by default.", show_default=False)
    ] = None,
    mode: Annotated[
        str, typer.Option("--output", help="Output format: human, or json for one document on stdout.")
    ] = "human",
    verbose: Annotated[
        int, typer.Option("--verbose", "-v", count=True, help="Show more detail; repeatable.", show_default=False)
    ] = 0,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Hide progress: print the result, warnings and errors.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an unexpected error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    # Off since the start: see `__main__`.
    gc.enable()
    if mode not in ("human", "json"):
        raise typer.BadParameter(f"invalid format {mode!r}; choose human or json", param_hint="--output")
    out: output.Output = ctx.obj
    reporter = StderrReporter(verbose, quiet=quiet, progress=mode == "human")
    # Clears the status line before the answer or the error is shown.
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

    def confirm(question: str) -> None:
        reporter.close()
        _confirm(question)

    ctx.obj = AppContext(
        profile=profile,
        reporter=reporter,
        announce=announce,
        show_first=show_first,
        write_log=write_log,
        confirm=confirm,
    )


@functools.cache
def _program() -> Any:
    """The program as it is run; built once.

    Help is rich on a terminal, and plain where programs read it: there rich would cost 0.3 s for nothing. It is plain
    on narrow terminals, too: rich would cut words in its columns.
    """
    is_rich = sys.stdout is not None and sys.stdout.isatty() and shutil.get_terminal_size().columns >= _RICH_COLUMNS
    return program("rich" if is_rich else None)


def program(markup: tree.Markup = None) -> Any:
    """All commands as a tree, for their help and reference as well."""
    return tree.build(app, _COMMANDS, markup)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The console script: ends the process with the command's exit code."""
    sys.exit(run(sys.argv[1:] if argv is None else argv))


def run(argv: Sequence[str]) -> int:
    """Runs one command line and returns its exit code; everything that can be raised becomes a message here."""
    line = sort_out(_program(), argv)
    out = output.Output("json" if line.mode == "json" else "human")
    try:
        code = _run(line, out)
        out.flush()
    except BrokenPipeError:
        # The reader has closed the pipe.
        silence()
        return 0
    except OSError as error:
        silence()
        # On stderr in either form: stdout is what cannot be written.
        problem = Problem("failed", f"cannot write the answer: {error.strerror}")
        output.Output("human").show_error(line.command, problem, OperationFailed.exit_code)
        return OperationFailed.exit_code
    return code


def _run(line: CommandLine, out: output.Output) -> int:
    _install_signal_handlers()
    answered = False
    command = line.command
    try:
        if line.incomplete:
            raise UsageProblem(f"option {line.incomplete} requires a value", hint="run `replayctl --help`")
        answer = _answer(line.words, out, command)
        if not isinstance(answer, Result):
            return answer
        answered = True
        out.show(answer)
        return answer.exit_code
    except ReplayctlError as error:
        out.show_error(command, output.problem_of(error), error.exit_code, error.data)
        return error.exit_code
    except KeyboardInterrupt:
        out.show_error(command, Problem("interrupted", "interrupted"), EXIT_INTERRUPTED)
        return EXIT_INTERRUPTED
    except _Ended as ended:
        out.show_error(command, Problem("interrupted", "terminated by a signal"), ended.exit_code)
        return ended.exit_code
    except Exception as error:
        # Raised again when stdout is closed or full; other pipes and files of the command are handled below.
        unwritten = isinstance(error, OSError) and answered
        if unwritten or (isinstance(error, BrokenPipeError) and reader_is_gone()):
            raise
        if trouble := trouble_of(error):
            out.show_error(command, trouble, OperationFailed.exit_code)
            return OperationFailed.exit_code
        if isinstance(error, UnicodeEncodeError) and any("\ud800" <= sign <= "\udfff" for sign in "".join(line.words)):
            # Such words are good for names of files, which may be any bytes, and for nothing else.
            out.show_error(command, Problem("usage", "an argument has bytes that are not UTF-8"), _USAGE)
            return _USAGE
        # The last resort: a bug becomes one line and a file.
        out.show_error(command, _bug(error, debug=line.debug), EXIT_BUG)
        return EXIT_BUG


def _answer(words: Sequence[str], out: output.Output, command: str) -> Result | int:
    try:
        answer = _program().main(args=list(words), prog_name="replayctl", standalone_mode=False, obj=out)
    except typer.TyperException as error:
        # Usage errors of the parser are shown here, in JSON too.
        usage_error = cast("Any", error)
        if type(error).__name__ == "NoArgsIsHelpError":
            typer.echo(usage_error.format_message(), err=True)
            return _USAGE
        context = getattr(usage_error, "ctx", None)
        where = context.command_path if context else "replayctl"
        hint = f"run `{where} --help`"
        out.show_error(command, Problem("usage", _plain(usage_error.format_message()), hint), _USAGE)
        return _USAGE
    except (typer.Abort, EOFError):
        raise KeyboardInterrupt from None
    except SystemExit as ended:
        # Typer turns any broken pipe into this, silently.
        if isinstance(ended.__context__, BrokenPipeError):
            raise ended.__context__ from None
        raise
    if isinstance(answer, Result):
        return answer
    if answer == EXIT_INTERRUPTED:
        # Typer's exit code for Ctrl-C; it has printed nothing.
        raise KeyboardInterrupt
    return int(answer or 0)


# The longer ones first.
_PARSERS_WORDS = {
    "is not a valid int range": "is not an integer",
    "is not a valid float range": "is not a number",
    "is not a valid int": "is not an integer",
    "is not a valid float": "is not a number",
}


def _plain(message: str) -> str:
    """A message of the parser in the form of ours: no capital at the start, no full stop at the end, plain words."""
    for words, plain in _PARSERS_WORDS.items():
        message = message.replace(words, plain)
    return f"{message[:1].lower()}{message[1:]}".removesuffix(".")


def _install_signal_handlers() -> None:
    def end(number: int, _frame: FrameType | None) -> None:
        raise _Ended(EXIT_TERMINATED if number == signal.SIGTERM else EXIT_HANGUP)

    for number in (signal.SIGTERM, signal.SIGHUP):
        # A signal that our caller ignores, as nohup does, stays ignored.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, end)


def _bug(error: Exception, *, debug: bool) -> Problem:
    import tempfile
    import traceback

    text = redaction.clean("".join(traceback.format_exception(error)))
    kind = type(error).__name__
    message = f"a bug in replayctl: {kind}: {error}"
    try:
        # Made by mkstemp: readable by the user alone.
        descriptor, path = tempfile.mkstemp(prefix="replayctl-bug-", suffix=".txt")
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(f"replayctl {__version__}, Python {sys.version.split()[0]}\n{text}")
    except OSError as unwritten:
        # A full disk must not hide the bug.
        hint = f"report it with this traceback, which could not be saved: {unwritten.strerror}"
        return Problem("bug", message, hint, text)
    return Problem("bug", message, f"report it with {path}", text if debug else None)
