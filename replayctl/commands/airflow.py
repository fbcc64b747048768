"""airflow-config: how the cluster's Airflow is configured."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from replayctl.commands.options import Shared
from replayctl.console.result import Block, Fields, Lines, Result, Table
from replayctl.errors import NotFound, ReplayctlError
from replayctl.settings.context import AppContext

if TYPE_CHECKING:
    from replayctl.clients.airflow import AirflowApi
    from replayctl.experiments.airflow_config import AirflowConfig
    from replayctl.settings.namespace import Namespace

# The line that a release writes on its tasks (dags/dag_specs.py).
_IMAGE_LINE = r"(?m)^Image: (\S+)$"


def airflow_config(
    ctx: typer.Context,
    keys: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SECTION.OPTION]...", help="Options to show; all that are set by default.", show_default=False
        ),
    ] = None,
    pod_template: Annotated[
        bool, typer.Option("--pod-template", help="Show only the pod template of tasks, secrets masked.")
    ] = False,
    dag: Annotated[
        str | None, typer.Option(help="Also show the image of the next pod of this DAG of yours.", show_default=False)
    ] = None,
    shared: Shared = False,
) -> Result:
    """Show how the cluster's Airflow is configured, with the source of each value, and the image of the next pod.

    Environment variables override airflow.cfg. Secrets are masked.

    \b
    Examples:
      replayctl airflow-config
      replayctl airflow-config core.executor kubernetes_executor.namespace
      replayctl airflow-config --pod-template
      replayctl airflow-config --dag two_stage_ml100k
    """
    from replayctl.cluster.api import find_kubernetes
    from replayctl.experiments.airflow_config import read_config
    from replayctl.experiments.services import open_airflow
    from replayctl.settings.namespace import find_namespace

    app: AppContext = ctx.obj
    cluster = find_kubernetes(app.settings, app.environ)
    config = read_config(cluster, app.settings, app.reporter, keys or ())
    data: dict[str, object] = asdict(config)
    if pod_template:
        if config.pod_template is None:
            raise NotFound(
                "no pod template was read",
                hint="set airflow.config_maps to the ConfigMap that has it",
                details="\n".join(config.warnings) or None,
            )
        return Result("airflow-config", data, (Lines((config.pod_template.rstrip(),)),), warnings=config.warnings)
    warnings, version, dag_image = list(config.warnings), None, None
    try:
        with open_airflow(app.settings, app.environ, app.reporter, anonymous=dag is None) as api:
            version = api.version()
            dag_image = _image_of(api, find_namespace(app.settings, shared=shared), dag) if dag else None
    except ReplayctlError as error:
        if dag:
            raise
        warnings.append(f"the server's version is unknown: {error}")
    data |= {"version": version, "warnings": warnings}
    if dag:
        data["dag"] = {"name": dag, "image": dag_image or config.image}
    return Result("airflow-config", data, _view(config, version, dag, dag_image), warnings=tuple(warnings))


def _view(config: AirflowConfig, version: str | None, dag: str | None, dag_image: str | None) -> list[Block]:
    pairs = [
        ("version", version or "unknown"),
        ("executor", config.executor or "unknown"),
        ("pod template", config.pod_template_source or "not read"),
        ("image of the next pod", f"{config.image} ({config.image_source})" if config.image else "unknown"),
    ]
    if dag:
        pairs.append((f"… of {dag}", dag_image or "the same: its release chooses none"))
    rows = [(value.key, "-" if value.value is None else value.value, value.source) for value in config.values]
    return [Fields(pairs), Table(("option", "value", "source"), rows, wrap=(1, 2))]


def _image_of(api: AirflowApi, namespace: Namespace, dag: str) -> str | None:
    """The image that the DAG's release chooses for the pods of its tasks, as the server shows it."""
    from replayctl.experiments.finding import find_dag

    texts = api.tasks_docs(find_dag(api, namespace, dag).dag_id).values()
    return next((match[1] for text in texts if (match := re.search(_IMAGE_LINE, text))), None)
