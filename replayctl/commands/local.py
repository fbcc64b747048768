"""local: the embedded stack on this machine: Airflow, MLflow and datasets."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from replayctl import shipped
from replayctl.commands.options import DryRun, Engine
from replayctl.console.result import Block, Fields, Lines, Problem, Result, Status, Table
from replayctl.errors import UsageProblem
from replayctl.settings.context import AppContext

if TYPE_CHECKING:
    from replayctl.local.leftovers import Leftover
    from replayctl.local.state import Stack
    from replayctl.settings.declared import Settings


_KEPT = "keeping the environments, since they are in use by"
_WithEngine = Annotated[Engine, typer.Option(help="Engine of the steps; spark adds its environment and requires Java.")]


def up(ctx: typer.Context, engine: _WithEngine = "embedded", dry_run: DryRun = False) -> Result:
    """Start Airflow and MLflow on this machine, and wait until both are ready.

    A stack that is already running is not changed. Missing or damaged environments are created first, and ports that
    are in use are replaced by free ones.

    \b
    Examples:
      replayctl local up
      replayctl local up --engine spark
    """
    from replayctl.local import stack

    settings = _local_settings(ctx)
    if dry_run:
        from replayctl.local import environments

        states = [
            (f"{name} environment", _state(environments.find_damage(name, settings.cache_dir), "would create"))
            for name in environments.needed(spark=_is_spark(engine, settings))
        ]
        is_running = stack.status(settings).running
        data = {"home": settings.local.home, "environments": dict(states), "running": is_running, "dry_run": True}
        lines = (f"the stack in {settings.local.home} {'is already running' if is_running else 'would be started'}",)
        return Result("local up", data, (Lines(lines), Fields(tuple(states))))
    running = stack.up(settings, ctx.obj.reporter, spark=_is_spark(engine, settings))
    return _result("local up", running, settings, status="nothing-to-do" if running.existed else "ok")


def down(
    ctx: typer.Context,
    purge: Annotated[
        bool,
        typer.Option("--purge", help="Also remove data, results, experiments and environments; asks for confirmation."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Skip the confirmation.")] = False,
    dry_run: DryRun = False,
) -> Result:
    """Stop the local stack, and list what remains on the disk.

    Ends every process of the stack; asks for confirmation if that interrupts a run. With `--purge`, its files are
    removed as well.

    \b
    Examples:
      replayctl local down
      replayctl local down --purge --dry-run
    """
    from replayctl.local import installer, leftovers, stack

    settings = _local_settings(ctx)
    app: AppContext = ctx.obj
    runs = stack.running_runs(settings) if dry_run or not yes else []
    interrupted = [f"this interrupts run {run.run_id} of {run.dag_id}" for run in runs]
    if not dry_run and not yes:
        _confirm(app, settings, interrupted, purge=purge)
    stopped = stack.running_parts(settings) if dry_run else stack.down(settings, app.reporter)
    app.reporter.status("measuring disk usage")
    listing = leftovers.find_leftovers(settings)
    removed = [leftover for leftover in listing if purge and leftover.in_use_by is None]
    kept = [leftover for leftover in listing if leftover not in removed]
    if purge and not dry_run:
        leftovers.purge(settings, removed, app.reporter)
    verb = "would stop" if dry_run else "stopped"
    line = f"{verb} {', '.join(stopped)}" if stopped else "the local stack is not running"
    uv_cache = installer.cache_of_uv()
    data = {
        "stopped": stopped,
        "home": settings.local.home,
        "kept": kept,
        "removed": removed,
        "uv_cache": uv_cache,
        "dry_run": dry_run,
    }
    status: Status = "ok" if stopped or removed else "nothing-to-do"
    verb = "would be removed" if dry_run else "removed"
    view = (Lines((line,)), *_leftovers_view(verb, removed), *_leftovers_view("kept", kept))
    hints = [("remove with", "replayctl local down --purge")] if kept and not purge else []
    if uv_cache:
        command = f"{shlex.quote(shipped.uv_program())} cache clean"
        hints.append(("uv's cache", f"{uv_cache}, shared with your other projects; empty it with: {command}"))
    return Result(
        "local down",
        data,
        (*view, *([Fields(tuple(hints))] if hints else [])),
        status=status,
        warnings=(*(interrupted if dry_run else ()), *(f"{_KEPT} {user}" for user in _users(kept) if purge)),
    )


def _confirm(app: AppContext, settings: Settings, interrupted: Sequence[str], *, purge: bool) -> None:
    from replayctl.local import leftovers

    for warning in interrupted:
        app.reporter.warn(warning)
    if not purge:
        if interrupted:
            app.confirm(f"Stop the stack and interrupt {len(interrupted)} run{'s' if len(interrupted) > 1 else ''}?")
        return
    app.reporter.status("measuring disk usage")
    kept = leftovers.find_leftovers(settings)
    going = [leftover for leftover in kept if leftover.in_use_by is None]
    for leftover in going:
        app.reporter.step(f"{format_bytes(leftover.bytes):>8}  {leftover.path}  ({leftover.purpose})")
    for user in _users(kept):
        app.reporter.step(f"{_KEPT} {user}")
    app.confirm(f"Stop the stack and remove these files, {format_bytes(_total(going))}?")


def _users(kept: Sequence[Leftover]) -> list[str]:
    return list(dict.fromkeys(leftover.in_use_by for leftover in kept if leftover.in_use_by is not None))


def _leftovers_view(verb: str, leftovers: Sequence[Leftover]) -> list[Block]:
    if not leftovers:
        return []
    rows = [(format_bytes(leftover.bytes), str(leftover.path), leftover.purpose) for leftover in leftovers]
    return [
        Table((verb, "path", "content"), rows, numeric=(0,), wrap=(1, 2)),
        Fields((("total", format_bytes(_total(leftovers))),)),
    ]


def status(ctx: typer.Context) -> Result:
    """Show the state and address of each part of the local stack.

    The exit code is 0 when all parts work or the stack is stopped, and 9 when a part has ended or does not answer.

    \b
    Examples:
      replayctl local status
      replayctl local status --output json
    """
    from replayctl.local import stack

    settings = _local_settings(ctx)
    state = stack.status(settings)
    return _result("local status", state, settings, status="ok" if state.running or state.stopped else "partial")


def data(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the data set.")] = "ml100k",
    dry_run: DryRun = False,
) -> Result:
    """Download the raw data of a data set to the local data folder.

    \b
    Examples:
      replayctl local data
      replayctl local data ml100k --dry-run
    """
    from replayctl.local import datasets

    prepared = datasets.prepare(name, _local_settings(ctx), ctx.obj.reporter, dry_run=dry_run)
    verb = (
        "would prepare" if dry_run and not prepared.existed else "already prepared:" if prepared.existed else "prepared"
    )
    line = f"{verb} {prepared.path} ({prepared.rows} interactions)"
    return Result("local data", prepared, (Lines((line,)),), status="nothing-to-do" if prepared.existed else "ok")


def make_environments(ctx: typer.Context, engine: _WithEngine = "embedded", dry_run: DryRun = False) -> Result:
    """Create the Python environments of the stack without starting it.

    Every installed file is checked, and a damaged environment is created again.

    \b
    Examples:
      replayctl local environments
      replayctl local environments --engine spark --dry-run
    """
    from replayctl.local import environments

    settings = _local_settings(ctx)
    spark = _is_spark(engine, settings)
    names = environments.needed(spark=spark)
    ctx.obj.reporter.status("checking every file of the environments")
    damage = {name: environments.find_damage(name, settings.cache_dir, thorough=True) for name in names}
    if not dry_run:
        if spark:
            environments.find_java_home(settings.local.java_home)
        for name in names:
            environments.ensure(name, settings.cache_dir, settings.local.python, ctx.obj.reporter, thorough=True)
    paths = {name: environments.path_of(name, settings.cache_dir) for name in names}
    verb = "would create" if dry_run else "created"
    rows = tuple((name, _state(damage[name], verb), str(paths[name])) for name in paths)
    complete = {name: damage[name] is None for name in paths}
    status: Status = "nothing-to-do" if all(complete.values()) else "ok"
    data = {"environments": paths, "complete": complete, "damage": damage, "dry_run": dry_run}
    return Result(
        "local environments", data, (Table(("environment", "state", "path"), rows, wrap=(1, 2)),), status=status
    )


def format_bytes(size: int) -> str:
    """A size as people write it, in powers of ten."""
    amount, unit = float(size), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if amount < 999.5 or unit == "TB":
            break
        amount /= 1000
    return f"{amount:.0f} {unit}" if unit == "B" or amount >= 10 else f"{amount:.1f} {unit}"


def _total(kept: Sequence[Leftover]) -> int:
    return sum(leftover.bytes for leftover in kept)


def _is_spark(engine: str, settings: Settings) -> bool:
    return "spark" in (engine, settings.deploy.engine)


def _state(damage: str | None, verb: str) -> str:
    """The state of an environment: complete, not created yet (empty text) or damaged."""
    if damage is None:
        return "complete"
    return f"{verb} again: {damage}" if damage else verb


def _local_settings(ctx: typer.Context) -> Settings:
    app: AppContext = ctx.obj
    if app.settings.profile != "local":
        raise UsageProblem(
            f"profile {app.settings.profile!r} does not have an embedded stack",
            hint="pass --profile local",
        )
    return app.settings


def _result(command: str, stack: Stack, settings: Settings, status: Status = "ok") -> Result:
    from replayctl.local.parts import API_SERVER, MLFLOW, USERNAME, password_file
    from replayctl.settings.folders import find_folders

    raw_data = find_folders(settings).data_in_pods
    services = (("mlflow", MLFLOW), ("airflow", API_SERVER))
    data = {
        "home": stack.home,
        "raw_data": raw_data,
        "running": stack.running,
        "services": [{"name": name, "url": stack.url(part)} for name, part in services if stack.url(part)],
        "parts": stack.parts,
        "orphans": stack.orphans,
        "airflow_username": USERNAME,
        "airflow_password_file": password_file(stack.home),
    }
    if stack.stopped:
        return Result(
            command, data, (Lines((f"the local stack is not running (its state is in {stack.home})",)),), status=status
        )
    rows = tuple((part.name, part.problem or "works", part.url, part.pid) for part in stack.parts)
    problems = [Problem("not-ready", f"{part.name} {part.problem}") for part in stack.parts if part.problem]
    if stack.orphans:
        pids = ", ".join(map(str, stack.orphans))
        problems.append(Problem("not-ready", f"orphaned processes of the stack are running: {pids}"))
    if problems:
        problems[-1] = problems[-1]._replace(hint="run `replayctl local up` to restart the stack")
    view = (
        Table(("part", "state", "address", "pid"), rows, wrap=(1,)),
        Fields(
            (
                ("sign in to Airflow as", f"{USERNAME}, password in {password_file(stack.home)}"),
                ("state folder", str(stack.home)),
                ("raw data", str(raw_data)),
                ("stop with", "replayctl local down"),
            )
        ),
    )
    return Result(command, data, view, status=status, problems=tuple(problems))
