"""run, runs: start runs of DAGs, and list, follow and stop them."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from replayctl.commands.options import DryRun, Engine, Shared
from replayctl.console.result import Block, Fields, Lines, Problem, Result, Status, Table
from replayctl.console.times import duration, short_duration
from replayctl.errors import ReplayctlError, UsageProblem
from replayctl.settings.context import AppContext

if TYPE_CHECKING:
    from replayctl.clients.airflow import AirflowApi, DagInfo
    from replayctl.clients.airflow_runs import RunInfo
    from replayctl.experiments.run_report import FailedTask, FailureCause, RunReport

_Dag = Annotated[str, typer.Argument(help="One of your DAGs, with or without your suffix.", show_default=False)]
_Timeout = Annotated[
    float,
    typer.Option(min=0, help="Seconds to wait for the end of the run, which continues afterwards."),
]
_RunId = Annotated[
    str | None, typer.Argument(help="Run ID or a prefix of it; the newest run by default.", show_default=False)
]
_A_DAY_S = 86400
# YARN collects the logs of an application after its end.
_LOG_WITHIN_S = 30.0
# A step's whole description is one line of its log.
_LINE_WIDTH = 300


def run(
    ctx: typer.Context,
    dag: _Dag,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the run to its end, and fail if it fails.")] = False,
    force: Annotated[
        list[str] | None,
        typer.Option(
            help="Compute this step and all that depend on it again; 'all' for every step. Repeatable.",
            show_default=False,
        ),
    ] = None,
    engine: Annotated[
        Engine | None,
        typer.Option(help="Engine for the steps of this run that support it.", show_default=False),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            min=0,
            help=f"Seconds that --wait lasts, {_A_DAY_S} by default; the run continues afterwards.",
            show_default=False,
        ),
    ] = None,
    shared: Shared = False,
    dry_run: DryRun = False,
) -> Result:
    """Start a run of a DAG.

    Steps that have an artifact with the same code, parameters and inputs are not computed again.

    \b
    Examples:
      replayctl run two_stage_ml100k --wait
      replayctl run two_stage_ml100k --force first_level_als
    """
    from replayctl.experiments import finding, runs, services

    if timeout is not None and not wait:
        raise UsageProblem("--timeout requires --wait", hint="add --wait, or remove --timeout")
    app: AppContext = ctx.obj
    api, find = _server(ctx, shared=shared, with_stale=False)
    dag_info = find(dag)
    forced = finding.forced_steps(api, dag_info, force or ())
    services.check_spark(app.settings, api, dag_info.dag_id, engine)
    if dry_run:
        data = {"dag_id": dag_info.dag_id, "force": force or [], "forced_steps": forced, "engine": engine}
        lines = [f"would start {dag_info.dag_id} in the Airflow of profile {app.settings.profile}"]
        if forced:
            lines.append(f"would compute again: {', '.join(forced)}")
        rest = "it would compute and reuse" if not forced else "the other steps would compute and reuse"
        lines.append(f"run `replayctl sync-dags --dry-run` to see what {rest}")
        return Result("run", {**data, "dry_run": True}, (Lines(tuple(lines)),))
    started = runs.start(api, dag_info, force or (), app.reporter, engine=engine)
    if not wait:
        return _result("run", runs.report_of(api, started))
    return _result("run", _watched(app, api, started, _A_DAY_S if timeout is None else timeout))


def list_runs(
    ctx: typer.Context,
    dag: Annotated[
        str | None, typer.Argument(help="One of your DAGs; all of them by default.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="List at most this many runs of each DAG.")] = 10,
    shared: Shared = False,
) -> Result:
    """List the runs of your DAGs, newest first.

    \b
    Examples:
      replayctl runs list
      replayctl runs list two_stage_ml100k --limit 3
    """
    app: AppContext = ctx.obj
    api, find = _server(ctx, shared=shared)
    if dag is None and shared:
        raise UsageProblem("--shared requires the name of a DAG", hint="pass the name of a DAG")
    dag_ids = [find(dag).dag_id] if dag else _dags_with_suffix(app, api)
    selected = [run for dag_id in dag_ids for run in api.runs(dag_id, limit=limit)]
    selected.sort(
        key=lambda run: run.queued or run.start or datetime.datetime.min.replace(tzinfo=datetime.UTC), reverse=True
    )
    rows = [(run.dag_id, _state(run), run.start, duration(_seconds(run)), run.run_id) for run in selected]
    view: Block = Table(("DAG", "state", "started", "took", "run"), rows) if rows else Lines(("no runs",))
    return Result("runs list", {"runs": selected}, (view,))


def follow(
    ctx: typer.Context, dag: _Dag, run_id: _RunId = None, timeout: _Timeout = _A_DAY_S, shared: Shared = False
) -> Result:
    """Follow a run to its end, and fail if it fails.

    \b
    Examples:
      replayctl runs follow two_stage_ml100k
      replayctl runs follow two_stage_ml100k manual__2026-01-31 --timeout 600
    """
    from replayctl.experiments import finding

    app: AppContext = ctx.obj
    api, find = _server(ctx, shared=shared)
    return _result("runs follow", _watched(app, api, finding.find_run(api, find(dag), run_id), timeout))


def stop(
    ctx: typer.Context,
    dag: _Dag,
    run_id: Annotated[
        str | None,
        typer.Argument(help="Run ID or a prefix of it; the only unfinished run by default.", show_default=False),
    ] = None,
    shared: Shared = False,
    dry_run: DryRun = False,
) -> Result:
    """Stop a run.

    Its running tasks are killed, the run is marked as failed, and its note names you. Finished artifacts are kept.

    \b
    Examples:
      replayctl runs stop two_stage_ml100k --dry-run
      replayctl runs stop two_stage_ml100k manual__2026-01-31
    """
    from replayctl.experiments import finding, runs
    from replayctl.storage.lock import whoami

    api, find = _server(ctx, shared=shared)
    selected = finding.find_run(api, find(dag), run_id, unfinished=True)
    if dry_run:
        data = {"dag_id": selected.dag_id, "run_id": selected.run_id, "state": selected.state, "dry_run": True}
        return Result("runs stop", data, (Lines((f"would stop {selected.run_id} of {selected.dag_id}",)),))
    user = ctx.obj.settings.user or str(whoami()["user"])
    stopped = runs.stop(api, selected, ctx.obj.reporter, user=user)
    data = {"dag_id": stopped.dag_id, "run_id": stopped.run_id, "state": stopped.state, "dry_run": False}
    fields = Fields((("run", stopped.run_id), ("state", _state(stopped)), ("page", runs.run_url(api, stopped))))
    return Result("runs stop", data, (fields,))


def _server(
    ctx: typer.Context, *, shared: bool, with_stale: bool = True
) -> tuple[AirflowApi, Callable[[str], DagInfo]]:
    from replayctl.experiments import finding
    from replayctl.experiments.services import open_airflow
    from replayctl.settings.namespace import find_namespace

    app: AppContext = ctx.obj
    namespace = find_namespace(app.settings, shared=shared)
    api = ctx.with_resource(open_airflow(app.settings, app.environ, app.reporter))
    return api, lambda name: finding.find_dag(api, namespace, name, with_stale=with_stale)


def _dags_with_suffix(app: AppContext, api: AirflowApi) -> list[str]:
    from replayctl.settings.namespace import find_namespace

    suffix = find_namespace(app.settings).suffix
    return [dag.dag_id for dag in api.dags() if dag.dag_id.endswith(suffix) and not dag.is_stale]


def _watched(app: AppContext, api: AirflowApi, run: RunInfo, timeout_s: float) -> RunReport:
    from replayctl.experiments import runs
    from replayctl.experiments.services import find_pods, is_stopped

    return runs.watch(
        api,
        run,
        timeout_s=timeout_s,
        poll_s=app.settings.deploy.poll_s,
        reporter=app.reporter,
        explain=lambda lines: _cause(app, lines),
        pods=find_pods(app.settings, app.environ),
        is_stopped=lambda: is_stopped(app.settings),
    )


def _cause(app: AppContext, lines: Sequence[str]) -> FailureCause | None:
    """The cause in the log of the task's application on YARN, or else in its own.

    Where the log has none, perhaps because it could not be written, a full disk here.
    """
    from replayctl.experiments.log_excerpt import failed_application
    from replayctl.experiments.run_report import FailureCause
    from replayctl.local.disk import full_disk_hint, is_full
    from replayctl.logs.diagnose import cause_in_task_log
    from replayctl.settings.load import LOCAL_PROFILE

    application = failed_application(lines)
    if application and (on_yarn := _cause_on_yarn(app, application)):
        return on_yarn
    cause = cause_in_task_log(lines)
    if cause is not None:
        return FailureCause(cause.summary, cause.explanation)
    settings = app.settings
    if settings.profile == LOCAL_PROFILE and is_full(settings.local.home):
        return FailureCause(f"the disk of {settings.local.home} is full", full_disk_hint(settings.local.home))
    return None


def _cause_on_yarn(app: AppContext, name: str) -> FailureCause | None:
    """The probable cause in the application's logs; None if they do not show any, or cannot be read."""
    from replayctl import yarn
    from replayctl.experiments.run_report import FailureCause

    try:
        with yarn.open_yarn(app.settings, app.environ, app.reporter) as cluster:
            application = cluster.application(name)
            causes = yarn.probable_causes(
                cluster,
                application,
                lambda: cluster.files(application, wait_s=_LOG_WITHIN_S),
                app.reporter,
                requested=True,
            )
    except ReplayctlError as error:
        app.reporter.note(f"cannot read the logs of {name}: {error}")
        return None
    return FailureCause(causes[0].summary, causes[0].explanation, causes[0].excerpt) if causes else None


