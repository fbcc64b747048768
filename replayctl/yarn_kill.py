"""The end of applications on YARN: asked for, by whatever way is allowed, and waited for."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from replayctl.errors import RemoteCommandFailed, Unreachable
from replayctl.events import Reporter
from replayctl.yarn import Application, application_id
from replayctl.yarn_logs import Yarn

_POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class Outcome:
    """What has become of one application; `gone` when it has come to an end, by us or by itself."""

    id: str
    state: str
    gone: bool
    note: str


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
