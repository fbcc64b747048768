"""init, new-dag: an editable DAG folder and new DAG modules."""

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
    folder: Annotated[Path, typer.Argument(help="Folder to create; the copy is its subfolder dags.")],
    dry_run: DryRun = False,
) -> Result:
    """Create an editable copy of the shipped DAGs and workloads.

    \b
    Examples:
      replayctl init .
      replayctl init my-experiments --dry-run
    """
    from replayctl.bundle import scaffold

    scaffolded = scaffold.init(folder, dry_run=dry_run)
    verb = "would write" if dry_run else "wrote"
    lines = [f"{verb} {len(scaffolded.files)} files to {scaffolded.path}"]
    if not dry_run:
        there = f"cd {shlex.quote(str(folder))} && " if folder.absolute() != Path.cwd() else ""
        lines.append(f"next: run `{there}replayctl new-dag my_experiment`")
    return Result("init", scaffolded, (Lines(lines),))


def new_dag(
    ctx: typer.Context,
    name: Annotated[
        str, typer.Argument(help="Name of the DAG without your suffix, such as my_experiment.", show_default=False)
    ],
    dags_dir: Annotated[
        Path, typer.Option(help="DAG folder that `replayctl init` has created.", show_default=True)
    ] = Path("dags"),
    free_form: Annotated[
        bool, typer.Option("--free-form", help="Write a module for Airflow's own API instead of an experiment.")
    ] = False,
    dry_run: DryRun = False,
) -> Result:
    """Create a DAG module to start from.

    \b
    Examples:
      replayctl new-dag my_experiment
      replayctl new-dag my_report --free-form --dry-run
    """
    from replayctl.bundle import scaffold
    from replayctl.settings.namespace import find_namespace

    app: AppContext = ctx.obj
    suffix = find_namespace(app.settings).suffix
    scaffolded = scaffold.new_dag(name, dags_dir, suffix=suffix, free_form=free_form, dry_run=dry_run)
    lines = [f"{'would write' if dry_run else 'wrote'} {scaffolded.path}"]
    if not dry_run:
        module = scaffolded.path.stem.removeprefix("dag_")
        lines.append(f"next: edit it, then run `replayctl sync-dags` and `replayctl run {module} --wait`")
    return Result("new-dag", scaffolded, (Lines(lines),))