def _result(command: str, report: RunReport) -> Result:
    took = f" in {short_duration(report.seconds)}" if report.seconds is not None else ""
    fields = [("run", report.run_id), ("state", f"{_state(report)}{took}")]
    if report.releases:
        fields.append(("release", ", ".join(report.releases)))
    view: list[Block] = [Fields((*fields, ("page", report.url)))]
    rows = tuple(
        (task.task_id, task.state, duration(task.seconds), task.try_number, task.result) for task in report.tasks
    )
    view += [Table(("task", "state", "took", "try", "result"), rows, numeric=(2, 3), wrap=(4,))] if rows else []
    problems = tuple(_problem(task) for task in report.failed)
    if report.stopped_by is not None:
        hint = f"run `replayctl run {report.dag_id}` to compute what is missing"
        problems += (Problem("failed", f"the run was stopped by {report.stopped_by}", hint, None),)
    elif report.outcome == "failed" and not problems:
        problems = (Problem("failed", f"the run ended as {report.state}", f"see {report.url}", None),)
    status: Status = "failed" if report.outcome == "failed" else "ok"
    warnings = tuple(f"{task.task_id}: {warning}" for task in report.tasks for warning in task.warnings)
    return Result(command, report, view, status=status, warnings=warnings, problems=problems)


