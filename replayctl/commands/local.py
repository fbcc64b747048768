"""local: the embedded stack on this machine, Airflow, MLflow and data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from replayctl.commands.options import DryRun, Engine
from replayctl.console.result import Block, Fields, Lines, Problem, Result, Status, Table
from replayctl.errors import UsageProblem
from replayctl.settings.context import AppContext

if TYPE_CHECKING:
    from replayctl.local.leftovers import Leftover
    from replayctl.local.state import Stack
    from replayctl.settings.declared import Settings


_WithEngine = Annotated[
    Engine, typer.Option(help="What steps will be computed by: spark adds its environment, and needs Java.")
]


def up(ctx: typer.Context, engine: _WithEngine = "embedded", dry_run: DryRun = False) -> Result:
    """Start Airflow and MLflow on this machine; a second call finds the first one's stack."""
    from replayctl.local import stack

    settings = _local_settings(ctx)
    if dry_run:
        from replayctl.local import environments

        made = [
            (f"{name} environment", _state(environments.find_damage(name, settings.cache_dir), "would be made"))
            for name in environments.needed(spark=_is_spark(engine, settings))
        ]
        is_running = stack.status(settings).running
        data = {"home": settings.local.home, "environments": dict(made), "running": is_running, "dry_run": True}
        lines = (f"the stack in {settings.local.home} {'runs already' if is_running else 'would be started'}",)
        return Result("local up", data, (Lines(lines), Fields(tuple(made))))
    running = stack.up(settings, ctx.obj.reporter, spark=_is_spark(engine, settings))
    return _result("local up", running, status="nothing-to-do" if running.found else "ok")


