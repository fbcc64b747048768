"""sync-dags, releases, rollback, gc, undeploy: deploys of the DAG folder and their history."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from replayctl.commands import dags_views
from replayctl.commands.options import BreakLock, DryRun, Force, Shared, Wait
from replayctl.console.result import Block, Fields, Lines, Problem, Result, Status, Table
from replayctl.console.times import moment
from replayctl.errors import ReplayctlError, SettingsError, UsageProblem
from replayctl.settings.context import AppContext

if TYPE_CHECKING:
    from collections.abc import Callable

    from replayctl.clients.airflow import AirflowApi
    from replayctl.publishing.removal import Removal
    from replayctl.publishing.unfinished import Unfinished

_FAILED_SHOWN = 3
_NOT_VERIFIED = "the release was not verified: Airflow was not asked"


def sync_dags(
    ctx: typer.Context,
    dags_dir: Annotated[
        Path | None,
        typer.Option(help="Folder to deploy; ./dags if it exists, else the shipped DAGs.", show_default=False),
    ] = None,
    shared: Shared = False,
    wait: Wait = None,
    validate: Annotated[
        bool, typer.Option("--validate/--no-validate", help="Check the code that Airflow runs when it parses DAGs.")
    ] = True,
    force: Force = False,
    replace_others: Annotated[
        bool, typer.Option("--replace", help="Remove DAG modules that were deployed from another folder.")
    ] = False,
    break_lock: BreakLock = False,
    dry_run: DryRun = False,
) -> Result:
    """Deploy your DAGs and wait until Airflow runs the new code.

    With `--dry-run`, see what would be published, and which steps a run would compute or reuse. If Airflow cannot
    load the new release, the previous one is published again.

    \b
    Examples:
      replayctl sync-dags --dry-run
      replayctl sync-dags --dags-dir my-experiments/dags
    """
    from replayctl import deploy

    app: AppContext = ctx.obj
    workspace = app.workspace(shared=shared)
    find_server = _server_to_wait_for(ctx, wait)
    report = deploy.sync(
        deploy.find_dags_dir(dags_dir, app.cwd),
        workspace,
        find_server=find_server,
        options=deploy.SyncOptions(
            dry_run=dry_run, validate=validate, force=force, replace=replace_others, break_lock=break_lock
        ),
    )
    view = dags_views.sync_view(report)
    return Result(
        "sync-dags",
        report,
        view,
        status="ok" if report.changed else "nothing-to-do",
        warnings=() if find_server or dry_run else (_NOT_VERIFIED,),
    )


def releases(
    ctx: typer.Context,
    audit: Annotated[bool, typer.Option("--audit", help="Show the audit log instead of the stored releases.")] = False,
    shared: Shared = False,
) -> Result:
    """List your releases, with who deployed them, when, and from which folder and commit.

    \b
    Examples:
      replayctl releases
      replayctl releases --audit
    """
    from replayctl.bundle.specs import dags_text
    from replayctl.publishing import history

    app: AppContext = ctx.obj
    report = history.releases(app.workspace(shared=shared))
    if audit:
        rows = [
            (
                moment(line.get("at")),
                *(str(line.get(key) or "-") for key in ("action", "release", "previous", "user", "host")),
            )
            for line in report.audit
        ]
        return Result("releases", report, (Table(("at", "action", "release", "before", "user", "host"), rows),))
    rows = [
        (
            "→" if record.current else "",
            record.name,
            moment(record.published_at or record.made_at),
            f"{record.user}@{record.host}",
            record.source.folder if record.source else "-",
            _commit(record.commit, record.changed_files),
            dags_text(sum(len(ids or ()) for ids in record.dags.values()), list(record.dags.values()).count(None)),
        )
        for record in report.releases
    ]
    if not rows:
        return Result("releases", report, (Lines((f"no releases in {report.target}",)),))
    columns = ("", "release", "published", "by", "folder", "commit", "content")
    return Result("releases", report, (Table(columns, rows, title=report.target, wrap=(4, 6)),))


def rollback(
    ctx: typer.Context,
    release: Annotated[
        str | None,
        typer.Argument(help="Name of a stored release or a prefix of it; the previous release by default."),
    ] = None,
    shared: Shared = False,
    wait: Wait = None,
    force: Force = False,
    break_lock: BreakLock = False,
    dry_run: DryRun = False,
) -> Result:
    """Publish an earlier release again and wait until Airflow runs it.

    \b
    Examples:
      replayctl rollback --dry-run
      replayctl rollback r_3f2a
    """
    from replayctl.publishing import rollback as back

    app: AppContext = ctx.obj
    workspace = app.workspace(shared=shared)
    find_server = _server_to_wait_for(ctx, wait)
    report = back.rollback(
        release,
        workspace,
        find_server=find_server,
        force=force,
        break_lock=break_lock,
        dry_run=dry_run,
    )
    verb = "would publish" if dry_run else "published"
    fields = [(verb, report.release), ("before", report.previous or "-"), ("target", report.target)]
    if report.seen_after_s is not None:
        fields.append(("shown by Airflow", f"after {report.seen_after_s:.1f} s"))
    return Result(
        "rollback",
        report,
        (Fields(tuple(fields)),),
        status="ok" if report.changed else "nothing-to-do",
        warnings=() if find_server or dry_run else (_NOT_VERIFIED,),
    )


def gc(
    ctx: typer.Context,
    keep: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of releases to keep; deploy.keep_releases by default.",
            show_default=False,
        ),
    ] = None,
    shared: Shared = False,
    break_lock: BreakLock = False,
    dry_run: DryRun = False,
) -> Result:
    """Remove old releases that no run needs any more, and unfinished artifacts of killed tasks.

    Keeps the current release, the newest ones and those that a live run may use. Unfinished artifacts are removed when
    nothing was written to them for `deploy.keep_unfinished_days`.

    \b
    Examples:
      replayctl gc --dry-run
      replayctl gc --keep 3
    """
    from replayctl.publishing import removal
    from replayctl.publishing.unfinished import remove_unfinished

    app: AppContext = ctx.obj
    workspace, server = app.workspace(shared=shared), _server(ctx)
    report = removal.gc(
        workspace,
        server=server() if server else None,
        keep=keep,
        break_lock=break_lock,
        dry_run=dry_run,
    )
    try:
        unfinished = remove_unfinished(workspace, app.environ, dry_run=dry_run)
    except SettingsError as error:
        result = _removed("gc", report)
        return result._replace(warnings=(f"{error}: {error.hint}",))
    except ReplayctlError as error:
        result = _removed("gc", report)
        problem = Problem(error.code, f"unfinished artifacts were not removed: {error}", error.hint, error.details)
        return result._replace(status="partial", problems=(problem,))
    return _removed("gc", replace(report, unfinished=unfinished))


def undeploy(
    ctx: typer.Context,
    delete_from_airflow: Annotated[
        bool, typer.Option("--delete-from-airflow", help="Also delete the DAGs and their runs in Airflow.")
    ] = False,
    shared: Shared = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove without asking for confirmation.")] = False,
    break_lock: BreakLock = False,
    dry_run: DryRun = False,
) -> Result:
    """Remove your DAGs and releases from the shared folders, after you have confirmed it.

    Artifacts and metrics are kept, and so is the audit log. Stop live runs first.

    \b
    Examples:
      replayctl undeploy --dry-run
      replayctl undeploy --delete-from-airflow
    """
    from replayctl.publishing import removal

    app: AppContext = ctx.obj
    find_server = _server(ctx)
    if delete_from_airflow and find_server is None:
        raise _no_airflow(app, "--delete-from-airflow")
    remove = functools.partial(
        removal.undeploy,
        app.workspace(shared=shared),
        server=find_server() if find_server else None,
        delete_from_airflow=delete_from_airflow,
        break_lock=break_lock,
    )
    report = remove(dry_run=True) if dry_run or not yes else remove()
    if not dry_run and not yes:
        if question := _question(report):
            app.confirm(question)
        report = remove()
    return _removed("undeploy", report)


def _question(plan: Removal) -> str | None:
    """What to confirm before an undeploy; None if it would remove nothing."""
    subjects = [
        f"{len(names)} {what}{'' if len(names) == 1 else 's'}"
        for names, what in ((plan.stubs, "DAG file"), (plan.removed, "release"))
        if names
    ]
    question = f"{' and '.join(subjects)} in {plan.target}, with no release left to roll back to" if subjects else ""
    if plan.dags_deleted:
        dags = f"{len(plan.dags_deleted)} DAG{'' if len(plan.dags_deleted) == 1 else 's'} and all their runs in Airflow"
        question = f"{question}, and {dags}" if question else dags
    return f"Remove {question}?" if question else None


def _removed(command: str, report: Removal) -> Result:
    verb = "would remove" if report.dry_run else "removed"
    rows = [(verb, name) for name in (*report.stubs, *report.removed)]
    rows += [
        ("would delete from Airflow" if report.dry_run else "deleted from Airflow", dag) for dag in report.dags_deleted
    ]
    rows += [("kept", f"{name}: {why}") for name, why in report.kept.items()]
    unfinished = report.unfinished
    if unfinished:
        rows += [(verb, f"unfinished artifact {name}") for name in unfinished.removed]
        rows += [("kept", f"unfinished artifact {name}: {why}") for name, why in unfinished.kept.items()]
    problems = tuple(
        Problem("failed", f"{dag} is still in Airflow: {why}") for dag, why in (report.dags_left or {}).items()
    )
    nothing = not (report.stubs or report.removed or report.dags_deleted or (unfinished and unfinished.removed))
    fields = [("target", report.target), *([("artifacts", unfinished.folder)] if unfinished else [])]
    view: list[Block] = [Fields(tuple(fields))]
    view += [Table(("action", "what"), rows, wrap=(1,))] if rows else []
    status: Status = "partial" if problems else "nothing-to-do" if nothing else "ok"
    return Result(command, report, view, status=status, problems=problems, warnings=_not_removed(unfinished))


def _not_removed(unfinished: Unfinished | None) -> tuple[str, ...]:
    """Which unfinished artifacts stay though they are old. Tasks may remove what this user may not."""
    if unfinished is None or not unfinished.failed:
        return ()
    names = [f"{name} ({why})" for name, why in unfinished.failed.items()]
    more = f" and {len(names) - _FAILED_SHOWN} more" if len(names) > _FAILED_SHOWN else ""
    return (
        f"unfinished artifacts stay in {unfinished.folder} until the next task computes a step: "
        f"{', '.join(names[:_FAILED_SHOWN])}{more}",
    )


def _commit(commit: str | None, changed_files: int | None) -> str:
    if commit is None:
        return "-"
    files = "changed file" if changed_files == 1 else "changed files"
    return f"{commit[:10]}{f' and {changed_files} {files}' if changed_files else ''}"


def _server(ctx: typer.Context) -> Callable[[], AirflowApi] | None:
    from replayctl.experiments.services import has_airflow, open_airflow

    app: AppContext = ctx.obj
    if not has_airflow(app.settings):
        return None
    return lambda: ctx.with_resource(open_airflow(app.settings, app.environ, app.reporter))


def _server_to_wait_for(ctx: typer.Context, wait: bool | None) -> Callable[[], AirflowApi] | None:
    find_server = _server(ctx)
    if wait and find_server is None:
        raise _no_airflow(ctx.obj, "--wait")
    return None if wait is False else find_server


def _no_airflow(app: AppContext, option: str) -> UsageProblem:
    return UsageProblem(
        f"{option} requires Airflow, and profile {app.settings.profile!r} has no airflow.username",
        hint="export REPLAYCTL_AIRFLOW_USERNAME=<name> REPLAYCTL_AIRFLOW_PASSWORD_FILE=<file>",
    )
