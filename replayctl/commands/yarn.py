"""yarn-apps, yarn-logs, yarn-kill: Spark applications on YARN."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from replayctl.commands import yarn_views
from replayctl.commands.options import DryRun
from replayctl.console.result import Block, Lines, Problem, Result, Status, Table
from replayctl.errors import NotReady, UsageProblem
from replayctl.settings.context import AppContext

if TYPE_CHECKING:
    from replayctl.clients.resource_manager import Application
    from replayctl.logs.sources import Yarn
    from replayctl.logs.stream import LogFile
    from replayctl.logs.view import LogSelection

# In panels of their own, short options do not share their columns with long ones.
_SELECTION = "Selection"
_OUTPUT = "Output"
_ApplicationId = Annotated[
    str | None, typer.Argument(help="An application ID; pass --last to use your newest one.", show_default=False)
]
_Mine = Annotated[
    bool, typer.Option("--mine", help="Only list applications with your tag.", rich_help_panel=_SELECTION)
]
_Last = Annotated[bool, typer.Option("--last", help="Select your newest application.", rich_help_panel=_SELECTION)]
_Dag = Annotated[
    str | None,
    typer.Option(
        "--dag", help="Select by DAG: its name or its full ID.", show_default=False, rich_help_panel=_SELECTION
    ),
]
_Task = Annotated[
    str | None, typer.Option("--task", help="Select by task ID.", show_default=False, rich_help_panel=_SELECTION)
]
_Run = Annotated[
    str | None,
    typer.Option("--run", help="Select by Airflow's run ID.", show_default=False, rich_help_panel=_SELECTION),
]
_Container = Annotated[
    str | None,
    typer.Option(help="Show this container instead of the driver's.", show_default=False, rich_help_panel=_SELECTION),
]
_Executors = Annotated[
    bool, typer.Option("--executors", help="Show all containers except the driver's.", rich_help_panel=_SELECTION)
]
_Every = Annotated[bool, typer.Option("--all", help="Show all containers.", rich_help_panel=_SELECTION)]
_LogFiles = Annotated[str, typer.Option(help="Log files to show, separated by commas.", rich_help_panel=_SELECTION)]
_Tail = Annotated[
    int | None,
    typer.Option(
        "-n",
        "--tail",
        min=0,
        help="Show this many last lines of each log file; with --follow, new lines as well.",
        show_default=False,
        rich_help_panel=_OUTPUT,
    ),
]
_Follow = Annotated[
    bool, typer.Option("-f", "--follow", help="Show new lines until the application ends.", rich_help_panel=_OUTPUT)
]
_Grep = Annotated[
    str | None,
    typer.Option(
        help="Show only lines that match this regular expression.", show_default=False, rich_help_panel=_OUTPUT
    ),
]
_To = Annotated[
    str | None,
    typer.Option(
        "-o",
        "--to",
        help="Write to this file, or one file per log into this folder.",
        show_default=False,
        rich_help_panel=_OUTPUT,
    ),
]
_Raw = Annotated[
    bool, typer.Option("--raw", help="Keep all bytes, including control characters.", rich_help_panel=_OUTPUT)
]
_List = Annotated[
    bool, typer.Option("--list", help="List the log files instead of showing them.", rich_help_panel=_OUTPUT)
]
_Diagnose = Annotated[
    bool | None,
    typer.Option(
        "--diagnose/--no-diagnose",
        help="Show the probable cause first; this is the default after a failure.",
        show_default=False,
    ),
]
_WaitFor = Annotated[float, typer.Option(min=0, help="Seconds to wait until YARN has aggregated the logs.")]
_AGO = r"([0-9]{1,6})([smhd])"
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def yarn_apps(
    ctx: typer.Context,
    mine: _Mine = False,
    dag: _Dag = None,
    task: _Task = None,
    run: _Run = None,
    user: Annotated[
        str | None, typer.Option(help="Select by user on YARN.", show_default=False, rich_help_panel=_SELECTION)
    ] = None,
    state: Annotated[
        list[str] | None,
        typer.Option(
            help="Select by state: RUNNING, SUCCEEDED, FAILED, KILLED …; repeatable.",
            show_default=False,
            rich_help_panel=_SELECTION,
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Select by part of the name.", show_default=False, rich_help_panel=_SELECTION)
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            help="Select applications started within this time: 30m, 12h, 3d.",
            show_default=False,
            rich_help_panel=_SELECTION,
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="List at most this many applications.")] = 50,
) -> Result:
    """List applications on YARN, newest first.

    A line below the table says what each waiting application waits for.

    \b
    Examples:
      replayctl yarn-apps --mine --state RUNNING
      replayctl yarn-apps --dag two_stage_ml100k --since 3d
    """
    from replayctl import yarn
    from replayctl.clients import resource_manager
    from replayctl.logs.selection import ApplicationSelection, select

    app: AppContext = ctx.obj
    states = {resource_manager.state(word) for word in state or ()}
    started_since = _ago(since) if since else None
    with yarn.open_yarn(app.settings, app.environ, app.reporter) as cluster:
        selected = select(
            cluster.manager,
            ApplicationSelection(mine, dag, task, run),
            app.settings,
            states=resource_manager.states_with(states),
            user=user,
            since=started_since,
        )
    applications = [
        application
        for application in selected
        if (not states or states & {application.state, application.outcome})
        and (name is None or name.lower() in application.name.lower())
    ][:limit]
    rows = [yarn_views.row(application) for application in applications]
    columns = ("application", "state", "name", "started", "took", "user", "uses")
    view: Block = Table(columns, rows, numeric=(4,), shorten=(2,)) if rows else Lines(("no application matches",))
    waiting = tuple(f"{item.id} is waiting: {item.waits_for}" for item in applications if item.is_waiting)
    return Result("yarn-apps", {"applications": applications}, (view,), warnings=waiting)


def yarn_logs(
    ctx: typer.Context,
    application_id: _ApplicationId = None,
    last: _Last = False,
    dag: _Dag = None,
    task: _Task = None,
    run: _Run = None,
    container: _Container = None,
    executors: _Executors = False,
    every: _Every = False,
    log_files: _LogFiles = "stderr,stdout",
    tail: _Tail = None,
    follow: _Follow = False,
    grep: _Grep = None,
    target: _To = None,
    raw: _Raw = False,
    listing: _List = False,
    diagnose: _Diagnose = None,
    wait_for: _WaitFor = 60,
) -> Result:
    """Show the logs of an application on YARN.

    The driver's logs are shown unless other containers are selected. After a failure, the probable cause comes first.

    \b
    Examples:
      replayctl yarn-logs --last --follow --tail 50
      replayctl yarn-logs --dag two_stage_ml100k --task first_level_als
      replayctl yarn-logs application_1700000000000_0042 --all -o logs/
    """
    from replayctl import yarn
    from replayctl.clients import resource_manager
    from replayctl.logs import view
    from replayctl.logs.selection import ApplicationSelection

    app: AppContext = ctx.obj
    selection = view.LogSelection(
        container=resource_manager.container_id(container) if container else None,
        executors=executors,
        every=every,
        names=resource_manager.log_files(log_files),
        tail=tail,
        pattern=view.pattern(grep) if grep else None,
    )
    _require_compatible(follow, target, listing)
    with yarn.open_yarn(app.settings, app.environ, app.reporter) as cluster:
        application = yarn.find_application(
            cluster, application_id, ApplicationSelection(last, dag, task, run), app.settings, app.reporter
        )
        if follow and not application.is_final:
            return _followed(app, cluster, application, selection, diagnose, raw=raw, wait_s=wait_for)
        # A listing and a diagnosis need the files of all containers; a running application is not diagnosed by default.
        driver_only = selection.driver_only and not listing and not diagnose
        try:
            files = cluster.files(application, wait_s=wait_for, driver_only=driver_only)
        except NotReady as error:
            return _not_started(application, error)
        if listing:
            return _listed(application, files)
        return _shown(app, cluster, application, files, selection, diagnose, target=target, raw=raw)


def yarn_kill(
    ctx: typer.Context,
    application_ids: Annotated[list[str] | None, typer.Argument(help="Application IDs.", show_default=False)] = None,
    mine: Annotated[bool, typer.Option("--mine", help="Select all running applications with your tag.")] = False,
    dag: _Dag = None,
    task: _Task = None,
    run: _Run = None,
    orphans: Annotated[
        bool,
        typer.Option(
            "--orphans", help="Select your running applications whose task has ended or is unknown to Airflow."
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Kill without asking for confirmation.")] = False,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait until the applications have ended.")] = 60,
    dry_run: DryRun = False,
) -> Result:
    """Kill applications on YARN and wait until they have ended.

    Options select among your own applications only. To kill an application of another user, pass its ID.

    \b
    Examples:
      replayctl yarn-kill application_1700000000000_0042
      replayctl yarn-kill --orphans --dry-run
    """
    from replayctl import yarn
    from replayctl.clients import resource_manager
    from replayctl.logs.selection import ApplicationSelection, running

    app: AppContext = ctx.obj
    names = [resource_manager.application_id(text) for text in application_ids or ()]
    _require_one_selection(bool(names), mine or ApplicationSelection(dag=dag, task=task, run=run).has_step, orphans)
    reasons: dict[str, str] = {}
    with yarn.open_yarn(app.settings, app.environ, app.reporter) as cluster:
        if orphans:
            orphaned = yarn.find_orphans(cluster, app.settings, app.environ, app.reporter)
            applications = [orphan.application for orphan in orphaned]
            reasons = {orphan.application.id: orphan.reason for orphan in orphaned}
        elif names:
            applications = [cluster.manager.application(name) for name in names]
        else:
            applications = running(cluster.manager, ApplicationSelection(True, dag, task, run), app.settings)
        alive = [application for application in applications if not application.is_final]
        data = {"applications": applications, "reasons": reasons, "dry_run": dry_run}
        if dry_run or not alive:
            line = f"would kill {len(alive)} of {len(applications)}" if alive else "no selected application is running"
            table = (yarn_views.kill_table(applications, reasons),) if applications else ()
            status: Status = "ok" if alive else "nothing-to-do"
            return Result("yarn-kill", data, (*table, Lines((line,))), status=status)
        if not yes:
            subjects = (f"{item.id} ({item.name} of {item.user}{yarn_views.because(reasons, item)})" for item in alive)
            app.confirm(f"kill {', '.join(subjects)}?")
        outcomes = yarn.kill(cluster, alive, app.reporter, timeout_s=timeout)
    rows = [(outcome.id, outcome.state, outcome.note) for outcome in outcomes]
    problems = tuple(Problem("timeout", f"{outcome.id}: {outcome.note}") for outcome in outcomes if not outcome.ended)
    status = "ok" if not problems else "partial" if len(problems) < len(outcomes) else "failed"
    ended = Table(("application", "state", ""), rows, wrap=(2,))
    return Result("yarn-kill", {**data, "outcomes": outcomes}, (ended,), status=status, problems=problems)


def _require_compatible(follow: bool, target: str | None, listing: bool) -> None:
    if follow and (target is not None or listing):
        raise UsageProblem(
            "--follow cannot be combined with --to or --list", hint="pass --follow alone, or leave it out"
        )


def _require_one_selection(by_id: bool, by_tags: bool, orphans: bool) -> None:
    count = (by_id, by_tags, orphans).count(True)
    if count == 1:
        return
    raise UsageProblem(
        "application IDs, --orphans and --mine, --dag, --task, --run exclude each other"
        if count
        else "no application is selected",
        hint="pass application IDs, or --orphans, or any of --mine, --dag, --task and --run",
    )


def _followed(
    app: AppContext,
    cluster: Yarn,
    application: Application,
    selection: LogSelection,
    diagnose: bool | None,
    *,
    raw: bool,
    wait_s: float,
) -> Result:
    from replayctl import yarn
    from replayctl.logs.follow import follow

    ended = follow(cluster, application, selection, app.write_log, app.reporter, raw=raw, wait_s=wait_s)
    # A restarted ResourceManager ends the applications that it has forgotten. The log shows only the consequences.
    requested = False if diagnose is None and ended.is_forgotten else diagnose
    causes = yarn.probable_causes(
        cluster, ended, lambda: cluster.files(ended, wait_s=wait_s), app.reporter, requested=requested
    )
    view = (yarn_views.head(ended), *yarn_views.cause_lines(causes)) if causes else ()
    return Result("yarn-logs", {"application": ended, "causes": causes}, view)


def _shown(
    app: AppContext,
    cluster: Yarn,
    application: Application,
    files: Sequence[LogFile],
    selection: LogSelection,
    diagnose: bool | None,
    *,
    target: str | None,
    raw: bool,
) -> Result:
    from replayctl import yarn
    from replayctl.logs import view

    if application.waits_for is not None:
        app.reporter.step(f"{application.id} is waiting: {application.waits_for}")
    selected = selection.of(files, application)
    causes = yarn.probable_causes(cluster, application, lambda: files, app.reporter, requested=diagnose, again=selected)
    answer = {"application": application, "causes": causes, "files": selected}
    if causes:
        app.show_first((yarn_views.head(application), *yarn_views.cause_lines(causes), Lines(("",))))
    if target is not None:
        return _written(answer, view.save(cluster, application, selected, target, selection, app.reporter))
    for data in view.shown(cluster, application, selected, selection):
        app.write_log(data, raw)
    return Result(
        "yarn-logs",
        answer,
        (),
        closing=(Lines(("",)), yarn_views.head(application), *yarn_views.cause_lines(causes)) if causes else (),
    )


def _not_started(application: Application, error: NotReady) -> Result:
    problem = Problem(error.code, str(error), error.hint, error.details)
    data = {"application": application, "causes": [], "files": []}
    return Result("yarn-logs", data, (yarn_views.head(application),), status="failed", problems=(problem,))


def _listed(application: Application, files: Sequence[LogFile]) -> Result:
    rows = [(file.container, file.name, file.size) for file in files]
    table = Table(("container", "file", "bytes"), rows, numeric=(2,))
    return Result("yarn-logs", {"application": application, "files": files}, (yarn_views.head(application), table))


def _written(answer: Mapping[str, object], written: Sequence[tuple[Path, int]]) -> Result:
    lines = Lines(tuple(f"wrote {path} ({size} bytes)" for path, size in written))
    paths = [{"path": path, "bytes": size} for path, size in written]
    return Result("yarn-logs", {**answer, "written": paths}, (lines,))


def _ago(text: str) -> datetime.datetime:
    match = re.fullmatch(_AGO, text)
    if match is None:
        raise UsageProblem(f"{text!r} is not a duration", hint="pass a duration such as 30m, 12h or 3d")
    return datetime.datetime.now(tz=datetime.UTC) - datetime.timedelta(seconds=int(match[1]) * _UNITS[match[2]])
