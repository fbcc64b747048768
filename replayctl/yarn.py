"""Applications on YARN: which one is selected, why it failed, which ones are orphans, and how they are killed.

Details are in `clients.resource_manager` (requests), `logs` (where logs are, how they are read and diagnosed) and
`forwarding` (connections to the cluster).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from replayctl.clients.patience import wait_until
from replayctl.clients.resource_manager import Application, application_id
from replayctl.cluster.api import find_kubernetes
from replayctl.console.events import Reporter
from replayctl.errors import RemoteCommandFailed, ReplayctlError, SettingsError, TimedOut, UsageProblem
from replayctl.experiments.services import open_airflow
from replayctl.logs.diagnose import Cause
from replayctl.logs.selection import ApplicationSelection, Orphan, newest, orphans
from replayctl.logs.sources import Yarn
from replayctl.logs.stream import LogFile
from replayctl.logs.view import causes
from replayctl.settings.declared import Settings
from replayctl.settings.load import LOCAL_PROFILE

_POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of killing one application; `ended` is true when it has ended, killed or by itself."""

    id: str
    state: str
    ended: bool
    note: str


def open_yarn(settings: Settings, environ: Mapping[str, str], reporter: Reporter) -> Yarn:
    """YARN of the profile, reached through forwards; a context manager. Raises SettingsError without a kubeconfig."""
    return Yarn(find_kubernetes(settings, environ), settings, reporter)


def find_application(
    yarn: Yarn, name: str | None, selection: ApplicationSelection, settings: Settings, reporter: Reporter
) -> Application:
    """The application with this ID, or the newest one selected. Raises UsageProblem for both or neither."""
    if (name is None) != bool(selection):
        raise UsageProblem(
            "no application is selected"
            if name is None
            else "an application ID cannot be combined with --last, --dag, --task or --run",
            hint="pass an application ID, or --last, or any of --dag, --task and --run",
        )
    if name is not None:
        return yarn.application(name)
    application, others = newest(yarn.manager, selection, settings)
    if others and selection.has_step:
        reporter.step(f"{application.id} is the newest of {others + 1} matches; run `replayctl yarn-apps` to list them")
    return application


def find_orphans(yarn: Yarn, settings: Settings, environ: Mapping[str, str], reporter: Reporter) -> list[Orphan]:
    """The user's running applications whose task has ended in Airflow. Raises SettingsError in the local profile."""
    if settings.airflow.url is None and settings.profile == LOCAL_PROFILE:
        # The embedded Airflow submits nothing to YARN: judged by it, every application would be an orphan.
        raise SettingsError(
            f"cannot find orphans: profile {settings.profile!r} has no airflow.url",
            hint="set REPLAYCTL_AIRFLOW_URL, or select the profile of the cluster",
        )
    with open_airflow(settings, environ, reporter) as airflow:
        return orphans(yarn.manager, airflow, settings)


def probable_causes(
    yarn: Yarn,
    application: Application,
    files: Callable[[], Sequence[LogFile]],
    reporter: Reporter,
    *,
    requested: bool | None,
    again: Sequence[LogFile] = (),
) -> list[Cause]:
    """The probable causes of a failure: if `requested`, or, when that is None, if the application has failed.

    The log files `again` are shown afterwards.
    """
    diagnosed = application.has_failed if requested is None else requested
    return causes(yarn, application, files(), reporter, again=again) if diagnosed else []


def kill(cluster: Yarn, applications: Sequence[Application], reporter: Reporter, *, timeout_s: float) -> list[Outcome]:
    """Kill the applications and wait until all have ended. One that ends by itself meanwhile is not an error."""
    notes: dict[str, str] = {}
    for application in applications:
        reporter.step(f"killing {application.id} ({application.name})")
        if not cluster.manager.kill(application.id):
            reporter.note("the ResourceManager does not allow it; running `yarn application -kill` in its pod")
            command = ["yarn", "application", "-kill", application_id(application.id)]
            try:
                cluster.execute(command, lambda _: None, timeout_s=120.0)
            except (RemoteCommandFailed, TimedOut) as error:
                # The others are killed all the same; whether this one has ended is seen below.
                notes[application.id] = f"{error}: {error.details or ''}".strip(": ")
    latest = list(applications)

    def look() -> list[Application] | None:
        nonlocal latest
        latest = [item if item.is_final else cluster.manager.application(item.id) for item in latest]
        alive = [application.id for application in latest if not application.is_final]
        if alive:
            reporter.status(f"waiting until {', '.join(alive)} ends")
        return None if alive else latest

    def late(waited_s: float, _trouble: ReplayctlError | None) -> TimedOut:
        return TimedOut(f"not all applications ended within {waited_s:.0f} s")

    # The kill continues without us: the last known states are the answer then.
    with contextlib.suppress(TimedOut):
        wait_until(look, late, timeout_s=timeout_s, poll_s=_POLL_S, reporter=reporter)
    return [_outcome(application, notes.get(application.id), timeout_s) for application in latest]


def _outcome(app: Application, note: str | None, waited_s: float) -> Outcome:
    if app.state == "KILLED":
        return Outcome(app.id, app.state, True, "killed")
    if app.is_final:
        return Outcome(app.id, app.state, True, f"ended by itself: {app.final_status}")
    return Outcome(app.id, app.state, False, note or f"still {app.state} after {waited_s:.0f} s")
