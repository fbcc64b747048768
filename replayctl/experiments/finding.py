"""Finds DAGs, runs and steps by name, in the user's namespace only."""

from __future__ import annotations

import contextlib
import difflib
import graphlib
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from replayctl.bundle.stubs import read_header, stub_name
from replayctl.clients.airflow import AirflowApi, DagInfo
from replayctl.clients.airflow_runs import LIVE_RUN_STATES, RunInfo
from replayctl.errors import AuthFailed, NotFound, UsageProblem
from replayctl.settings.namespace import Namespace
from replayctl.shipped import shipped_dir

_NAMES_SHOWN = 8


def plain_name(namespace: Namespace, name: str) -> str:
    """The name of a DAG or experiment without the namespace's suffix."""
    return name.removesuffix(namespace.suffix) or name


def find_dag(api: AirflowApi, namespace: Namespace, name: str, *, with_stale: bool = False) -> DagInfo:
    """The namespace's DAG with this name; the header of its stub on the server names the owner.

    A stale DAG, whose file is gone, may still have runs, and counts only `with_stale`. Raises NotFound, with similar
    names of the namespace, if it does not exist.
    """
    dag_id = namespace.dag_id(plain_name(namespace, name))
    dag = api.find_dag(dag_id)
    if dag is not None and (with_stale or not dag.is_stale) and _belongs_to(api, namespace, dag_id):
        return dag
    kind = "" if namespace.user else "shared "
    raise NotFound(f"Airflow at {api.url} has no {kind}DAG {dag_id!r}", hint=_hint(api, namespace, name))


def forced_steps(api: AirflowApi, dag: DagInfo, force: Sequence[str]) -> list[str]:
    """The steps that a run with `force` computes again: those named, and all that depend on them, in the DAG's order.

    Raises UsageProblem for a step that the DAG does not have, since Airflow would ignore it.
    """
    if not force:
        return []
    graph = api.task_graph(dag.dag_id)
    known = {"all", *graph}
    unknown = sorted(set(force) - known)
    if unknown:
        raise UsageProblem(
            f"{dag.dag_id} has no step {', '.join(unknown)}", hint=f"use one of: {', '.join(sorted(known))}"
        )
    before: dict[str, set[str]] = {name: set() for name in graph}
    for name, following in graph.items():
        for other in following & before.keys():
            before[other].add(name)
    forced: dict[str, None] = {}
    for name in graphlib.TopologicalSorter(
        {name: sorted(names) for name, names in sorted(before.items())}
    ).static_order():
        if "all" in force or name in force or before[name] & forced.keys():
            forced[name] = None
    return list(forced)


def find_run(api: AirflowApi, dag: DagInfo, run_id: str | None, *, unfinished: bool = False) -> RunInfo:
    """The run of a DAG with this ID, or this prefix among the newest ones; the newest run with None.

    With `unfinished`, only runs that have not ended count. Raises NotFound if there is none, UsageProblem if several
    match.
    """
    runs = api.runs(dag.dag_id, states=LIVE_RUN_STATES if unfinished else ())
    kind = "unfinished run" if unfinished else "run"
    exact = [run for run in runs if run.run_id == run_id]
    matches = exact or [run for run in runs if run.run_id.startswith(run_id or "")]
    if not matches and run_id and not unfinished:
        # It may be older than those that are listed.
        with contextlib.suppress(NotFound):
            matches = [api.run(dag.dag_id, run_id)]
    if not matches:
        which = f" {run_id!r}" if run_id else ""
        raise NotFound(
            f"{dag.dag_id} has no {kind}{which}", hint=f"run `replayctl runs list {dag.dag_id}` to list its runs"
        )
    if len(matches) > 1 and (run_id or unfinished):
        names = ", ".join(run.run_id for run in matches)
        raise UsageProblem(f"{dag.dag_id} has {len(matches)} matching {kind}s", hint=f"pass one of: {names}")
    return matches[0]


def nearest(name: str, names: Iterable[str]) -> list[str]:
    """The names most similar to `name` in any case, best match first."""
    by_key = {other.lower(): other for other in names}
    return [by_key[key] for key in difflib.get_close_matches(name.lower(), list(by_key), n=3, cutoff=0.6)]


def _belongs_to(api: AirflowApi, namespace: Namespace, dag_id: str) -> bool:
    try:
        header = read_header(api.dag_source(dag_id))
    except AuthFailed:
        # Without the permission to read it, trust the user's suffix; IDs of the common namespace have none.
        return namespace.user is not None
    return header is not None and header.owner == namespace.directory


def _hint(api: AirflowApi, namespace: Namespace, name: str) -> str:
    suffix, plain = namespace.suffix, plain_name(namespace, name)
    ours = [dag for dag in api.dags() if _may_be_ours(dag, suffix)]
    # There are many shipped DAGs, and the user's own would not be among the first.
    shipped = {stub_name(module.stem, suffix) for module in shipped_dir("dags").glob("dag_*.py")}
    ours.sort(key=lambda dag: (PurePosixPath(dag.fileloc).name in shipped, dag.dag_id))
    names = [dag.dag_id.removesuffix(suffix) for dag in ours]
    close = [name for name in nearest(plain, names) if _belongs_to(api, namespace, namespace.dag_id(name))]
    if close:
        return f"did you mean {' or '.join(close)}?"
    if not suffix or not names:
        return "run `replayctl sync-dags` to deploy it"
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return f"use one of your DAGs: {', '.join(names[:_NAMES_SHOWN])}{more}"


def _may_be_ours(dag: DagInfo, suffix: str) -> bool:
    return not dag.is_stale and dag.dag_id.endswith(suffix)