def _state(run: RunInfo | RunReport) -> str:
    """The state of a run; Airflow's own does not tell stopped runs from failed ones."""
    return run.state if run.stopped_by is None else f"stopped by {run.stopped_by}"


def _problem(task: FailedTask) -> Problem:
    message = f"task {task.task_id} failed (try {task.try_number})"
    tail = task.log_tail
    if task.cause is not None:
        # The operator's own errors say in words why a step failed.
        summary = task.cause.summary.removeprefix("AirflowException: ")
        message += f": {summary}"
        if not any(line.startswith("Traceback") for line in tail):
            tail = tuple(line for line in tail if line not in (task.cause.summary, summary))
    lines = [line if len(line) <= _LINE_WIDTH else f"{line[:_LINE_WIDTH]} …" for line in tail]
    if task.cause is not None and task.cause.explanation:
        lines = [task.cause.explanation, "", *lines]
    # Elsewhere it is a path of the server, of which this user may not be allowed to look into the folders.
    is_here = task.log_source is not None and os.path.isfile(task.log_source)
    hint = f"see the complete log: {task.log_source if is_here else task.log_url}"
    if task.application:
        hint = f"run `replayctl yarn-logs {task.application}` to see the complete log"
    return Problem("failed", message, hint, "\n".join(lines))


def _seconds(run: RunInfo) -> float | None:
    return (run.end - run.start).total_seconds() if run.start and run.end else None
