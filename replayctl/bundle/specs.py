"""Loads the DAG specs of a release in a separate process with a time limit, and returns them as plain data."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from replayctl import process
from replayctl.bundle.release import Release
from replayctl.errors import TimedOut, UsageProblem

_REPEATED_SHOWN = 3
_LOADER = Path(__file__).with_name("spec_loader.py")


@dataclass(frozen=True, slots=True)
class Step:
    """One task of a DAG: its name, the identity and path of its artifact, and its upstream tasks.

    `overridden` are the general values of parameters that the data set overrides. `prospect` is what a run would do
    (`outcome`: `reuse` with the artifact's `origin`, or `compute` or `unknown` with the reason, `why`); None if the
    artifacts were not checked.
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
    packages: tuple[str, ...] = ()
    on_yarn: bool = False


@dataclass(frozen=True, slots=True)
class Dag:
    """One DAG as the release declares it."""

    dag_id: str
    module: str
    description: str
    mlflow_experiment: str
    steps: tuple[Step, ...]
    image: str = ""


@dataclass(frozen=True, slots=True)
class ArtifactView:
    """The artifacts as this machine sees them: the folder of all, and the connection to HDFS if they are there."""

    root: str
    hdfs: Mapping[str, str] | None = None


def load_specs(release: Release, *, timeout_s: float, view: ArtifactView | None = None) -> tuple[Dag, ...]:
    """The DAGs of all spec modules of the release; modules with `build_dags` contribute none.

    With `view`, the artifacts are checked, so that each step has its prospect. Raises UsageProblem if a module fails to
    load, with its traceback, or if two DAGs share an id, and TimedOut if loading takes longer than `timeout_s`.
    """
    with tempfile.TemporaryDirectory(prefix="replayctl-specs-") as scratch:
        folder = Path(scratch) / release.name
        for file in release.files:
            path = folder / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.content)
        answer = Path(scratch) / "specs.json"
        # The others need Airflow to load; only a server knows their DAGs.
        modules = [module for module in release.modules if module not in release.free_modules]
        # A bare interpreter: at parse time, a release may import only the standard library and itself.
        options = [str(answer), str(folder), release.name, json.dumps(asdict(view) if view else None)]
        argv = [sys.executable, "-I", str(_LOADER), *options, *modules]
        try:
            done = process.run(argv, timeout_s=timeout_s, check=False)
        except TimedOut as error:
            raise TimedOut(
                f"the DAG modules did not load within {timeout_s:g} s: {', '.join(modules)}",
                hint="move what computes, waits or downloads into a workload",
            ) from error
        if done.returncode != 0 or not answer.exists():
            raise UsageProblem(
                f"the DAG modules cannot be loaded: {', '.join(modules)}",
                details=done.tail.replace(str(folder), "dags"),
                hint="correct the module and run the command again; nothing was deployed",
            )
        document = json.loads(answer.read_text(encoding="utf-8"))
        if document["broken"]:
            raise _broken(document["broken"], folder)
        dags = _parse(document["dags"])
    _refuse_repeated(dags)
    return dags


def dags_text(dags: int, free_modules: int) -> str:
    """A number of DAGs in words; those of modules in free form are not counted, since only Airflow knows them."""
    known = f"{dags} DAG{'' if dags == 1 else 's'}"
    if not free_modules:
        return known
    free = f"those of {free_modules} free-form module{'' if free_modules == 1 else 's'}"
    return f"{known} and {free}" if dags else free


def _refuse_repeated(dags: Sequence[Dag]) -> None:
    """Raises UsageProblem if two DAGs share an id, with the modules that define them."""
    modules: dict[str, list[str]] = {}
    for dag in dags:
        modules.setdefault(dag.dag_id, []).append(f"{dag.module}.py")
    repeated = {dag_id: names for dag_id, names in modules.items() if len(names) > 1}
    if repeated:
        where = [f"{dag_id} (in {' and '.join(dict.fromkeys(names))})" for dag_id, names in sorted(repeated.items())]
        more = f" and {len(where) - _REPEATED_SHOWN} more" if len(where) > _REPEATED_SHOWN else ""
        raise UsageProblem(
            f"several DAGs have the same dag_id: {', '.join(where[:_REPEATED_SHOWN])}{more}",
            hint="rename one of them; nothing was deployed",
        )


def _broken(modules: Mapping[str, tuple[str, str]], folder: Path) -> UsageProblem:
    def shown(text: str) -> str:
        # The folder first, since its path ends in the release's name.
        return text.replace(str(folder), "dags").replace(f"{folder.name}.", "dags.")

    words = [f"{module}.py cannot be loaded: {summary}" for module, (_, summary) in modules.items()]
    return UsageProblem(
        shown("; ".join(words)),
        details=shown("\n".join(text.strip() for text, _ in modules.values())),
        hint=f"correct {', '.join(f'{module}.py' for module in modules)}; nothing was deployed",
    )


def _parse(rows: Sequence[Mapping[str, Any]]) -> tuple[Dag, ...]:
    return tuple(
        Dag(
            dag_id=dag["dag_id"],
            module=dag["module"],
            description=dag["description"],
            mlflow_experiment=dag["mlflow_experiment"],
            image=dag["image"],
            steps=tuple(_step(step) for step in dag["steps"]),
        )
        for dag in rows
    )


def _step(row: Mapping[str, Any]) -> Step:
    return Step(**{**row, "upstream": tuple(row["upstream"]), "packages": tuple(row["packages"])})
