"""yarn-apps, yarn-logs, yarn-kill: Spark applications on YARN."""

from __future__ import annotations

import datetime
import re
from typing import TYPE_CHECKING, Annotated

import typer

from replayctl.commands.options import DryRun
from replayctl.context import AppContext
from replayctl.errors import NotFound, UsageProblem
from replayctl.result import Block, Fields, Lines, Problem, Result, Status, Table

if TYPE_CHECKING:
    from replayctl.yarn import Application
    from replayctl.yarn_logs import Yarn

_ApplicationId = Annotated[str | None, typer.Argument(help="application_…; or say --last.", show_default=False)]
_Mine = Annotated[bool, typer.Option("--mine", help="Only applications with your tag.")]
_Last = Annotated[bool, typer.Option("--last", help="Your newest application.")]
_Container = Annotated[str | None, typer.Option(help="Another container than the driver's.", show_default=False)]
_Executors = Annotated[bool, typer.Option("--executors", help="All containers but the driver's.")]
_Every = Annotated[bool, typer.Option("--all", help="All containers.")]
_LogFiles = Annotated[str, typer.Option(help="Which files, parted by commas.")]
_Tail = Annotated[int | None, typer.Option(min=1, help="Only so many last lines of each.", show_default=False)]
_Follow = Annotated[bool, typer.Option("--follow", help="Go on while the application runs.")]
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
    user: Annotated[str | None, typer.Option(help="YARN's user.", show_default=False)] = None,
    state: Annotated[
        list[str] | None, typer.Option(help="RUNNING, FINISHED, FAILED, KILLED … Repeatable.", show_default=False)
    ] = None,
    name: Annotated[str | None, typer.Option(help="A part of the name.", show_default=False)] = None,
    since: Annotated[
        str | None, typer.Option(help="Started so long ago at most: 30m, 12h, 3d.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
) -> Result:
    """List applications on YARN, the newest first."""
    from replayctl import yarn

    app: AppContext = ctx.obj
    states = [each.upper() for each in state or ()]
    unknown = sorted(set(states) - set(yarn.STATES))
    if unknown:
        raise UsageProblem(f"{unknown[0]!r} is no state of YARN", hint=f"there are: {', '.join(yarn.STATES)}")
    began = _ago(since) if since else None
    with _yarn(app) as cluster:
        found = cluster.manager.applications(
            states=states, user=user, tags=_my_tags(app) if mine else (), started_since=began
        )
    chosen = [each for each in found if name is None or name.lower() in each.name.lower()][:limit]
    rows = [
        (
            each.id,
            each.name,
            each.user,
            each.state if not each.is_final else f"{each.state}, {each.final_status}",
            each.started.isoformat(timespec="seconds"),
            _took(each),
            f"{each.memory_mb} MB, {each.vcores} cores" if not each.is_final else "-",
        )
        for each in chosen
    ]
    columns = ("application", "name", "user", "state", "started", "took", "uses")
    view: Block = Table(columns, rows) if rows else Lines(("none",))
    return Result("yarn-apps", {"applications": chosen}, (view,))


def yarn_logs(
    ctx: typer.Context,
    application: _ApplicationId = None,
    last: _Last = False,
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
    from replayctl import log_view, yarn

    app: AppContext = ctx.obj
    wanted = log_view.Selection(
        container=yarn.container_id(container) if container else None,
        executors=executors,
        every=every,
        names=tuple(yarn.log_file(each) for each in log_files.split(",") if each),
        tail=tail,
        pattern=log_view.pattern(grep) if grep else None,
    )
    if follow and (target is not None or tail is not None or grep):
        raise UsageProblem("--follow shows all as it comes: it goes with none of -o, --tail and --grep")
    with _yarn(app) as cluster:
        found = _application(app, cluster, application, last=last)
        if follow and not found.is_final:
            found = log_view.follow(cluster, found, wanted, app.write_log, app.reporter, raw=raw, wait_s=wait_for)
            return Result("yarn-logs", {"application": found}, ())
        files = cluster.files(found, wait_s=wait_for)
        if listing:
            rows = [(each.container, each.name, str(each.size)) for each in files]
            table = Table(("container", "file", "bytes"), rows, numeric=(2,))
            return Result("yarn-logs", {"application": found, "files": files}, (_head(found), table))
        chosen = wanted.of(files, found)
        causes = log_view.causes(cluster, found, files) if (found.has_failed if diagnose is None else diagnose) else []
        answer = {"application": found, "causes": causes, "files": chosen}
        if causes:
            app.announce(Result("yarn-logs", answer, (_head(found), *_causes(causes))))
        if target is not None:
            written = log_view.save(cluster, found, chosen, target, wanted)
            lines = Lines(tuple(f"wrote {path} ({size} bytes)" for path, size in written))
            whereto = [{"path": path, "bytes": size} for path, size in written]
            return Result("yarn-logs", {**answer, "written": whereto}, (lines,))
        for data in log_view.shown(cluster, found, chosen, wanted):
            app.write_log(data, raw)
        return Result("yarn-logs", answer, ())


def yarn_kill(
    ctx: typer.Context,
    applications: Annotated[list[str] | None, typer.Argument(help="application_…", show_default=False)] = None,
    mine: Annotated[bool, typer.Option("--mine", help="All running applications with your tag.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait until they are gone.")] = 60.0,
    dry_run: DryRun = False,
) -> Result:
    """End applications on YARN, and wait until they are gone."""
    from replayctl import yarn
    from replayctl import yarn_kill as killing

    app: AppContext = ctx.obj
    names = [yarn.application_id(each) for each in applications or ()]
    if bool(names) == mine:
        raise UsageProblem("kill which?", hint="name applications, or say --mine")
    with _yarn(app) as cluster:
        if mine:
            running = [state for state in yarn.STATES if state not in yarn.FINAL_STATES]
            chosen = cluster.manager.applications(states=running, tags=_my_tags(app))
        else:
            chosen = [cluster.manager.application(name) for name in names]
        alive = [each for each in chosen if not each.is_final]
        rows = [(each.id, each.name, each.user, each.state, _took(each)) for each in chosen]
        table = Table(("application", "name", "user", "state", "took"), rows)
        if dry_run or not alive:
            data = {"applications": chosen, "killed": [], "dry_run": dry_run}
            line = Lines((f"would kill {len(alive)} of them" if alive else "nothing of it runs",))
            return Result("yarn-kill", data, (table, line), status="nothing-to-do" if not alive else "ok")
        if not yes:
            app.confirm(f"kill {', '.join(f'{each.id} ({each.name} of {each.user})' for each in alive)}?")
        outcomes = killing.kill(cluster, alive, app.reporter, timeout_s=timeout)
    ends = [(each.id, each.state, each.note) for each in outcomes]
    problems = tuple(Problem("timeout", f"{each.id}: {each.note}") for each in outcomes if not each.gone)
    status: Status = "ok" if not problems else "partial" if len(problems) < len(outcomes) else "failed"
    return Result(
        "yarn-kill",
        {"outcomes": outcomes, "dry_run": False},
        (Table(("application", "state", ""), ends),),
        status=status,
        problems=problems,
    )


def _yarn(app: AppContext) -> Yarn:
    from replayctl.forwards import find_kubernetes
    from replayctl.yarn_logs import Yarn

    return Yarn(find_kubernetes(app.settings, app.environ), app.settings, app.reporter)


def _my_tags(app: AppContext) -> tuple[str, ...]:
    from replayctl.namespace import find_namespace

    return (find_namespace(app.settings).yarn_tags[-1],)


def _application(app: AppContext, cluster: Yarn, name: str | None, *, last: bool) -> Application:
    if (name is None) != last:
        raise UsageProblem("whose logs?", hint="name an application, or say --last")
    if name is not None:
        return cluster.manager.application(name)
    found = cluster.manager.applications(tags=_my_tags(app), limit=1000)
    if not found:
        raise NotFound(f"no application has the tag {_my_tags(app)[0]}", hint="list all: replayctl yarn-apps")
    return found[0]


def _head(found: Application) -> Fields:
    state = found.state if not found.is_final else f"{found.state}, {found.final_status}"
    return Fields((("application", found.id), ("name", found.name), ("user", found.user), ("state", state)))


def _causes(causes: object) -> list[Block]:
    from replayctl.diagnose import Cause

    assert isinstance(causes, list)
    blocks: list[Block] = []
    for number, each in enumerate(causes, start=1):
        assert isinstance(each, Cause)
        where = f"{each.container} {each.file}:{each.first_line}-{each.last_line}" if each.container else each.file
        lines = [f"{number}. {each.summary}", f"   {where}"]
        lines += [f"   {each.explanation}"] if each.explanation else []
        # The rest of them in short: the first one is the probable one.
        lines += [f"   | {line}" for line in each.excerpt] if number == 1 else []
        blocks.append(Lines(lines))
    return blocks


def _took(each: Application) -> str:
    end = each.finished or datetime.datetime.now(tz=datetime.UTC)
    return f"{(end - each.started).total_seconds():.0f} s"


def _ago(text: str) -> datetime.datetime:
    match = _AGO.fullmatch(text)
    if match is None:
        raise UsageProblem(f"{text!r} is no span of time", hint="such as 30m, 12h or 3d")
    return datetime.datetime.now(tz=datetime.UTC) - datetime.timedelta(seconds=int(match[1]) * _UNITS[match[2]])
