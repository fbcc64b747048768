"""Loads the DAG specs of a release in a process of its own, with a time limit, and returns them as plain data."""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from replayctl import process
from replayctl.bundle.release import Release
from replayctl.errors import TimedOut, UsageProblem

_LOADER = Path(__file__).with_name("spec_loader.py")


@dataclass(frozen=True, slots=True)
class Step:
    """One task of a DAG: its name, the identity and path of its artifact, and the tasks before it."""

    name: str
    identity: str
    artifact: str
    upstream: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Dag:
    """One DAG as the release declares it."""

    dag_id: str
    module: str
    description: str
    mlflow_experiment: str
    steps: tuple[Step, ...]


def load_specs(release: Release, *, timeout_s: float) -> tuple[Dag, ...]:
    """The DAGs of all spec modules of the release; modules with `build_dags` contribute none.

    Raises UsageProblem with the module's own traceback when it fails to load or two DAGs share an id, TimedOut
    when loading takes longer than `timeout_s`.
    """
    with tempfile.TemporaryDirectory(prefix="replayctl-specs-") as scratch:
        folder = Path(scratch) / release.name
        for file in release.files:
            path = folder / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.content)
        answer = Path(scratch) / "specs.json"
        # The others need Airflow to load, and only a server can tell what is in them.
        modules = [module for module in release.modules if module not in release.free_modules]
        # A bare interpreter: what a release may import at parse time is the standard library and itself.
        argv = [sys.executable, "-I", str(_LOADER), str(answer), str(folder), release.name, *modules]
        try:
            done = process.run(argv, timeout_s=timeout_s, check=False)
        except TimedOut as error:
            raise TimedOut(
                f"the DAG modules did not load within {timeout_s:g} s: {', '.join(modules)}",
                hint="parsing must not compute, wait or fetch; move that into a workload",
            ) from error
        if done.returncode != 0 or not answer.exists():
            raise UsageProblem(
                f"the DAG modules do not load ({', '.join(modules)})",
                details=done.tail.replace(str(folder), "dags"),
                hint="nothing was deployed; correct the module and try again",
            )
        dags = _parse(answer.read_text(encoding="utf-8"))
    ids = [dag.dag_id for dag in dags]
    repeated = sorted({dag_id for dag_id in ids if ids.count(dag_id) > 1})
    if repeated:
        raise UsageProblem(f"two DAGs of this folder have the same dag_id: {', '.join(repeated)}")
    return dags


def _parse(answer: str) -> tuple[Dag, ...]:
    return tuple(
        Dag(
            dag_id=dag["dag_id"],
            module=dag["module"],
            description=dag["description"],
            mlflow_experiment=dag["mlflow_experiment"],
            steps=tuple(
                Step(step["name"], step["identity"], step["artifact"], tuple(step["upstream"])) for step in dag["steps"]
            ),
        )
        for dag in json.loads(answer)
    )
