"""The experiment's steps on Spark, each started by spark-submit as Airflow starts it, beside the embedded engine's."""

from __future__ import annotations

import base64
import contextlib
import ctypes
import json
import os
import resource
import shutil
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.engines import ROOT, Cost, dataset_of, script
from dags.dag_entities import RESOURCE_TIERS, Engine, Resources, model_params
from dags.dag_jvm import ARCHIVE_VARIABLE, is_light, jvm_conf
from dags.dag_specs import DagSpec, Deployment
from dags.dag_two_stage_scenarios import DEFAULT_MODELS, build_two_stage_dag

_PR_SET_CHILD_SUBREAPER = 36
_CORES, _MEMORY_GIB = 2, 3
_NOT_OURS = ("PYTHON", "SPARK_", "PYSPARK_")


@dataclass(frozen=True, slots=True)
class Machine:
    """What steps run with: both engines' interpreters, Java, the archive of Spark's classes, Spark's configuration."""

    embedded: str
    spark: str
    spark_home: Path
    java_home: Path
    archive: Path
    conf: Mapping[str, str]


def table(logs: list[Path], folder: Path, machine: Machine) -> str:
    """Rows of a Markdown table: CPU seconds of each step by engine, of all, and of the script on the same log."""
    # Processes of a step that outlive their parents count, too.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    lines = []
    for log in logs:
        costs = {}
        for engine in ("embedded", "spark"):
            work = folder / engine
            shutil.rmtree(work, ignore_errors=True)
            costs[engine] = _steps(log, work, machine, engine)
        for engine, steps in costs.items():
            cpu, wall = (sum(getattr(cost, measure) for cost in steps.values()) for measure in ("cpu_s", "wall_s"))
            cells = " | ".join(f"{cost.cpu_s:.1f}, {cost.wall_s:.1f} s, {cost.peak_mib:.0f}" for cost in steps.values())
            lines.append(f"| {log.stem} | {engine} | {cells} | {cpu:.1f} | {wall:.0f} s |")
        theirs = script(log, folder, machine.spark)
        lines.append(f"| {log.stem} | the script |{' |' * len(steps)} {theirs.cpu_s:.1f} | {theirs.wall_s:.0f} s |")
    head = f"| log | by | {' | '.join(costs['spark'])} | CPU s | time (load {os.getloadavg()[0]:.0f}) |"
    return "\n".join([head, "|---" * (head.count("|") - 1) + "|", *lines])


def _steps(log: Path, work: Path, machine: Machine, engine: Engine) -> dict[str, Cost]:
    """Runs every step but the evaluation, which needs MLflow; step → cost."""
    tiers = {tier: Resources(_CORES, _MEMORY_GIB) for tier in RESOURCE_TIERS}
    deployment = Deployment("dags", "local", "bench", str(log.parent), str(work), "/f", tiers=tiers, engine=engine)
    dataset = dataset_of(log)
    spec = build_two_stage_dag("bench", "bench", model_params(*DEFAULT_MODELS, dataset=dataset), dataset).on(engine)
    return {
        step.name: _cost(_document(deployment, spec, step.name), machine)
        for step in spec.steps
        if step.workload != "evaluate"
    }


def _document(deployment: Deployment, spec: DagSpec, name: str) -> dict[str, object]:
    step = next(step for step in spec.steps if step.name == name)
    return {**deployment.step_document(spec, step), "force": False, "run": {}}


def _cost(document: dict, machine: Machine) -> Cost:
    text = base64.urlsafe_b64encode(json.dumps(document).encode()).decode()
    environ = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_OURS)}
    environ |= {"PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "passive"}
    argv = [machine.embedded, str(ROOT / "dags" / "dag_submit.py"), text]
    if document["engine"] == "spark":
        environ |= {
            "PATH": f"{machine.java_home / 'bin'}{os.pathsep}{environ['PATH']}",
            "JAVA_HOME": str(machine.java_home),
            "SPARK_HOME": str(machine.spark_home),
            "PYSPARK_PYTHON": machine.spark,
            "SPARK_LOCAL_IP": "127.0.0.1",
            "SPARK_LAUNCHER_OPTS": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1",
        }
        argv = [str(machine.spark_home / "bin" / "spark-submit"), *_options(document, machine), *argv[1:]]
    return _run(argv, environ)


def _options(document: dict, machine: Machine) -> list[str]:
    inputs = (Path(entry["path"]) / "manifest.json" for entry in document["inputs"])
    light = is_light(document, [json.loads(manifest.read_text())["results"] for manifest in inputs])
    conf = {**jvm_conf({ARCHIVE_VARIABLE: str(machine.archive)}, light=light), **machine.conf}
    settings = [word for name, value in conf.items() for word in ("--conf", f"{name}={value}")]
    return ["--master", f"local[{_CORES}]", "--driver-memory", f"{int(_MEMORY_GIB * 0.7)}g", *settings]


def _run(argv: list[str], environ: dict[str, str]) -> Cost:
    """What a program costs with all that it starts; CalledProcessError when it fails."""
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    child = subprocess.Popen(argv, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    with Peak(psutil.Process()) as peak:
        assert child.stderr is not None
        errors = child.stderr.read()
        child.stderr.close()
        child.wait()
    while True:
        try:
            os.wait()
        except ChildProcessError:
            break
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, argv, stderr=errors[-2000:])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(time.perf_counter() - started, cpu, peak.mib)


class Peak:
    """Samples the memory of all that a process has started: proportional set sizes, so that shared pages count once."""

    def __init__(self, process: psutil.Process) -> None:
        self.mib = 0.0
        self._process = process
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(0.5):
            sizes = 0.0
            for child in self._process.children(recursive=True):
                with contextlib.suppress(psutil.Error, AttributeError):
                    sizes += child.memory_full_info().pss
            self.mib = max(self.mib, sizes / 2**20)
