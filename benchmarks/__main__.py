"""Prints the ratios. Machines are noisy: pairs are measured in turn, and the median of their ratios is shown."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from benchmarks import engines, spark, start
from replayctl import deploy
from replayctl.bundle.release import build_release
from replayctl.bundle.stubs import stub_name, stub_text
from replayctl.console.reporter import StderrReporter
from replayctl.local import datasets, environments, spark_classes, stack
from replayctl.local.capacity import local_cores
from replayctl.publishing.deployment import deployment_json
from replayctl.settings.declared import Settings
from replayctl.settings.folders import find_folders
from replayctl.settings.load import load_settings
from replayctl.settings.namespace import find_namespace
from replayctl.settings.workspace import Workspace
from tests.reporters import SilentReporter

ROOT = Path(__file__).parent.parent
EXPERIMENT = "two_stage_ml100k"
USER = "bench"

_PLAIN_DAG = """
from airflow.sdk import DAG
from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
with DAG("plain", schedule=None) as dag:
    SparkSubmitOperator(task_id="one", application="/x.py")
"""

_PARSE = """
import logging, sys
logging.disable(logging.CRITICAL)
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(dag_folder=sys.argv[1])
assert bag.dags and not bag.import_errors, bag.import_errors
"""


def seconds(argv: Sequence[str], environ: dict[str, str] | None = None) -> float:
    """Wall time of one process."""
    started = time.perf_counter()
    subprocess.run(argv, env=environ, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def pairs(name: str, ours: Callable[[], float], theirs: Callable[[], float], count: int, goal: str) -> None:
    """Measures both in turn, after one warm-up each, and prints the median ratio."""
    ours(), theirs()
    measured = [(ours(), theirs()) for _ in range(count)]
    ratios = sorted(one / other for one, other in measured)
    mine, other = (statistics.median(column) for column in zip(*measured, strict=True))
    print(
        f"{name}: {statistics.median(ratios):.2f} (goal {goal}; "
        f"{ratios[0]:.2f} to {ratios[-1]:.2f} over {count} pairs; "
        f"{mine * 1000:.0f} ms to {other * 1000:.0f} ms)",
        flush=True,
    )


def bench_help(scratch: Path) -> None:
    """Starts of replayctl; see `benchmarks.start`."""
    start.run(scratch, pairs)


def bench_parse(settings: Settings, scratch: Path) -> None:
    """A DagBag of a stub to one of a DAG file with a single SparkSubmitOperator, each in a fresh process."""
    airflow = environments.ensure("airflow", settings.cache_dir, settings.local.python, StderrReporter())
    plain, ours = scratch / "plain", scratch / "ours"
    plain.mkdir()
    (plain / "dag_plain.py").write_text(_PLAIN_DAG)
    deployment = {"profile": "local", "user": USER, "places": {"yarn": "pod"}}
    deployment |= {"data_root": "/d", "artifacts_root": "/a", "spark_submit_files": "/f"}
    release = build_release(ROOT / "dags", json.dumps(deployment))
    for file in release.files:
        path = ours / "replayctl_releases" / USER / release.name / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)
    (ours / "replayctl_releases" / USER / "current").write_text(release.name)
    (ours / ".airflowignore").write_text("replayctl_releases\n")
    for module in release.modules:
        (ours / stub_name(module, f"_{USER}")).write_text(stub_text(module, USER))
    environ = {**os.environ, "AIRFLOW_HOME": str(scratch / "airflow"), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    python = str(airflow.program("python"))

    def parse(folder: Path) -> Callable[[], float]:
        return lambda: seconds([python, "-c", _PARSE, str(folder)], environ)

    pairs("parse of a stub (27 DAGs) to a plain DAG file", parse(ours), parse(plain), 7, "≤ 1.5")


def bench_deploy(scratch: Path) -> None:
    """One changed file: from ssh's first byte to the publish, against the two `rsync -a` runs that people type."""
    from tests.sshd import WHY_NOT, SshServer

    if WHY_NOT or not shutil.which("rsync"):
        print(f"deploy: not measured: {WHY_NOT or 'no rsync on this machine'}")
        return
    folder = scratch / "own"
    shutil.copytree(ROOT / "dags", folder, ignore=shutil.ignore_patterns("__pycache__"))
    server = SshServer.start(USER)
    try:
        config = server.client_config(scratch / "config")
        share = server.folder / "share"
        (share / "by rsync").mkdir(mode=0o777)
        (share / "by rsync").chmod(0o777)
        environ = {"HOME": str(scratch), "USERNAME_ON_CLUSTER": USER, "REPLAYCTL_SSH_HOST": "cluster"}
        environ |= {"REPLAYCTL_SSH_USER": server.login(USER), "REPLAYCTL_SSH_CONFIG": str(config)}
        environ |= {
            "REPLAYCTL_FOLDERS_DAGS": str(share / "dags"),
            "REPLAYCTL_FOLDERS_SPARK_SUBMIT_FILES": str(share / "files"),
        }
        settings = load_settings(None, environ=environ, cwd=scratch)
        namespace = find_namespace(settings)
        count, validated, connections = [0], [], []

        def change() -> None:
            count[0] += 1
            (folder / "dag_entities.py").write_text((ROOT / "dags" / "dag_entities.py").read_text() + f"# {count[0]}\n")

        def ours() -> float:
            change()
            before, started = server.connections(), time.perf_counter()
            report = deploy.sync(folder, Workspace(settings, namespace, SilentReporter()), find_server=None)
            assert report.changed
            validated.append(time.perf_counter() - started - (report.published_s or 0))
            connections.append(server.connections() - before)
            return report.published_s or 0.0

        def theirs() -> float:
            change()
            shell = f"ssh -F {config}"
            destination = f"{server.login(USER)}@cluster:{share}/by rsync/"
            rsync = ["rsync", "-a", "-s", "-e", shell]
            one = seconds([*rsync, f"{folder}/", f"{destination}dags/"])
            return one + seconds(
                [*rsync, *(f"{folder}/{name}.py" for name in ("dag_submit", "dag_entities")), f"{destination}files/"]
            )

        pairs("deploy of one changed file to two runs of rsync -a", ours, theirs, 15, "≤ 1.0")
        print(
            f"connections: {statistics.median(connections):.0f} of ours, 2 of rsync's; scripts until the publish: 2 "
            "(lock and state; files and publish), and 1 that gives the lock back"
        )
        print(f"before and after it, not counted: checks and load, {statistics.median(validated) * 1000:.0f} ms")
    finally:
        server.stop()


