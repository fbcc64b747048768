"""leaderboard: the models of an experiment, from best to worst."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import typer

from replayctl.commands.options import Shared
from replayctl.console.result import Result, Table
from replayctl.console.times import duration
from replayctl.settings.context import AppContext


def leaderboard(
    ctx: typer.Context,
    experiment: Annotated[
        str, typer.Argument(help="Name of the experiment, with or without your suffix.", show_default=False)
    ],
    metric: Annotated[str, typer.Option(help="Metric to sort by.")] = "NDCG@10",
    every: Annotated[bool, typer.Option("--all", help="Show every evaluation, not only the newest.")] = False,
    server: Annotated[
        str, typer.Option(help="Name of another MLflow server, from mlflow.servers.", show_default=False)
    ] = "",
    shared: Shared = False,
) -> Result:
    """Show an experiment's models from best to worst.

    All models are measured on the same test queries.

    \b
    Examples:
      replayctl leaderboard two_stage_ml100k
      replayctl leaderboard two_stage_ml100k --server mlflow2
      replayctl leaderboard two_stage_ml100k --metric MAP@10 --all
    """
    from replayctl.experiments import leaderboard as board
    from replayctl.experiments.services import open_mlflow
    from replayctl.settings.namespace import find_namespace

    app: AppContext = ctx.obj
    namespace = find_namespace(app.settings, shared=shared)
    report = board.find_leaderboard(
        lambda name: open_mlflow(app.settings, app.environ, app.reporter, name),
        namespace,
        experiment,
        server=server,
        others=() if server else app.settings.mlflow.servers,
        metric=metric,
        every=every,
    )
    at = report.metric.partition("@")[2]
    names = dict.fromkeys((report.metric, *(f"{name}@{at}" for name in board.SHOWN_METRICS)))
    rows = tuple(
        (
            rank,
            row.model,
            row.level,
            *(_figure(row.metrics.get(name)) for name in names),
            duration(row.seconds),
            f"{row.engine} ({row.implementation})" if row.implementation else row.engine,
            *((_words(report.differing(row)), row.recorded, row.run_id) if every else ()),
            row.evaluation,
        )
        for rank, row in enumerate(report.rows, start=1)
    )
    more = ("parameters that differ", "recorded", "run") if every else ()
    columns = ("#", "model", "level", *names, "took", "engine", *more, "evaluation")
    title = f"{report.experiment} on {report.dataset}"
    return Result("leaderboard", report, (Table(columns, rows, title=title, numeric=(0, *range(3, 4 + len(names)))),))


def _words(parameters: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in parameters.items())


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
