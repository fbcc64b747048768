"""The namespace of the user, as `dags/dag_entities.py` decides it: one rule for the CLI and for what it deploys."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType
from typing import Literal, Protocol, cast

from replayctl import shipped
from replayctl.errors import UsageProblem
from replayctl.settings.declared import Settings

_MODULE = "replayctl_dag_entities"
# What the tag of a task instance begins with.
INSTANCE_TAG = "replayctl-instance-"


class Namespace(Protocol):
    """What the CLI needs of `dag_entities.Namespace`."""

    @property
    def user(self) -> str | None:
        """The user name, None for the common namespace."""

    @property
    def suffix(self) -> str:
        """What follows the names of DAGs and stubs."""

    @property
    def directory(self) -> str:
        """Name of the namespace's folder in a shared one."""

    @property
    def yarn_tags(self) -> tuple[str, ...]:
        """Tags of the namespace's applications on YARN; the last one is unique to the namespace."""

    def dag_id(self, name: str) -> str:
        """The id of the DAG `name`."""

    def mlflow_experiment(self, name: str) -> str:
        """The name of the MLflow experiment `name`."""


def find_namespace(settings: Settings, *, shared: bool = False) -> Namespace:
    """The namespace to work in: the user's, or with `shared` the common one.

    Raises UsageProblem when the user is missing or not a valid name.
    """
    if not shared and not settings.user:
        raise UsageProblem(
            f"user is required in profile {settings.profile!r}",
            hint="export USERNAME_ON_CLUSTER=<name>, or pass --shared for the common namespace",
        )
    try:
        return cast("Namespace", _entities().Namespace(None if shared else settings.user))
    except ValueError as error:
        source = settings.sources.get("user", "unknown source")
        raise UsageProblem(f"{error} (from {source})", hint="export USERNAME_ON_CLUSTER=<name>") from error


def yarn_tag(kind: Literal["dag", "run", "task"], name: str) -> str:
    """The tag on YARN of the applications of a DAG, a run or a task."""
    return str(_entities().yarn_tag(kind, name))


def instance_tag(dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
    """The tag on YARN of one task instance's applications, in all its tries."""
    return str(_entities().instance_tag(dag_id, run_id, task_id, map_index))


def _entities() -> ModuleType:
    if _MODULE not in sys.modules:
        path = shipped.shipped_dir("dags") / "dag_entities.py"
        spec = importlib.util.spec_from_file_location(_MODULE, path)
        if spec is None or spec.loader is None:
            raise ImportError(f"cannot load {path}")
        module = importlib.util.module_from_spec(spec)
        # dataclasses look their module up by name while the class body runs.
        sys.modules[_MODULE] = module
        spec.loader.exec_module(module)
    return sys.modules[_MODULE]