def down(
    ctx: typer.Context,
    purge: Annotated[
        bool, typer.Option("--purge", help="Remove data, results, experiments and environments, too; asks first.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: DryRun = False,
) -> Result:
    """Stop the local stack with everything it has started, and say what stays on the disk.

    \b
    Examples:
      replayctl local down
      replayctl local down --purge --dry-run
    """
    from replayctl.local import leftovers, stack

    settings = _local_settings(ctx)
    app: AppContext = ctx.obj
    if yes and not purge:
        raise UsageProblem("--yes answers what --purge asks", hint="add --purge, or leave --yes out")
    if purge and not dry_run and not yes:
        app.reporter.status("measuring what is on the disk")
        kept = leftovers.find_leftovers(settings)
        for leftover in kept:
            app.reporter.step(f"{format_bytes(leftover.bytes):>8}  {leftover.path}  ({leftover.purpose})")
        app.confirm(f"Stop the stack and remove all of it, {format_bytes(_total(kept))}?")
    stopped = stack.running_parts(settings) if dry_run else stack.down(settings, app.reporter)
    app.reporter.status("measuring what is on the disk")
    kept = leftovers.find_leftovers(settings)
    if purge and not dry_run:
        leftovers.purge(settings, kept, app.reporter)
    would = "would stop" if dry_run else "stopped"
    view: list[Block] = [Lines((f"{would} {', '.join(stopped)}" if stopped else "nothing was running",))]
    verb = ("would be removed" if dry_run else "removed") if purge else "stays"
    if kept:
        rows = [(format_bytes(leftover.bytes), str(leftover.path), leftover.purpose) for leftover in kept]
        view.append(Table((verb, "path", "what it is"), rows, numeric=(0,), wrap=(1, 2)))
        hint = () if purge else (("remove all of it with", "replayctl local down --purge"),)
        view.append(Fields((("together", format_bytes(_total(kept))), *hint)))
    data = {
        "stopped": stopped,
        "home": settings.local.home,
        "kept": () if purge else kept,
        "removed": kept if purge else (),
        "dry_run": dry_run,
    }
    status: Status = "ok" if stopped or (purge and kept) else "nothing-to-do"
    return Result("local down", data, view, status=status)


def status(ctx: typer.Context) -> Result:
    """Show which parts of the local stack work, and where its pages are.

    The exit code is 0 when all of it works or nothing of it runs, and 9 when a part has ended or does not answer.
    """
    from replayctl.local import stack

    state = stack.status(_local_settings(ctx))
    return _result("local status", state, status="ok" if state.running or state.stopped else "partial")


def data(
    ctx: typer.Context, name: Annotated[str, typer.Argument(help="The data set.")] = "ml100k", dry_run: DryRun = False
) -> Result:
    """Prepare the raw data of a data set below the local data root."""
    from replayctl.local import datasets

    prepared = datasets.prepare(name, _local_settings(ctx), ctx.obj.reporter, dry_run=dry_run)
    verb = "would prepare" if dry_run and not prepared.found else "found" if prepared.found else "prepared"
    line = f"{verb} {prepared.path} ({prepared.rows} interactions)"
    return Result("local data", prepared, (Lines((line,)),), status="nothing-to-do" if prepared.found else "ok")


def make_environments(ctx: typer.Context, engine: _WithEngine = "embedded", dry_run: DryRun = False) -> Result:
    """Make the Python environments of the stack without starting anything; damaged ones are made again."""
    from replayctl.local import environments

    settings = _local_settings(ctx)
    spark = _is_spark(engine, settings)
    names = environments.needed(spark=spark)
    damage = {name: environments.find_damage(name, settings.cache_dir, thorough=True) for name in names}
    if not dry_run:
        if spark:
            environments.find_java_home(settings.local.java_home)
        for name in names:
            environments.ensure(name, settings.cache_dir, settings.local.python, ctx.obj.reporter, thorough=True)
    paths = {name: environments.path_of(name, settings.cache_dir) for name in names}
    verb = "would be made" if dry_run else "made"
    rows = tuple((name, _state(damage[name], verb), str(paths[name])) for name in paths)
    whole = {name: damage[name] is None for name in paths}
    status: Status = "nothing-to-do" if all(whole.values()) else "ok"
    data = {"environments": paths, "found": whole, "damage": damage, "dry_run": dry_run}
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
    """How an environment is: whole, never made (an empty text), or damaged."""
    if damage is None:
        return "whole"
    return f"{verb} again: {damage}" if damage else verb


def _local_settings(ctx: typer.Context) -> Settings:
    app: AppContext = ctx.obj
    if app.settings.profile != "local":
        raise UsageProblem(
            f"profile {app.settings.profile!r} has no embedded stack",
            hint="say --profile local, or leave --profile out",
        )
    return app.settings


def _result(command: str, stack: Stack, status: Status = "ok") -> Result:
    from replayctl.local.parts import API_SERVER, MLFLOW, USERNAME, password_file

    services = (("mlflow", MLFLOW), ("airflow", API_SERVER))
    data = {
        "home": stack.home,
        "running": stack.running,
        "services": [{"name": name, "url": stack.url(part)} for name, part in services if stack.url(part)],
        "parts": stack.parts,
        "orphans": stack.orphans,
        "airflow_username": USERNAME,
        "airflow_password_file": password_file(stack.home),
    }
    if stack.stopped:
        return Result(command, data, (Lines((f"nothing runs (state in {stack.home})",)),), status=status)
    rows = tuple((part.name, part.problem or "works", part.url, part.pid) for part in stack.parts)
    problems = [Problem("not-ready", f"{part.name} {part.problem}") for part in stack.parts if part.problem]
    if stack.orphans:
        pids = ", ".join(map(str, stack.orphans))
        problems.append(Problem("not-ready", f"processes of the stack run without their leader: {pids}"))
    if problems:
        problems[-1] = replace(problems[-1], hint="stop the rest and start all of it with: replayctl local up")
    view = (
        Table(("part", "state", "address", "pid"), rows, wrap=(1,)),
        Fields(
            (
                ("sign in to Airflow as", f"{USERNAME}, password in {password_file(stack.home)}"),
                ("state folder", str(stack.home)),
                ("stop with", "replayctl local down"),
            )
        ),
    )
    return Result(command, data, view, status=status, problems=tuple(problems))
