"""Which DAG, run or step a name means, in one's own namespace and nowhere else."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from replayctl.bundle.stubs import read_header
from replayctl.clients.airflow import AirflowApi, DagInfo
from replayctl.clients.airflow_runs import FINAL_RUN_STATES, RunInfo
from replayctl.errors import AuthFailed, NotFound, UsageProblem
from replayctl.settings.namespace import Namespace

_NAMES_SHOWN = 8


def plain_name(namespace: Namespace, name: str) -> str:
    """The name of a DAG or experiment without the namespace's suffix, whether it was typed with or without it."""
    return name.removesuffix(namespace.suffix) or name


def find_dag(api: AirflowApi, namespace: Namespace, name: str) -> DagInfo:
    """The DAG called `name` in the namespace; its own stub on the server says whose it is.

    Raises NotFound, with the nearest names of the namespace, when there is none.
    """
    dag_id = namespace.dag_id(plain_name(namespace, name))
    dag = api.find_dag(dag_id)
    if dag is not None and not dag.is_stale and _belongs_to(api, namespace, dag_id):
        return dag
    whose = "of yours" if namespace.user else "in the common namespace"
    raise NotFound(f"Airflow at {api.url} has no DAG {dag_id!r} {whose}", hint=_hint(api, namespace, name))


def check_force(api: AirflowApi, dag: DagInfo, force: Sequence[str]) -> None:
    """Refuses a step to compute anew that the DAG does not have: it would be passed over in silence."""
    if not force:
        return
    known = {"all", *api.tasks_docs(dag.dag_id)}
    unknown = sorted(set(force) - known)
    if unknown:
        raise UsageProblem(
            f"{dag.dag_id} has no step {', '.join(unknown)} to force", hint=f"steps: {', '.join(sorted(known))}"
        )


def find_run(api: AirflowApi, dag: DagInfo, run_id: str | None, *, unfinished: bool = False) -> RunInfo:
    """The run of a DAG with this id or beginning of one; without one the newest.

    With `unfinished`, only runs that have not come to their end are looked at. Raises NotFound when there is none,
    UsageProblem when it is not clear which one is meant.
    """
    runs = [run for run in api.runs(dag.dag_id) if not unfinished or run.state not in FINAL_RUN_STATES]
    kind = "unfinished run" if unfinished else "run"
    exact = [run for run in runs if run.run_id == run_id]
    matches = exact or [run for run in runs if run.run_id.startswith(run_id or "")]
    if not matches:
        which = f" {run_id!r}" if run_id else ""
        raise NotFound(f"{dag.dag_id} has no {kind}{which}", hint=f"list its runs: replayctl runs list {dag.dag_id}")
    if len(matches) > 1 and (run_id or unfinished):
        names = ", ".join(run.run_id for run in matches)
        raise UsageProblem(f"{dag.dag_id} has {len(matches)} {kind}s that could be meant", hint=f"name one of: {names}")
    return matches[0]


def nearest(name: str, names: Iterable[str]) -> list[str]:
    """The names that `name` may be a misspelling of, the nearest first."""
    return difflib.get_close_matches(name, list(names), n=3, cutoff=0.6)


def _belongs_to(api: AirflowApi, namespace: Namespace, dag_id: str) -> bool:
    try:
        header = read_header(api.dag_source(dag_id))
    except AuthFailed:
        # Without the right to read it, a user's suffix says enough; ids of the common namespace have none.
        return namespace.user is not None
    return header is not None and header.owner == namespace.directory


def _hint(api: AirflowApi, namespace: Namespace, name: str) -> str:
    suffix, plain = namespace.suffix, plain_name(namespace, name)
    names = sorted(dag.dag_id.removesuffix(suffix) for dag in api.dags() if _may_be_ours(dag, suffix))
    close = [name for name in nearest(plain, names) if _belongs_to(api, namespace, namespace.dag_id(name))]
    if close:
        return f"did you mean {' or '.join(close)}?"
    if not suffix or not names:
        return "deploy first: replayctl sync-dags"
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return f"yours there: {', '.join(names[:_NAMES_SHOWN])}{more}"


def _may_be_ours(dag: DagInfo, suffix: str) -> bool:
    return not dag.is_stale and dag.dag_id.endswith(suffix)
