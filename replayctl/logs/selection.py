"""Selects applications: a user's own, those of a DAG, a task or a run, and orphans.

Applications of steps carry tags that name their owner and their step (`Namespace.task_tags` in dags/dag_entities.py).
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

from replayctl.clients.airflow import AirflowApi
from replayctl.clients.resource_manager import FINAL_STATES, STATES, Application, ResourceManager
from replayctl.errors import NotFound, UsageProblem
from replayctl.settings.declared import Settings
from replayctl.settings.namespace import INSTANCE_TAG, find_namespace, instance_tag, yarn_tag

_RUNNING = tuple(state for state in STATES if state not in FINAL_STATES)


@dataclass(frozen=True, slots=True)
class ApplicationSelection:
    """Conditions on applications, combined with AND; `dag` is a name in the namespace or a full DAG ID."""

    mine: bool = False
    dag: str | None = None
    task: str | None = None
    run: str | None = None

    def __bool__(self) -> bool:
        return self.mine or self.has_step

    @property
    def has_step(self) -> bool:
        """Whether it selects by DAG, task or run."""
        return self.dag is not None or self.task is not None or self.run is not None

    def tags(self, settings: Settings) -> list[frozenset[str]]:
        """Sets of tags, rarest first. A match has one tag of each set. Raises UsageProblem without a user."""
        if self.mine and not settings.user:
            raise UsageProblem(
                f"cannot select your applications: profile {settings.profile!r} has no user",
                hint="export USERNAME_ON_CLUSTER=<name>",
            )
        alternatives = []
        if self.run is not None:
            alternatives.append(frozenset({yarn_tag("run", self.run)}))
        if self.dag is not None:
            names = {self.dag, find_namespace(settings).dag_id(self.dag) if settings.user else self.dag}
            alternatives.append(frozenset(yarn_tag("dag", name) for name in names))
        if self.task is not None:
            alternatives.append(frozenset({yarn_tag("task", self.task)}))
        if self.mine:
            alternatives.append(frozenset({find_namespace(settings).yarn_tags[-1]}))
        return alternatives


def select(
    manager: ResourceManager,
    selection: ApplicationSelection,
    settings: Settings,
    *,
    states: Sequence[str] = (),
    user: str | None = None,
    since: datetime.datetime | None = None,
) -> list[Application]:
    """The matching applications, newest first. Raises UsageProblem without a user, and the client's errors."""
    required = selection.tags(settings)
    rarest = sorted(required[0]) if required else ()
    applications = manager.applications(states=states, user=user, tags=rarest, started_since=since)
    return [item for item in applications if all(tags.intersection(item.tags) for tags in required)]


def newest(manager: ResourceManager, selection: ApplicationSelection, settings: Settings) -> tuple[Application, int]:
    """The newest matching application, and how many others match; yours first. Raises NotFound without a match."""
    applications = select(manager, selection, settings)
    if settings.user:
        own = find_namespace(settings).yarn_tags[-1]
        applications = [application for application in applications if own in application.tags] or applications
    if applications:
        return applications[0], len(applications) - 1
    if selection.has_step:
        raise NotFound(
            "no application matches the step",
            hint="run `replayctl yarn-apps --mine`; steps in the worker's pod have no application, "
            "`replayctl run … --wait` shows why they failed",
        )
    raise NotFound("no application has your tag", hint="run `replayctl yarn-apps` to list all applications")


def running(manager: ResourceManager, selection: ApplicationSelection, settings: Settings) -> list[Application]:
    """The matching applications that have not ended, newest first."""
    return select(manager, selection, settings, states=_RUNNING)


@dataclass(frozen=True, slots=True)
class Orphan:
    """A running application whose task has ended; `reason` says why it is considered an orphan."""

    application: Application
    reason: str


def orphans(manager: ResourceManager, airflow: AirflowApi, settings: Settings) -> list[Orphan]:
    """Your running applications whose task has ended or is unknown to Airflow.

    Applications that were not submitted by a task are excluded. Without an answer from Airflow, none is an orphan.
    """
    # The order matters: an application in this list had an active task when it started, so a task that is not active
    # afterwards has ended.
    candidates = running(manager, ApplicationSelection(mine=True), settings)
    # Twice: a list that changes while it is read page by page may omit an instance.
    for _ in range(2):
        alive = {instance_tag(*instance) for instance in airflow.live_instances()} if candidates else set()
        candidates = [item for item in candidates if (tag := _instance_of(item)) is not None and tag not in alive]
    # An application whose task has just ended may have ended with it.
    running_ids = (
        {item.id for item in running(manager, ApplicationSelection(mine=True), settings)} if candidates else set()
    )
    return [Orphan(item, _reason(airflow, item)) for item in candidates if item.id in running_ids]


def _instance_of(app: Application) -> str | None:
    return next((tag for tag in app.tags if tag.startswith(INSTANCE_TAG)), None)


def _reason(airflow: AirflowApi, app: Application) -> str:
    # Steps name their application DAG.STEP.
    dag_id = app.name.rpartition(".")[0]
    if not dag_id:
        return "no active task owns it"
    if airflow.find_dag(dag_id) is None:
        return f"Airflow has no DAG {dag_id!r}"
    return f"no active task of {dag_id} owns it"
