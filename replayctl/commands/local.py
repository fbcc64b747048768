"""local: the embedded stack on this machine, Airflow, MLflow and data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from replayctl.commands.options import DryRun
from replayctl.console.result import Fields, Lines, Result, Status, Table
from replayctl.errors import UsageProblem
from replayctl.settings.context import AppContext

if TYPE_CHECKING:
    from replayctl.local.stack import Stack
    from replayctl.settings.declared import Settings


def up(ctx: typer.Context, dry_run: DryRun = False) -> Result:
    """Start Airflow and MLflow on this machine; a second call finds the first one's stack."""
    from replayctl.local import stack

    settings = _local_settings(ctx)
    if dry_run:
        from replayctl.local import environments

        made = [
            (
                f"{name} environment",
                "made already" if environments.is_made(name, settings.cache_dir) else "would be made",
            )
            for name in environments.NAMES
        ]
        is_running = stack.status(settings).running
        data = {"home": settings.local.home, "environments": dict(made), "running": is_running, "dry_run": True}
        lines = (f"the stack in {settings.local.home} {'runs already' if is_running else 'would be started'}",)
        return Result("local up", data, (Lines(lines), Fields(tuple(made))))
    running = stack.up(settings, ctx.obj.reporter)
    return _result("local up", running, status="nothing-to-do" if running.found else "ok")


def down(ctx: typer.Context, dry_run: DryRun = False) -> Result:
    """Stop the local stack with everything it has started; its data stays."""
    from replayctl.local import stack

    settings = _local_settings(ctx)
    stopped = stack.status(settings).services if dry_run else stack.down(settings, ctx.obj.reporter)
    names = [service.name for service in stopped]
    verb = "would stop" if dry_run else "stopped"
    line = f"{verb} {', '.join(names)}" if names else "nothing was running"
    data = {"stopped": names, "home": settings.local.home, "dry_run": dry_run}
    return Result("local down", data, (Lines((line,)),), status="ok" if names else "nothing-to-do")


def status(ctx: typer.Context) -> Result:
    """Show what of the local stack runs, and where its pages are."""
    from replayctl.local import stack

    return _result("local status", stack.status(_local_settings(ctx)))


def data(
    ctx: typer.Context, name: Annotated[str, typer.Argument(help="The data set.")] = "ml100k", dry_run: DryRun = False
) -> Result:
    """Prepare the raw data of a data set below the local data root."""
    from replayctl.local import datasets

    prepared = datasets.prepare(name, _local_settings(ctx), ctx.obj.reporter, dry_run=dry_run)
    verb = "would prepare" if dry_run and not prepared.found else "found" if prepared.found else "prepared"
    line = f"{verb} {prepared.path} ({prepared.rows} interactions)"
    return Result("local data", prepared, (Lines((line,)),), status="nothing-to-do" if prepared.found else "ok")


def make_environments(ctx: typer.Context, dry_run: DryRun = False) -> Result:
    """Make the Python environments of the stack without starting anything."""
    from replayctl.local import environments

    settings = _local_settings(ctx)
    before = {name: environments.is_made(name, settings.cache_dir) for name in environments.NAMES}
    if not dry_run:
        environments.find_java_home(settings.local.java_home)
        for name in environments.NAMES:
            environments.ensure(name, settings.cache_dir, settings.local.python, ctx.obj.reporter)
    paths = {name: environments.path_of(name, settings.cache_dir) for name in environments.NAMES}
    verb = "would be made" if dry_run else "made"
    rows = tuple((name, "was there" if before[name] else verb, str(paths[name])) for name in paths)
    status: Status = "nothing-to-do" if all(before.values()) else "ok"
    data = {"environments": paths, "found": before, "dry_run": dry_run}
    return Result(
        "local environments", data, (Table(("environment", "state", "path"), rows, wrap=(2,)),), status=status
    )


def _local_settings(ctx: typer.Context) -> Settings:
    app: AppContext = ctx.obj
    if app.settings.profile != "local":
        raise UsageProblem(
            f"profile {app.settings.profile!r} has no embedded stack",
            hint="say --profile local, or leave --profile out",
        )
    return app.settings


def _result(command: str, stack: Stack, status: Status = "ok") -> Result:
    from replayctl.local.stack import USERNAME, password_file

    rows = tuple(
        (
            service.name,
            "answers" if stack.healthy.get(service.name) else "silent",
            service.url,
            service.pid,
        )
        for service in stack.services
    )
    data = {
        "home": stack.home,
        "running": stack.running,
        "services": [
            {"name": service.name, "url": service.url, "pid": service.pid, "healthy": stack.healthy.get(service.name)}
            for service in stack.services
        ],
        "airflow_username": USERNAME,
        "airflow_password_file": password_file(stack.home),
    }
    if not rows:
        return Result(command, data, (Lines((f"nothing runs (state in {stack.home})",)),))
    sign_in = f"{USERNAME}, password in {password_file(stack.home)}"
    view = (
        Table(("service", "state", "address", "pid"), rows),
        Fields(
            (
                ("sign in to Airflow as", sign_in),
                ("state folder", str(stack.home)),
                ("stop with", "replayctl local down"),
            )
        ),
    )
    return Result(command, data, view, status=status)
