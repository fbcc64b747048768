"""Loads the DAG specs of a release in a process of its own, with a time limit, and returns them as plain data."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from replayctl import process
from replayctl.bundle.release import Release
from replayctl.errors import TimedOut, UsageProblem

_LOADER = Path(__file__).with_name("spec_loader.py")


@dataclass(frozen=True, slots=True)
class Step:
    """One task of a DAG: its name, the identity and path of its artifact, and the tasks before it.

    `parameters` are those that count, `overridden` the general values that the data set's own have replaced.
    `prospect` is what a run would do about it (`outcome`: `reuse` with who `made` it, or `compute` and `why`); None
    where the artifacts were not looked at, or cannot be seen from here.
    """

    name: str
    identity: str
    artifact: str
    upstream: tuple[str, ...]
    dataset: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    parameters_text: str = ""
    overridden: Mapping[str, Any] = field(default_factory=dict)
    prospect: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Dag:
    """One DAG as the release declares it."""

    dag_id: str
    module: str
    description: str
    mlflow_experiment: str
    steps: tuple[Step, ...]


def load_specs(release: Release, *, timeout_s: float, look: bool = False) -> tuple[Dag, ...]:
    """The DAGs of all spec modules of the release; modules with `build_dags` contribute none.

    With `look`, the artifacts are looked at, so that each step has its prospect.
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
        options = [str(answer), str(folder), release.name, "look" if look else "-"]
        argv = [sys.executable, "-I", str(_LOADER), *options, *modules]
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
        document = json.loads(answer.read_text(encoding="utf-8"))
        if document["broken"]:
            raise _broken(document["broken"], str(folder))
        dags = _parse(document["dags"])
    ids = [dag.dag_id for dag in dags]
    repeated = sorted({dag_id for dag_id in ids if ids.count(dag_id) > 1})
    if repeated:
        raise UsageProblem(f"two DAGs of this folder have the same dag_id: {', '.join(repeated)}")
    return dags


def _broken(modules: Mapping[str, tuple[str, str]], folder: str) -> UsageProblem:
    words = [f"{module}.py does not load: {summary}" for module, (_, summary) in modules.items()]
    return UsageProblem(
        "; ".join(words).replace(folder, "dags"),
        details="\n".join(text.strip() for text, _ in modules.values()).replace(folder, "dags"),
        hint=f"correct {', '.join(f'{module}.py' for module in modules)}; nothing was deployed",
    )


def _parse(rows: Sequence[Mapping[str, Any]]) -> tuple[Dag, ...]:
    return tuple(
        Dag(
            dag_id=dag["dag_id"],
            module=dag["module"],
            description=dag["description"],
            mlflow_experiment=dag["mlflow_experiment"],
            steps=tuple(Step(**{**step, "upstream": tuple(step["upstream"])}) for step in dag["steps"]),
        )
        for dag in rows
    )
