"""mlflow-sync: metrics that MLflow does not have yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from replayctl.commands.options import DryRun, Shared
from replayctl.console.result import Lines, Problem, Result, Status, Table
from replayctl.settings.context import AppContext

if TYPE_CHECKING:
    from replayctl.experiments.mlflow_sync import Evaluation
    from replayctl.settings.workspace import Workspace


def mlflow_sync(
    ctx: typer.Context,
    experiment: Annotated[
        str | None,
        typer.Argument(help="Name of one experiment, with or without your suffix.", show_default=False),
    ] = None,
    shared: Shared = False,
    dry_run: DryRun = False,
) -> Result:
    """Record evaluations that were computed while MLflow was down.

    Reads what your evaluations have kept with their artifacts, and records what MLflow does not have. Evaluations that
    were deleted in MLflow stay deleted.

    \b
    Examples:
      replayctl mlflow-sync --dry-run
      replayctl mlflow-sync two_stage_ml100k
    """
    from replayctl.errors import NotFound
    from replayctl.experiments.finding import plain_name
    from replayctl.experiments.mlflow_sync import sync
    from replayctl.experiments.services import open_mlflow

    app: AppContext = ctx.obj
    workspace = app.workspace(shared=shared)
    evaluations, problems = _stored(app, workspace)
    if experiment is not None:
        namespace = workspace.namespace
        name = namespace.mlflow_experiment(plain_name(namespace, experiment))
        evaluations = [evaluation for evaluation in evaluations if evaluation.experiment == name]
        if not evaluations:
            raise NotFound(
                f"no evaluation of experiment {name!r} is stored",
                hint="run `replayctl mlflow-sync --dry-run` to list what is stored",
                details="\n".join(problem.message for problem in problems) or None,
            )
    results = sync(
        evaluations,
        lambda server: open_mlflow(app.settings, app.environ, app.reporter, server),
        app.reporter,
        dry_run=dry_run,
    )
    for message in dict.fromkeys(row.error for row in results if row.error):
        failed = ", ".join(row.evaluation for row in results if row.error == message)
        problems.append(Problem("failed", str(message), details=f"not recorded: {failed}"))
    states = {row.state for row in results}
    status: Status = "ok" if states & {"recorded", "missing"} else "nothing-to-do"
    if problems:
        status = "failed" if states <= {"failed"} else "partial"
    rows = [
        (row.experiment, row.dataset, row.models, row.evaluated, row.state, row.server or "-", row.evaluation)
        for row in results
    ]
    columns = ("experiment", "data set", "models", "evaluated", "in MLflow", "server", "evaluation")
    view = (
        (Table(columns, rows, numeric=(2,), shorten=(0,)),)
        if rows
        else (Lines((f"no evaluations {'can be read' if problems else 'are stored'}",)),)
    )
    data = {"evaluations": results, "dry_run": dry_run}
    return Result("mlflow-sync", data, view, status=status, problems=tuple(problems))


def _stored(app: AppContext, workspace: Workspace) -> tuple[list[Evaluation], list[Problem]]:
    """The evaluations of the namespace, and those that cannot be read."""
    from replayctl.errors import OperationFailed
    from replayctl.experiments.evaluations import is_on_hdfs, read_hdfs_evaluations, read_shared_evaluations
    from replayctl.experiments.mlflow_sync import parse_evaluation

    on_hdfs = is_on_hdfs(app.settings)
    texts = read_hdfs_evaluations(workspace, app.environ) if on_hdfs else read_shared_evaluations(workspace)
    evaluations, problems = [], []
    for identity, text in texts.items():
        try:
            evaluations.append(parse_evaluation(identity, text))
        except OperationFailed as error:
            problems.append(Problem("unreadable", str(error)))
    return evaluations, problems
