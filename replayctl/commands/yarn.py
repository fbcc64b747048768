"""yarn-apps, yarn-logs, yarn-kill: Spark applications on YARN."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from replayctl.commands.options import DryRun
from replayctl.console.result import Block, Cell, Fields, Lines, Problem, Result, Status, Table
from replayctl.console.times import short_duration, short_moment
from replayctl.errors import NotReady, UsageProblem
from replayctl.settings.context import AppContext

if TYPE_CHECKING:
    from replayctl.clients.resource_manager import Application
    from replayctl.logs.diagnose import Cause
    from replayctl.logs.sources import Yarn
    from replayctl.logs.stream import LogFile
    from replayctl.logs.view import LogSelection

_ApplicationId = Annotated[str | None, typer.Argument(help="application_…; or say --last.", show_default=False)]
_Mine = Annotated[bool, typer.Option("--mine", help="Only applications with your tag.")]
_Last = Annotated[bool, typer.Option("--last", help="Your newest application.")]
_Dag = Annotated[str | None, typer.Option("--dag", help="Of this DAG: its name or whole id.", show_default=False)]
_Task = Annotated[str | None, typer.Option("--task", help="Of this task.", show_default=False)]
_Run = Annotated[str | None, typer.Option("--run", help="Of this run, as Airflow calls it.", show_default=False)]
_Container = Annotated[str | None, typer.Option(help="Another container than the driver's.", show_default=False)]
_Executors = Annotated[bool, typer.Option("--executors", help="All containers but the driver's.")]
_Every = Annotated[bool, typer.Option("--all", help="All containers.")]
_LogFiles = Annotated[str, typer.Option(help="Which files, with commas between them.")]
_Tail = Annotated[
    int | None,
    typer.Option(
        "-n",
        "--tail",
        min=0,
        help="Only so many last lines of each; with --follow, then what comes.",
        show_default=False,
    ),
]
_Follow = Annotated[bool, typer.Option("-f", "--follow", help="Go on while the application runs.")]
_Grep = Annotated[str | None, typer.Option(help="Only lines with this pattern.", show_default=False)]
_To = Annotated[
    str | None, typer.Option("-o", "--to", help="Write there: a file, or a folder for a file each.", show_default=False)
]
_Raw = Annotated[bool, typer.Option("--raw", help="Bytes as they are, control characters too.")]
_List = Annotated[bool, typer.Option("--list", help="Only say which files there are.")]
_Diagnose = Annotated[
    bool | None,
    typer.Option(
        "--diagnose/--no-diagnose", help="The probable cause first; the default after a failure.", show_default=False
    ),
]
_WaitFor = Annotated[float, typer.Option(help="Seconds to wait until YARN has gathered the logs.")]
_AGO = re.compile(r"([0-9]{1,6})([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def yarn_apps(
    ctx: typer.Context,
    mine: _Mine = False,
    dag: _Dag = None,
    task: _Task = None,
    run: _Run = None,
    user: Annotated[str | None, typer.Option(help="YARN's user.", show_default=False)] = None,
    state: Annotated[
        list[str] | None, typer.Option(help="RUNNING, SUCCEEDED, FAILED, KILLED … Repeatable.", show_default=False)
    ] = None,
    name: Annotated[str | None, typer.Option(help="A part of the name.", show_default=False)] = None,
    since: Annotated[
        str | None, typer.Option(help="Started so long ago at most: 30m, 12h, 3d.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
) -> Result:
    """List applications on YARN, the newest first."""
    from replayctl import yarn
    from replayctl.clients import resource_manager
    from replayctl.logs.selection import ApplicationSelection, select

    app: AppContext = ctx.obj
    states = {resource_manager.state(each) for each in state or ()}
    began = _ago(since) if since else None
    with yarn.open_yarn(app.settings, app.environ, app.reporter) as cluster:
        found = select(
            cluster.manager,
            ApplicationSelection(mine, dag, task, run),
            app.settings,
            states=resource_manager.states_with(states),
            user=user,
            since=began,
        )
    fitting = [each for each in found if not states or states & {each.state, each.outcome}]
    chosen = [each for each in fitting if name is None or name.lower() in each.name.lower()][:limit]
    rows = [
        (
            each.id,
            each.outcome,
            each.name,
            each.started,
            _took(each),
            each.user,
            f"{each.memory_mb} MB, {each.vcores} cores" if each.memory_mb else None,
        )
        for each in chosen
    ]
    columns = ("application", "state", "name", "started", "took", "user", "uses")
    view: Block = Table(columns, rows, numeric=(4,), shorten=(2,)) if rows else Lines(("none",))
    waiting = tuple(f"{each.id} waits: {each.waits_for}" for each in chosen if each.is_waiting)
    return Result("yarn-apps", {"applications": chosen}, (view,), warnings=waiting)


def yarn_logs(
    ctx: typer.Context,
    application: _ApplicationId = None,
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
    wait_for: _WaitFor = 60.0,
) -> Result:
    """Show an application's logs: the driver's, and what has probably gone wrong first."""
    from replayctl import yarn
    from replayctl.clients import resource_manager
    from replayctl.logs import view
    from replayctl.logs.selection import ApplicationSelection

    app: AppContext = ctx.obj
    wanted = view.LogSelection(
        container=resource_manager.container_id(container) if container else None,
        executors=executors,
        every=every,
        names=resource_manager.log_files(log_files),
        tail=tail,
        pattern=view.pattern(grep) if grep else None,
    )
    if follow and (target is not None or listing):
        raise UsageProblem("--follow shows what comes, -o and --list go by what there is: say one of them")
    with yarn.open_yarn(app.settings, app.environ, app.reporter) as cluster:
        found = yarn.find_application(
            cluster, application, ApplicationSelection(last, dag, task, run), app.settings, app.reporter
        )
        if follow and not found.is_final:
            return _followed(app, cluster, found, wanted, diagnose, raw=raw, wait_s=wait_for)
        # All of them are wanted to list them, and to find a cause; a running application has none by itself.
        driver_only = wanted.driver_only and not listing and not diagnose
        try:
            files = cluster.files(found, wait_s=wait_for, driver_only=driver_only)
        except NotReady as error:
            return _not_begun(found, error)
        if listing:
            return _listed(found, files)
        return _shown(app, cluster, found, files, wanted, diagnose, target=target, raw=raw)


def yarn_kill(
    ctx: typer.Context,
    applications: Annotated[list[str] | None, typer.Argument(help="application_…", show_default=False)] = None,
    mine: Annotated[bool, typer.Option("--mine", help="All running applications with your tag.")] = False,
    dag: _Dag = None,
    task: _Task = None,
    run: _Run = None,
    orphans: Annotated[
        bool, typer.Option("--orphans", help="Your running applications whose task has ended or is unknown to Airflow.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait until they are gone.")] = 60.0,
    dry_run: DryRun = False,
) -> Result:
    """End applications on YARN, and wait until they are gone. Those that no id names are yours alone."""
    from replayctl import yarn
    from replayctl.clients import resource_manager
    from replayctl.logs.selection import ApplicationSelection, running

    app: AppContext = ctx.obj
    names = [resource_manager.application_id(each) for each in applications or ()]
    of_step = ApplicationSelection(dag=dag, task=task, run=run).has_step
    if (bool(names), mine or of_step, orphans).count(True) != 1:
        raise UsageProblem(
            "kill which?", hint="name applications, or say --mine, or some of --dag, --task and --run, or --orphans"
        )
    reasons: dict[str, str] = {}
    with yarn.open_yarn(app.settings, app.environ, app.reporter) as cluster:
        if orphans:
            found = yarn.find_orphans(cluster, app.settings)
            chosen, reasons = [each.application for each in found], {each.application.id: each.reason for each in found}
        elif names:
            chosen = [cluster.manager.application(name) for name in names]
        else:
            chosen = running(cluster.manager, ApplicationSelection(True, dag, task, run), app.settings)
        alive = [each for each in chosen if not each.is_final]
        table = _to_kill(chosen, reasons)
        data = {"applications": chosen, "reasons": reasons, "dry_run": dry_run}
        if dry_run or not alive:
            line = Lines((f"would kill {len(alive)} of them" if alive else "nothing of it runs",))
            view = (table, line) if chosen else (line,)
            return Result("yarn-kill", data, view, status="nothing-to-do" if not alive else "ok")
        if not yes:
            said = (f"{each.id} ({each.name} of {each.user}{_because(reasons, each)})" for each in alive)
            app.confirm(f"kill {', '.join(said)}?")
        outcomes = yarn.kill(cluster, alive, app.reporter, timeout_s=timeout)
    ends = [(each.id, each.state, each.note) for each in outcomes]
    problems = tuple(Problem("timeout", f"{each.id}: {each.note}") for each in outcomes if not each.gone)
    status: Status = "ok" if not problems else "partial" if len(problems) < len(outcomes) else "failed"
    ended = Table(("application", "state", ""), ends, wrap=(2,))
    return Result("yarn-kill", {**data, "outcomes": outcomes}, (ended,), status=status, problems=problems)


def _to_kill(chosen: Sequence[Application], reasons: Mapping[str, str]) -> Table:
    columns = ("application", "state", "name", *(("why",) if reasons else ()), "took", "user")
    rows: list[list[Cell]] = []
    for each in chosen:
        why = [reasons[each.id]] if reasons else []
        rows.append([each.id, each.outcome, each.name, *why, _took(each), each.user])
    return Table(columns, rows, numeric=(columns.index("took"),), shorten=(2,), wrap=(3,) if reasons else ())


def _because(reasons: Mapping[str, str], each: Application) -> str:
    return f": {reasons[each.id]}" if each.id in reasons else ""


def _followed(
    app: AppContext,
    cluster: Yarn,
    found: Application,
    wanted: LogSelection,
    diagnose: bool | None,
    *,
    raw: bool,
    wait_s: float,
) -> Result:
    from replayctl import yarn
    from replayctl.logs.follow import follow

    ended = follow(cluster, found, wanted, app.write_log, app.reporter, raw=raw, wait_s=wait_s)
    # A ResourceManager that begins anew ends what it has forgotten: that is the cause, and the log shows its echoes.
    wanted_causes = False if diagnose is None and ended.is_forgotten else diagnose
    causes = yarn.probable_causes(cluster, ended, lambda: cluster.files(ended, wait_s=wait_s), wanted=wanted_causes)
    view = (_head(ended), *_causes(causes)) if causes else ()
    return Result("yarn-logs", {"application": ended, "causes": causes}, view)


def _shown(
    app: AppContext,
    cluster: Yarn,
    found: Application,
    files: Sequence[LogFile],
    wanted: LogSelection,
    diagnose: bool | None,
    *,
    target: str | None,
    raw: bool,
) -> Result:
    from replayctl import yarn
    from replayctl.logs import view

    if found.waits_for is not None:
        app.reporter.step(f"{found.id} waits: {found.waits_for}")
    chosen = wanted.of(files, found)
    causes = yarn.probable_causes(cluster, found, lambda: files, wanted=diagnose, again=chosen)
    answer = {"application": found, "causes": causes, "files": chosen}
    if causes:
        app.show_first((_head(found), *_causes(causes), Lines(("",))))
    if target is not None:
        return _written(answer, view.save(cluster, found, chosen, target, wanted))
    for data in view.shown(cluster, found, chosen, wanted):
        app.write_log(data, raw)
    return Result("yarn-logs", answer, (), closing=(Lines(("",)), _head(found), *_causes(causes)) if causes else ())


def _not_begun(found: Application, error: NotReady) -> Result:
    problem = Problem(error.code, str(error), error.hint, error.details)
    data = {"application": found, "causes": [], "files": []}
    return Result("yarn-logs", data, (_head(found),), status="failed", problems=(problem,))


def _listed(found: Application, files: Sequence[LogFile]) -> Result:
    rows = [(each.container, each.name, each.size) for each in files]
    table = Table(("container", "file", "bytes"), rows, numeric=(2,))
    return Result("yarn-logs", {"application": found, "files": files}, (_head(found), table))


def _written(answer: Mapping[str, object], written: Sequence[tuple[Path, int]]) -> Result:
    lines = Lines(tuple(f"wrote {path} ({size} bytes)" for path, size in written))
    whereto = [{"path": path, "bytes": size} for path, size in written]
    return Result("yarn-logs", {**answer, "written": whereto}, (lines,))


def _head(found: Application) -> Fields:
    pairs = [("application", found.id), ("name", found.name), ("user", found.user), ("state", found.outcome)]
    took = _took(found)
    if found.started is not None and took is not None:
        since = short_duration(took.total_seconds())
        pairs.append(
            ("started", f"{short_moment(found.started)}, {f'took {since}' if found.finished else f'{since} ago'}")
        )
    return Fields([pair for pair in pairs if pair[1]])


def _causes(causes: Sequence[Cause]) -> list[Block]:
    lines: list[str] = []
    for number, each in enumerate(causes, start=1):
        where = f"{each.container} {each.file}:{each.first_line}-{each.last_line}" if each.container else each.file
        lines += ["", f"{number}. {each.summary}", f"   {where}"]
        lines += [f"   {each.explanation}"] if each.explanation else []
        # The rest of them in short: the first one is the probable one.
        lines += [f"   | {line}" for line in each.excerpt] if number == 1 else []
    return [Lines(lines)] if lines else []


def _took(each: Application) -> datetime.timedelta | None:
    if each.started is None:
        return None
    return (each.finished or datetime.datetime.now(tz=datetime.UTC)) - each.started


def _ago(text: str) -> datetime.datetime:
    match = _AGO.fullmatch(text)
    if match is None:
        raise UsageProblem(f"{text!r} is no span of time", hint="such as 30m, 12h or 3d")
    return datetime.datetime.now(tz=datetime.UTC) - datetime.timedelta(seconds=int(match[1]) * _UNITS[match[2]])
