"""sync-dags: deploy the DAG folder under one's own name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from replayctl.commands.options import DryRun, Shared
from replayctl.context import AppContext
from replayctl.result import Fields, Result, Table


def sync_dags(
    ctx: typer.Context,
    dags_dir: Annotated[
        Path | None,
        typer.Option(help="The folder to deploy; without it ./dags, or else the shipped DAGs.", show_default=False),
    ] = None,
    shared: Shared = False,
    verify: Annotated[bool, typer.Option(help="End only when Airflow shows the new release.")] = True,
    dry_run: DryRun = False,
) -> Result:
    """Deploy the DAGs under your own name and wait until Airflow runs the new code."""
    from replayctl import deploy
    from replayctl.namespace import find_namespace
    from replayctl.services import find_airflow

    app: AppContext = ctx.obj
    namespace = find_namespace(app.settings, shared=shared)
    report = deploy.sync(
        deploy.find_dags_dir(dags_dir, Path.cwd()),
        app.settings,
        namespace,
        app.reporter,
        find_server=(lambda: find_airflow(app.settings)) if verify else None,
        dry_run=dry_run,
    )
    shown = [action for action in report.actions if action.action != "same"]
    fields = [("release", report.release), ("user", report.user or "(shared)"), ("target", str(report.target))]
    fields.append(("DAGs", str(len(report.dags))))
    if report.seen_after_s is not None:
        fields.append(("shown by Airflow", f"after {report.seen_after_s:.1f} s"))
    view = [Table(("action", "what"), tuple((action.action, action.what) for action in shown))] if shown else []
    return Result(
        "sync-dags",
        report,
        (Fields(tuple(fields)), *view),
        status="ok" if report.changed else "nothing-to-do",
        warnings=() if verify or dry_run else ("not verified: Airflow was not asked whether it shows this release",),
    )