def bench_cluster() -> None:
    """exec, forwards and logs against kubectl."""
    from benchmarks import cluster
    from tests.integration.lab import FOLDER, Lab, why_not

    if why_not():
        print(f"cluster: not measured: {why_not()}")
        return
    lab = Lab(FOLDER)
    lab.start()
    try:
        cluster.run(lab, pairs)
    finally:
        lab.stop()


class Memory:
    """Samples the memory of a stack's process tree: proportional set sizes, so that shared pages count once."""

    def __init__(self, stack: stack.Stack) -> None:
        self._leaders = [psutil.Process(part.pid) for part in stack.parts]
        self.peak: dict[str, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> "Memory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(1.0):
            now = {"JVM": 0.0, "Python drivers and workers": 0.0, "Airflow and MLflow": 0.0}
            for process in [
                process for leader in self._leaders for process in (leader, *leader.children(recursive=True))
            ]:
                try:
                    words, size = process.cmdline(), process.memory_full_info().pss / 2**20
                except (psutil.Error, AttributeError):
                    continue
                spark = any("pyspark" in word or "dag_submit.py" in word for word in words)
                java = bool(words) and words[0].endswith("java")
                now["JVM" if java else "Python drivers and workers" if spark else "Airflow and MLflow"] += size
            now["together"] = sum(now.values())
            self.peak = {name: max(self.peak.get(name, 0.0), value) for name, value in now.items()}


def bench_run(settings: Settings, scratch: Path) -> None:
    """The ml-100k experiment in Airflow to the script that people would write, in one run."""
    environ = {**os.environ, "REPLAYCTL_LOCAL_HOME": str(settings.local.home), "USERNAME_ON_CLUSTER": USER}

    def call(*argv: str) -> dict:
        command = [sys.executable, "-m", "replayctl", "--output", "json", *argv]
        result = subprocess.run(command, cwd=ROOT, env=environ, check=True, stdout=subprocess.PIPE, text=True)
        return json.loads(result.stdout)["data"]

    call("local", "up")
    try:
        call("local", "data")
        call("sync-dags")
        with Memory(stack.status(settings)) as memory:
            run = call("run", EXPERIMENT, "--wait", "--force", "all")
        second_run = call("run", EXPERIMENT, "--wait")
        log = settings.local.home / "data" / "replay" / "ml100k_ratings.csv"
        theirs = engines.script(log, scratch, _python("workload-spark", settings))
    finally:
        call("local", "down", "--yes")
    tasks = {task["task_id"]: task["seconds"] for task in run["tasks"]}
    in_steps = sum(json.loads(path.read_text())["seconds"] for path in _manifests(settings))
    print(
        f"experiment to the script: {run['seconds'] / theirs.wall_s:.2f} (goal ≤ 3; {run['seconds']:.0f} s to "
        f"{theirs.wall_s:.0f} s; of the tasks' {sum(tasks.values()):.0f} s the steps themselves take {in_steps:.0f} s)"
    )
    print(f"the tasks: {', '.join(f'{name} {value:.1f} s' for name, value in tasks.items())}")
    print(f"again, all artifacts whole: {second_run['seconds']:.1f} s (goal ≤ 10)")
    print(f"peak memory (PSS): {', '.join(f'{name} {value:.0f} MiB' for name, value in memory.peak.items())}")


def bench_engines(settings: Settings, scratch: Path) -> None:
    """The steps without Airflow to the script, by size: ml100k, and generated logs of ROWS (900,000 when not set)."""
    embedded, peer = (_python(name, settings) for name in ("workload", "workload-spark"))
    for log in _logs(settings, scratch, peer):
        memory_gib = int(os.environ.get("MEMORY_GIB", "8"))
        line = engines.compare(
            log, scratch / "work", embedded, peer, cores=local_cores(settings), memory_gib=memory_gib
        )
        print(line, flush=True)


def bench_spark(settings: Settings, scratch: Path) -> None:
    """The steps on Spark and on the embedded engine, and the script: ml100k, and generated logs of ROWS."""
    peer = _python("workload-spark", settings)
    environment = environments.ensure("workload-spark", settings.cache_dir, settings.local.python, StderrReporter())
    java_home = environments.find_java_home(settings.local.java_home)
    spark_classes.ensure(environment, java_home, StderrReporter())
    machine = spark.Machine(
        embedded=_python("workload", settings),
        spark=peer,
        spark_home=environments.spark_home(settings.cache_dir),
        java_home=java_home,
        archive=spark_classes.path_of(environment.path, java_home),
        conf=json.loads(deployment_json(settings, find_folders(settings), USER))["spark_conf"],
    )
    print(spark.table(_logs(settings, scratch, peer), scratch / "work", machine), flush=True)


def _logs(settings: Settings, scratch: Path, python: str) -> list[Path]:
    prepared = datasets.prepare("ml100k", settings, StderrReporter())
    shutil.copy(prepared.path, scratch / "ml100k.csv")
    logs = [scratch / "ml100k.csv"]
    for rows in map(int, os.environ.get("ROWS", "900000").split(",")):
        logs.append(scratch / f"zipf{rows}.csv")
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        seconds([python, "-m", "benchmarks.generator", str(logs[-1]), str(rows)], environ)
    return logs


def _python(name: str, settings: Settings) -> str:
    environment = environments.ensure(name, settings.cache_dir, settings.local.python, StderrReporter())
    return str(environment.program("python"))


def _manifests(settings: Settings) -> list[Path]:
    folder = settings.local.home / "artifacts" / USER / "ml100k"
    return list(folder.glob("*/*/manifest.json"))


def bench_packages() -> None:
    """Uploads of jars to scp."""
    from benchmarks import packages

    packages.run(pairs)


def bench_images() -> None:
    """A rebuild of the worker's image; see `benchmarks.images`."""
    from benchmarks import images

    images.run(pairs)


def main() -> None:
    """Runs the named benchmarks, or all."""
    names = sys.argv[1:] or ["help", "parse", "deploy", "packages", "images", "cluster", "engines", "run"]
    with tempfile.TemporaryDirectory(prefix="replayctl-bench-") as name:
        scratch = Path(name)
        environ = {**os.environ, "REPLAYCTL_LOCAL_HOME": str(scratch / "local"), "USERNAME_ON_CLUSTER": USER}
        settings = load_settings(None, environ=environ, cwd=scratch)
        if "help" in names:
            bench_help(scratch)
        if "parse" in names:
            bench_parse(settings, scratch)
        if "deploy" in names:
            bench_deploy(scratch)
        if "packages" in names:
            bench_packages()
        if "images" in names:
            bench_images()
        if "cluster" in names:
            bench_cluster()
        if "overhead" in names:
            from benchmarks import overhead
            from tests.integration.lab import FOLDER, Lab

            overhead.run(Lab(FOLDER))
        if "run" in names:
            bench_run(settings, scratch)
        if "engines" in names:
            bench_engines(settings, scratch)
        if "spark" in names:
            bench_spark(settings, scratch)
        shutil.rmtree(scratch / "local", ignore_errors=True)


if __name__ == "__main__":
    main()
