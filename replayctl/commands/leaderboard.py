"""leaderboard: the models of an experiment, from best to worst."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from replayctl.commands.options import Shared
from replayctl.console.result import Cell, Result, Table
from replayctl.console.times import duration
from replayctl.settings.context import AppContext

if TYPE_CHECKING:
    from replayctl.experiments.leaderboard import Leaderboard, Row

# Columns that are left out if they are empty.
_OPTIONAL = ("test data", "differs in", "run", "DAG")


def leaderboard(
    ctx: typer.Context,
    experiment: Annotated[
        str, typer.Argument(help="Name of a DAG or an experiment, with or without your suffix.", show_default=False)
    ],
    metric: Annotated[str, typer.Option(help="Metric to sort by.")] = "NDCG@10",
    every: Annotated[
        bool, typer.Option("--all", help="Show every evaluation of the experiment, not only that of the newest run.")
    ] = False,
    server: Annotated[
        str, typer.Option(help="Name of another MLflow server, from mlflow.servers.", show_default=False)
    ] = "",
    shared: Shared = False,
) -> Result:
    """Show an experiment's models from best to worst.

    Shows the evaluation that the DAG's newest run ended with, whether it was computed or reused. Its models are
    measured on the same test queries. With --all, evaluations on other test data are ranked apart.

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
    table = _every_evaluation(report) if every else _newest_evaluation(report)
    several = f"rows are ranked on {len(report.test_sets)} test sets: do not compare those with different test data"
    return Result("leaderboard", report, (table,), warnings=(several,) if len(report.test_sets) > 1 else ())


def _newest_evaluation(report: Leaderboard) -> Table:
    names = _metric_names(report)
    rows = [
        (rank, row.model, row.level, *_figures(row, names), duration(row.seconds), _engine(row), row.evaluation)
        for rank, row in _ranked(report)
    ]
    columns = ("#", "model", "level", *names, "took", "engine", "evaluation")
    return Table(columns, rows, title=_title(report), numeric=(0, *range(3, 4 + len(names))))


def _every_evaluation(report: Leaderboard) -> Table:
    names = _metric_names(report)
    test_data = {test_set.split: _words(test_set.differing) for test_set in report.test_sets}
    several_dags = len({row.dag_id for row in report.rows}) > 1
    rows: list[list[Cell]] = [
        [
            *(rank, row.model, row.level),
            *(test_data[row.split], _words(row.differing)),
            *_figures(row, names),
            *(row.used, row.run_id, row.dag_id if several_dags else ""),
            *(row.evaluation, _engine(row), duration(row.seconds)),
        ]
        for rank, row in _ranked(report)
    ]
    # A narrow terminal omits the last ones, so what tells rows apart comes first.
    columns = ("#", "model", "level", "test data", "differs in", *names)
    columns += ("last used", "run", "DAG", "evaluation", "engine", "took")
    kept = [index for index, name in enumerate(columns) if name not in _OPTIONAL or any(row[index] for row in rows)]

    def places(*labels: str) -> list[int]:
        return [place for place, index in enumerate(kept) if columns[index] in labels]

    return Table(
        [columns[index] for index in kept],
        [[row[index] for index in kept] for row in rows],
        title=_title(report),
        numeric=places("#", *names, "took"),
        shorten=places("DAG", "run"),
        wrap=places("test data", "differs in"),
    )


def _ranked(report: Leaderboard) -> Iterator[tuple[int, Row]]:
    """Each row with its place among those of its test set."""
    for _, rows in itertools.groupby(report.rows, key=lambda row: row.split):
        yield from enumerate(rows, start=1)


def _metric_names(report: Leaderboard) -> tuple[str, ...]:
    from replayctl.experiments.leaderboard import SHOWN_METRICS

    at = report.metric.partition("@")[2]
    return tuple(dict.fromkeys((report.metric, *(f"{name}@{at}" for name in SHOWN_METRICS))))


def _title(report: Leaderboard) -> str:
    return f"{report.experiment} on {', '.join(dict.fromkeys(test_set.dataset for test_set in report.test_sets))}"


def _figures(row: Row, names: tuple[str, ...]) -> Iterator[str]:
    return (_figure(row.metrics.get(name)) for name in names)


def _engine(row: Row) -> str:
    return f"{row.engine} ({row.implementation})" if row.implementation else row.engine


def _words(parameters: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in parameters.items())


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
