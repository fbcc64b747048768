"""The profile's Airflow and MLflow: at their addresses, or through forwards if the profile has none."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from replayctl.console.events import Reporter
from replayctl.errors import NotReady, SettingsError, UsageProblem
from replayctl.settings.declared import Settings
from replayctl.settings.load import LOCAL_PROFILE

# A call uses one of the ways to a service, and loading all of them takes longer than all the rest.
if TYPE_CHECKING:
    from replayctl.clients.airflow import AirflowApi
    from replayctl.clients.mlflow import MlflowApi
    from replayctl.experiments.worker_pods import WorkerPods

# A line in the documentation of a step's task (dags/dag_pages.py).
_ON_SPARK = "Engine: spark"


def has_airflow(settings: Settings) -> bool:
    """Whether the profile has an Airflow that can be asked without further settings; the local one always has."""
    return bool(settings.airflow.url or settings.airflow.username) or settings.profile == LOCAL_PROFILE


def is_local(settings: Settings) -> bool:
    """Whether the profile's Airflow is the local stack's."""
    return settings.airflow.url is None and settings.profile == LOCAL_PROFILE


def is_stopped(settings: Settings) -> bool:
    """Whether the profile's Airflow is the local stack's and no part of that runs; of others, nothing is known."""
    if not is_local(settings):
        return False
    from replayctl.local import stack

    return not stack.running_parts(settings)


def check_spark(settings: Settings, api: AirflowApi, dag_id: str, engine: str | None) -> None:
    """Raises NotReady for a DAG with steps on Spark if the local stack has no Spark; `engine` is that of the run.

    Which steps another engine than their own could compute is not known here, so with one, only Spark is checked.
    """
    if not is_local(settings) or engine == "embedded":
        return
    from replayctl.local import environments

    if engine == "spark":
        what = "--engine spark"
    else:
        steps = [name for name, text in api.tasks_docs(dag_id).items() if _ON_SPARK in text.splitlines()]
        what = f"step{'s' if len(steps) > 1 else ''} {', '.join(sorted(steps))} of {dag_id}" if steps else ""
    if what and not environments.has_spark(settings):
        verb = "need" if what.startswith("steps ") else "needs"
        raise NotReady(
            f"{what} {verb} Spark, which the local stack does not have", hint="run `replayctl local up --engine spark`"
        )


@contextlib.contextmanager
def open_airflow(
    settings: Settings, environ: Mapping[str, str], reporter: Reporter, *, anonymous: bool = False
) -> Iterator[AirflowApi]:
    """The profile's Airflow: the local stack's, the one at `airflow.url`, else `targets.airflow` through a forward.

    With `anonymous` no credentials are needed, for its health and version. Raises SettingsError that names the missing
    key, NotReady when the local stack does not run, and what opening a forward raises.
    """
    from replayctl.clients.airflow import AirflowApi

    if is_local(settings):
        from replayctl.local import stack

        yield stack.airflow_api(settings)
        return
    username = settings.airflow.username
    password = None if anonymous else settings.airflow_password()
    if anonymous:
        username, password = username or "", password or ""
    if username is None or password is None:
        missing = "airflow.username" if username is None else "airflow.password_file"
        raise SettingsError(
            f"{missing} is required in profile {settings.profile!r}",
            hint="export REPLAYCTL_AIRFLOW_USERNAME=<name> REPLAYCTL_AIRFLOW_PASSWORD_FILE=<file>",
        )
    if settings.airflow.url is not None:
        yield AirflowApi(settings.airflow.url, username=username, password=password)
        return
    from replayctl.cluster.api import parse_endpoint

    with _forward("airflow", settings.targets.airflow, settings, environ, reporter) as url:
        port = parse_endpoint(settings.targets.airflow).port or ""
        # Where `replayctl port-forward airflow` shows the pages: this forward ends with the command.
        pages = settings.links.airflow or (f"http://127.0.0.1:{port}" if port.isdigit() else url)
        yield AirflowApi(url, username=username, password=password, pages=pages)


def find_pods(settings: Settings, environ: Mapping[str, str]) -> WorkerPods | None:
    """The pods of tasks; None for the local stack, and without a kubeconfig."""
    if settings.profile == LOCAL_PROFILE:
        return None
    from replayctl.cluster.api import find_kubernetes, parse_endpoint
    from replayctl.experiments.worker_pods import WorkerPods

    try:
        return WorkerPods(find_kubernetes(settings, environ), parse_endpoint(settings.targets.airflow).namespace)
    except SettingsError:
        return None


@contextlib.contextmanager
def open_mlflow(
    settings: Settings, environ: Mapping[str, str], reporter: Reporter, server: str = ""
) -> Iterator[MlflowApi]:
    """The profile's MLflow: the one at `mlflow.url`, the local stack's, else `targets.mlflow` through a forward.

    With `server` the one of that name in `mlflow.servers`; UsageProblem when there is none.
    """
    from replayctl.clients.mlflow import MlflowApi

    if server:
        if server not in settings.mlflow.servers:
            known = ", ".join(sorted(settings.mlflow.servers)) or "none"
            raise UsageProblem(
                f"profile {settings.profile!r} has no MLflow server {server!r}",
                hint=f"add it to mlflow.servers in replayctl.yaml; known: {known}",
            )
        yield MlflowApi(settings.mlflow.servers[server])
    elif settings.mlflow.url is not None:
        yield MlflowApi(settings.mlflow.url)
    elif settings.profile == LOCAL_PROFILE:
        from replayctl.local import stack

        yield MlflowApi(stack.mlflow_url(settings))
    elif settings.targets.mlflow is not None:
        with _forward("mlflow", settings.targets.mlflow, settings, environ, reporter) as url:
            yield MlflowApi(url)
    else:
        raise SettingsError(
            f"profile {settings.profile!r} has neither mlflow.url nor targets.mlflow",
            hint=f"set one of them in replayctl.yaml under profiles → {settings.profile}",
        )


@contextlib.contextmanager
def _forward(
    name: str, target: str, settings: Settings, environ: Mapping[str, str], reporter: Reporter
) -> Iterator[str]:
    from replayctl.cluster.api import find_kubernetes, parse_endpoint
    from replayctl.forwarding.announce import announce_forward
    from replayctl.forwarding.tunnel import open_tunnel

    announce_forward(reporter, f"{name}.url", target)
    with open_tunnel(find_kubernetes(settings, environ), parse_endpoint(target), reporter) as url:
        yield url
