"""init, new-dag: DAGs of one's own to edit."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from replayctl.commands.options import DryRun
from replayctl.console.result import Lines, Result
from replayctl.settings.context import AppContext


def init(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(help="Where to put it; the copy is FOLDER/dags.")],
    dry_run: DryRun = False,
) -> Result:
    """Make an editable copy of the shipped DAGs and workloads."""
    from replayctl.bundle import scaffold

    made = scaffold.init(folder, dry_run=dry_run)
    verb = "would write" if dry_run else "wrote"
    lines = [f"{verb} {len(made.files)} files to {made.path}"]
    if not dry_run:
        there = f"cd {shlex.quote(str(folder))} && " if folder.absolute() != Path.cwd() else ""
        lines.append(f"go on with: {there}replayctl new-dag my_experiment")
    return Result("init", made, (Lines(lines),))


def new_dag(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="The DAG's name without your suffix: my_experiment.", show_default=False)],
    dags_dir: Annotated[
        Path, typer.Option(help="The DAG folder, made with `replayctl init`.", show_default=True)
    ] = Path("dags"),
    free_form: Annotated[
        bool, typer.Option("--free-form", help="A module with Airflow's own API instead of an experiment.")
    ] = False,
    dry_run: DryRun = False,
) -> Result:
    """Write a DAG module of your own to start from."""
    from replayctl.bundle import scaffold
    from replayctl.settings.namespace import find_namespace

    app: AppContext = ctx.obj
    suffix = find_namespace(app.settings).suffix
    made = scaffold.new_dag(name, dags_dir, suffix=suffix, free_form=free_form, dry_run=dry_run)
    lines = [f"{'would write' if dry_run else 'wrote'} {made.path}"]
    if not dry_run:
        module = made.path.stem.removeprefix("dag_")
        lines.append(f"edit it, then: replayctl sync-dags, and: replayctl run {module} --wait")
    return Result("new-dag", made, (Lines(lines),))
