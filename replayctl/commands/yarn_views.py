"""Tables and texts of the commands for applications on YARN."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from replayctl.console.result import Block, Cell, Fields, Lines, Table
from replayctl.console.times import short_duration, short_moment

if TYPE_CHECKING:
    from replayctl.clients.resource_manager import Application
    from replayctl.logs.diagnose import Cause


def kill_table(applications: Sequence[Application], reasons: Mapping[str, str]) -> Table:
    """The applications that would be killed."""
    columns = ("application", "state", "name", *(("why",) if reasons else ()), "took", "user")
    rows: list[list[Cell]] = []
    for application in applications:
        reason = [reasons[application.id]] if reasons else []
        rows.append(
            [application.id, application.outcome, application.name, *reason, _took(application), application.user]
        )
    return Table(columns, rows, numeric=(columns.index("took"),), shorten=(2,), wrap=(3,) if reasons else ())


def because(reasons: Mapping[str, str], application: Application) -> str:
    """The reason why an application is selected, if there is one."""
    return f": {reasons[application.id]}" if application.id in reasons else ""


def head(application: Application) -> Fields:
    """An application in a few fields."""
    pairs = [
        ("application", application.id),
        ("name", application.name),
        ("user", application.user),
        ("state", application.outcome),
    ]
    took = _took(application)
    if application.started is not None and took is not None:
        since = short_duration(took.total_seconds())
        pairs.append(
            (
                "started",
                f"{short_moment(application.started)}, {f'took {since}' if application.finished else f'{since} ago'}",
            )
        )
    return Fields([pair for pair in pairs if pair[1]])


def cause_lines(causes: Sequence[Cause]) -> list[Block]:
    """The probable causes of a failure, the first one with its excerpt."""
    lines: list[str] = []
    for number, cause in enumerate(causes, start=1):
        lines += ["", f"{number}. {cause.summary}", f"   {_place(cause)}"]
        lines += [f"   {cause.explanation}"] if cause.explanation else []
        # Only the most probable cause is shown with its excerpt.
        lines += [f"   | {line}" for line in cause.excerpt] if number == 1 else []
    return [Lines(lines)] if lines else []


def row(application: Application) -> tuple[Cell, ...]:
    """An application as a row of `yarn-apps`."""
    return (
        application.id,
        application.outcome,
        application.name,
        application.started,
        _took(application),
        application.user,
        f"{application.memory_mb} MB, {application.vcores} cores" if application.memory_mb else None,
    )


def _place(cause: Cause) -> str:
    if not cause.container:
        return cause.file
    return f"{cause.container} {cause.file}:{cause.first_line}-{cause.last_line}"


def _took(application: Application) -> datetime.timedelta | None:
    if application.started is None:
        return None
    return (application.finished or datetime.datetime.now(tz=datetime.UTC)) - application.started
