"""How stubs load the DAGs of a release into Airflow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from airflow.sdk import get_parsing_context

from .dag_operators import build_dag
from .dag_specs import RELEASE_LINE
from .release_package import has_module, load_deployment, load_module, load_specs

if TYPE_CHECKING:
    from airflow.sdk import DAG


def load_dags(module: str) -> Mapping[str, DAG]:
    """The DAGs of one module by dag_id, for a stub to publish; empty if this release has no such module.

    Raises ValueError if two DAGs of the module have the same id, and for an id outside the namespace.
    """
    if not has_module(module):
        return {}
    deployment = load_deployment()
    build = getattr(load_module(module), "build_dags", None)
    if build is not None:
        dags = list(build(deployment.namespace))
        for dag in dags:
            for task in dag.tasks:
                # A deploy checks this line to verify that the server shows the release.
                task.doc_md = f"{RELEASE_LINE}{deployment.release}\n\n{task.doc_md or ''}"
    else:
        # A task needs only its own DAG; the DAG processor asks for None, which means all.
        dag_id = get_parsing_context().dag_id
        specs = load_specs(module, deployment)
        specs = tuple(spec for spec in specs if spec.dag_id == dag_id) or specs if dag_id else specs
        dags = [build_dag(spec, deployment, module) for spec in specs]
    suffix = deployment.namespace.suffix
    for dag in dags:
        # It would replace another user's DAG with that id.
        if not dag.dag_id.endswith(suffix):
            raise ValueError(f"{module}: DAG {dag.dag_id!r} does not end in {suffix!r}: use namespace.dag_id(...)")
    by_id = {dag.dag_id: dag for dag in dags}
    if len(by_id) < len(dags):
        raise ValueError(f"{module}: two of its DAGs have the same dag_id")
    return by_id
