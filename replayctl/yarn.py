"""Applications on YARN, told once: which one is meant, why it failed, which nobody waits for, and how they are ended.

Details lie in `clients.resource_manager` (questions), `logs` (where logs are, how they are read, what failed in them)
and `forwarding` (the way there).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from replayctl.clients.resource_manager import Application, application_id
from replayctl.cluster.api import find_kubernetes
from replayctl.console.events import Reporter
from replayctl.errors import RemoteCommandFailed, SettingsError, Unreachable, UsageProblem
from replayctl.experiments.services import find_airflow
from replayctl.logs.diagnose import Cause
from replayctl.logs.selection import ApplicationSelection, Orphan, newest, orphans
from replayctl.logs.sources import Yarn
from replayctl.logs.stream import LogFile
from replayctl.logs.view import causes
from replayctl.settings.declared import Settings

_POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class Outcome:
    """What has become of one application; `gone` when it has come to an end, by us or by itself."""

    id: str
    state: str
    gone: bool
    note: str


def open_yarn(settings: Settings, environ: Mapping[str, str], reporter: Reporter) -> Yarn:
    """YARN of the profile, reached through forwards; a context manager. SettingsError when no kubeconfig is there."""
    return Yarn(find_kubernetes(settings, environ), settings, reporter)


def find_application(
    yarn: Yarn, name: str | None, selection: ApplicationSelection, settings: Settings, reporter: Reporter
) -> Application:
    """The application of that id, or the newest that the selection has. UsageProblem for both or neither."""
    if (name is None) != bool(selection):
        raise UsageProblem("whose logs?", hint="name an application, or say --last, or some of --dag, --task and --run")
    if name is not None:
        return yarn.application(name)
    application, others = newest(yarn.manager, selection, settings)
    if others and selection.has_step:
        reporter.step(f"{application.id} is the newest of {others + 1} that fit; replayctl yarn-apps lists them")
    return application


def find_orphans(yarn: Yarn, settings: Settings) -> list[Orphan]:
    """Running applications of the user's whose task has ended, by Airflow's word. SettingsError without an Airflow."""
    if settings.airflow.url is None:
        # The local stack's own Airflow sends nothing to YARN: to it, everything there would be an orphan.
        raise SettingsError(
            f"--orphans asks Airflow, and profile {settings.profile!r} has no airflow.url",
            hint="choose the cluster's profile, or set REPLAYCTL_AIRFLOW_URL",
        )
    return orphans(yarn.manager, find_airflow(settings), settings)


def probable_causes(
    yarn: Yarn,
    application: Application,
    files: Callable[[], Sequence[LogFile]],
    *,
    wanted: bool | None,
    again: Sequence[LogFile] = (),
) -> list[Cause]:
    """Why it failed: when that is `wanted`, and when nobody says otherwise (None), after a failure.

    The logs `again` will be shown afterwards.
    """
    asked = application.has_failed if wanted is None else wanted
    return causes(yarn, application, files(), again=again) if asked else []


def kill(cluster: Yarn, applications: Sequence[Application], reporter: Reporter, *, timeout_s: float) -> list[Outcome]:
    """Ends each application and waits for all. One that ends by itself meanwhile is no error."""
    notes: dict[str, str] = {}
    for each in applications:
        reporter.step(f"ending {each.id} ({each.name})")
        if not cluster.manager.kill(each.id):
            reporter.note("the ResourceManager does not let us: asking its own program")
            try:
                cluster.execute(
                    ["yarn", "application", "-kill", application_id(each.id)], lambda _: None, timeout_s=120.0
                )
            except RemoteCommandFailed as error:
                notes[each.id] = f"{error}: {error.details or ''}".strip(": ")
    deadline = time.monotonic() + timeout_s
    now = list(applications)
    while True:
        try:
            now = [each if each.is_final else cluster.manager.application(each.id) for each in now]
        except Unreachable as error:
            # What was asked for goes on; what is known so far is told at the end.
            reporter.note(str(error))
        alive = [each for each in now if not each.is_final]
        if not alive or time.monotonic() > deadline:
            return [_outcome(each, notes.get(each.id), timeout_s) for each in now]
        reporter.status(f"waiting for the end of {', '.join(each.id for each in alive)}")
        time.sleep(_POLL_S)


def _outcome(app: Application, note: str | None, waited_s: float) -> Outcome:
    if app.state == "KILLED":
        return Outcome(app.id, app.state, True, "killed")
    if app.is_final:
        return Outcome(app.id, app.state, True, f"ended by itself: {app.final_status}")
    return Outcome(app.id, app.state, False, note or f"still {app.state} after {waited_s:.0f} s")
