"""The experiment by our steps, each a process as Airflow starts it, against the script that people would write.

`python -m benchmarks engines` prints a table; ROWS=900000,5000000 chooses sizes beside MovieLens-100k's, and
MODELS=general the models' general parameters instead of ml100k's own.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dags.dag_entities import DATASETS, RESOURCE_TIERS, DatasetInfo, Engine, Resources, model_params
from dags.dag_specs import Deployment
from dags.dag_two_stage_scenarios import DEFAULT_MODELS, build_two_stage_dag

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Cost:
    """What a process took: wall and CPU seconds, and the peak of its resident memory in MiB."""

    wall_s: float
    cpu_s: float
    peak_mib: float


def cost_of(argv: Sequence[str], environ: dict[str, str]) -> Cost:
    """Runs a program to its end; CalledProcessError when it fails."""
    started = time.perf_counter()
    child = subprocess.Popen(argv, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert child.stderr is not None
    errors = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - started
    child.stderr.close()
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, argv, stderr=errors[-2000:])
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def dataset_of(log: Path) -> DatasetInfo:
    """A data set of the log, with the parameters of ml100k, or with the general ones (MODELS=general)."""
    own = DATASETS["ml100k"].model_overrides
    overrides = {} if os.environ.get("MODELS") == "general" else own
    return replace(DATASETS["ml100k"], name=log.stem, log_path=log.name, checksum=None, model_overrides=overrides)


def steps(log: Path, folder: Path, python: str, engine: Engine, *, cores: int, memory_gib: int) -> dict[str, Cost]:
    """Runs every step but the evaluation's record in MLflow; step → cost."""
    tiers = {tier: Resources(cores, memory_gib) for tier in RESOURCE_TIERS}
    deployment = Deployment("dags", "local", "bench", str(log.parent), str(folder), "/f", tiers=tiers, engine=engine)
    dataset = dataset_of(log)
    spec = build_two_stage_dag("bench", "bench", model_params(*DEFAULT_MODELS, dataset=dataset), dataset).on(engine)
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "passive", "PYSPARK_PYTHON": python}
    costs = {}
    for step in spec.steps:
        document = {**deployment.step_document(spec, step), "force": False, "run": {}}
        text = base64.urlsafe_b64encode(json.dumps(document).encode()).decode()
        if step.workload == "evaluate":
            argv = [python, str(ROOT / "benchmarks" / "evaluate_alone.py"), text]
        else:
            argv = [python, str(ROOT / "dags" / "dag_submit.py"), text]
        costs[step.name] = cost_of(argv, environ)
    return costs


def script(log: Path, folder: Path, python: str) -> Cost:
    """Runs the script, with the parameters of our steps."""
    answer = folder / "script.json"
    models = model_params("als", "itemknn", dataset=dataset_of(log))
    neighbours, rank = (models[name].parameters[key] for name, key in (("itemknn", "num_neighbours"), ("als", "rank")))
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    argv = [python, str(ROOT / "benchmarks" / "script.py"), str(log), str(neighbours), str(rank), str(answer)]
    return cost_of(argv, environ)


def compare(log: Path, folder: Path, embedded: str, peer: str, *, cores: int, memory_gib: int) -> str:
    """One line of the table: the script, our steps, and their ratio."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    theirs = script(log, folder, peer)
    ours = steps(log, folder, embedded, "embedded", cores=cores, memory_gib=memory_gib)
    wall, cpu = sum(cost.wall_s for cost in ours.values()), sum(cost.cpu_s for cost in ours.values())
    peak = max(cost.peak_mib for cost in ours.values())
    costs = ", ".join(f"{name} {cost.wall_s:.1f} s {cost.peak_mib:.0f} MiB" for name, cost in ours.items())
    return (
        f"{log.stem}: {wall / theirs.wall_s:.2f} by time, {cpu / theirs.cpu_s:.2f} by CPU "
        f"(ours {wall:.1f} s, {cpu:.1f} s of CPU, {peak:.0f} MiB; script {theirs.wall_s:.1f} s, {theirs.cpu_s:.1f} s, "
        f"{theirs.peak_mib:.0f} MiB; {costs})"
    )
