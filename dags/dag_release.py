"""How a release presents itself: what stubs call to get their DAGs, and what the CLI calls to get the specs.

Airflow is imported only where DAGs are made, so specs load wherever Python runs.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from .dag_specs import DagSpec, Deployment

if TYPE_CHECKING:
    from airflow.sdk import DAG

RELEASE_LINE = "Release: "
DEPLOYMENT_FILE = "deployment.json"


def _module(name: str) -> ModuleType:
    return importlib.import_module(f".{name}", __package__)


def load_deployment() -> Deployment:
    """Where this release runs, as its deploy has recorded it."""
    folder = Path(__file__).parent
    return Deployment.from_json((folder / DEPLOYMENT_FILE).read_text(encoding="utf-8"), release=folder.name)


def load_specs(module: str, deployment: Deployment) -> tuple[DagSpec, ...]:
    """The specs of one DAG module of this release; empty for a module that builds its DAGs itself."""
    specs = getattr(_module(module), "dag_specs", None)
    return tuple(specs(deployment.namespace)) if specs else ()


def load_dags(module: str) -> Mapping[str, DAG]:
    """The DAGs of one module by dag_id, for a stub to publish; empty when this release has no such module.

    Raises ValueError when two DAGs of the module have one id, and for an id outside the namespace.
    """
    if not (Path(__file__).parent / f"{module}.py").is_file():
        return {}
    deployment = load_deployment()
    build = getattr(_module(module), "build_dags", None)
    if build is not None:
        dags = list(build(deployment.namespace))
        for dag in dags:
            for task in dag.tasks:
                # What proves to a deploy that the server shows this release.
                task.doc_md = f"{RELEASE_LINE}{deployment.release}\n\n{task.doc_md or ''}"
    else:
        from .dag_operators import build_dag

        dags = [build_dag(spec, deployment) for spec in load_specs(module, deployment)]
    suffix = deployment.namespace.suffix
    for dag in dags:
        # Published all the same, it would take the place of a colleague's DAG with that id.
        if not dag.dag_id.endswith(suffix):
            raise ValueError(f"{module}: DAG {dag.dag_id!r} does not end in {suffix!r}: use namespace.dag_id(...)")
    by_id = {dag.dag_id: dag for dag in dags}
    if len(by_id) < len(dags):
        raise ValueError(f"{module}: two of its DAGs have the same dag_id")
    return by_id
