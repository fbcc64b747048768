"""run: start a DAG and watch it to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from replayctl.commands.options import DryRun, Shared
from replayctl.console.result import Fields, Lines, Problem, Result, Status, Table
from replayctl.console.times import duration, short_duration
from replayctl.settings.context import AppContext

if TYPE_CHECKING:
    from replayctl.experiments.runs import RunReport


def run(
    ctx: typer.Context,
    dag: Annotated[str, typer.Argument(help="A DAG of yours, with or without your suffix.", show_default=False)],
    wait: Annotated[bool, typer.Option("--wait", help="Follow the run; its outcome is the exit code.")] = False,
    force: Annotated[
        list[str] | None,
        typer.Option(
            help="Compute this step anew with all that depends on it; 'all' for every step. Repeatable.",
            show_default=False,
        ),
    ] = None,
    timeout: Annotated[float, typer.Option(help="Stop waiting after so many seconds; the run goes on.")] = 86400.0,
    shared: Shared = False,
    dry_run: DryRun = False,
) -> Result:
    """Start a run of a DAG; what is computed already is not computed again."""
    from replayctl.experiments import runs
    from replayctl.experiments.services import find_airflow
    from replayctl.settings.namespace import find_namespace

    app: AppContext = ctx.obj
    api = find_airflow(app.settings)
    found = runs.find_dag(api, find_namespace(app.settings, shared=shared), dag)
    runs.check_force(api, found, force or ())
    if dry_run:
        data = {"dag_id": found.dag_id, "force": force or [], "dry_run": True}
        return Result("run", data, (Lines((f"would start {found.dag_id} on {api.url}",)),))
    started = runs.start(api, found, force or (), app.reporter)
    if not wait:
        return _result(runs.started_report(api, started))
    try:
        return _result(
            runs.watch(api, started, timeout_s=timeout, poll_s=app.settings.deploy.poll_s, reporter=app.reporter)
        )
    except KeyboardInterrupt:
        app.reporter.warn(f"not waiting any more; the run goes on: {runs.run_url(api, started)}")
        raise


def _result(report: RunReport) -> Result:
    took = f" in {short_duration(report.seconds)}" if report.seconds is not None else ""
    view = [Fields((("run", report.run_id), ("state", f"{report.state}{took}"), ("page", report.url)))]
    rows = tuple((task.task_id, task.state, duration(task.seconds), task.try_number) for task in report.tasks)
    table = [Table(("task", "state", "took", "try"), rows, numeric=(2, 3))] if rows else []
    problems = tuple(
        Problem("failed", f"task {task.task_id} failed (try {task.try_number})", None, "\n".join(task.log_tail))
        for task in report.failed
    )
    if report.outcome == "failed" and not problems:
        problems = (Problem("failed", f"the run ended as {report.state}", f"see {report.url}", None),)
    status: Status = "failed" if report.outcome == "failed" else "ok"
    return Result("run", report, (*view, *table), status=status, problems=problems)
