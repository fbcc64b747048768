"""Which applications are meant: somebody's own, those of a DAG, a task or a run, those that their task has left behind.

Applications of steps carry tags that say whose they are (`Namespace.task_tags` in dags/dag_entities.py).
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
    """Conditions on applications, all of which hold; `dag` is a name in the namespace or a whole id."""

    mine: bool = False
    dag: str | None = None
    task: str | None = None
    run: str | None = None

    def __bool__(self) -> bool:
        return self.mine or self.has_step

    @property
    def has_step(self) -> bool:
        """Whether it says of which steps."""
        return self.dag is not None or self.task is not None or self.run is not None

    def tags(self, settings: Settings) -> list[frozenset[str]]:
        """Sets of tags, of each of which an application has one; the rarest first. UsageProblem without a user."""
        if self.mine and not settings.user:
            raise UsageProblem(
                f"profile {settings.profile!r} has no user: whose applications?",
                hint="export USERNAME_ON_CLUSTER=<name>",
            )
        found = []
        if self.run is not None:
            found.append(frozenset({yarn_tag("run", self.run)}))
        if self.dag is not None:
            names = {self.dag, find_namespace(settings).dag_id(self.dag) if settings.user else self.dag}
            found.append(frozenset(yarn_tag("dag", name) for name in names))
        if self.task is not None:
            found.append(frozenset({yarn_tag("task", self.task)}))
        if self.mine:
            found.append(frozenset({find_namespace(settings).yarn_tags[-1]}))
        return found


def select(
    manager: ResourceManager,
    selection: ApplicationSelection,
    settings: Settings,
    *,
    states: Sequence[str] = (),
    user: str | None = None,
    since: datetime.datetime | None = None,
) -> list[Application]:
    """The applications that fit, the newest first. Raises what asking raises, UsageProblem without a user."""
    wanted = selection.tags(settings)
    rarest = sorted(wanted[0]) if wanted else ()
    found = manager.applications(states=states, user=user, tags=rarest, started_since=since)
    return [each for each in found if all(tags.intersection(each.tags) for tags in wanted)]


def newest(manager: ResourceManager, selection: ApplicationSelection, settings: Settings) -> tuple[Application, int]:
    """The newest application that fits, and how many more do: of yours, if any of them does. NotFound when none."""
    found = select(manager, selection, settings)
    if settings.user:
        own = find_namespace(settings).yarn_tags[-1]
        found = [each for each in found if own in each.tags] or found
    if found:
        return found[0], len(found) - 1
    if selection.has_step:
        raise NotFound(
            "no application of such a step is known to YARN",
            hint="steps that run in the worker's pod have none: `replayctl run … --wait` shows why they failed; "
            "what there is: replayctl yarn-apps --mine",
        )
    raise NotFound("no application has your tag", hint="list all: replayctl yarn-apps")


def running(manager: ResourceManager, selection: ApplicationSelection, settings: Settings) -> list[Application]:
    """The applications that fit and have not ended, the newest first."""
    return select(manager, selection, settings, states=_RUNNING)


@dataclass(frozen=True, slots=True)
class Orphan:
    """A running application without a task: `reason` says what Airflow knows of its DAG."""

    application: Application
    reason: str


def orphans(manager: ResourceManager, airflow: AirflowApi, settings: Settings) -> list[Orphan]:
    """Your running applications whose task has ended, or is not known to Airflow any more.

    Applications that no task has submitted are not among them. Nothing is an orphan unless Airflow has answered.
    """
    # In this order: whatever runs now had its task running before, so a task that is not alive after it has ended.
    candidates = running(manager, ApplicationSelection(mine=True), settings)
    left = candidates
    # Twice: a list that changes while it is read by pages may hide one of them.
    for _ in range(2):
        alive = {instance_tag(*each) for each in airflow.live_instances()} if left else set()
        left = [each for each in left if (tag := _instance_of(each)) is not None and tag not in alive]
    # One whose task has just ended ends with it.
    still = {each.id for each in running(manager, ApplicationSelection(mine=True), settings)} if left else set()
    return [Orphan(each, _reason(airflow, each)) for each in left if each.id in still]


def _instance_of(app: Application) -> str | None:
    return next((tag for tag in app.tags if tag.startswith(INSTANCE_TAG)), None)


def _reason(airflow: AirflowApi, app: Application) -> str:
    # Steps name their application DAG.STEP.
    dag_id = app.name.rpartition(".")[0]
    if not dag_id:
        return "no task that is alive is its own"
    if airflow.find_dag(dag_id) is None:
        return f"Airflow knows no DAG {dag_id!r}"
    return f"no task of {dag_id} that is alive is its own"
