"""Runs one step: skips it if its artifact is complete, else computes it in a temporary folder and publishes it.

The runs for MLflow are recorded after that, also by a later try.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import signal
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from ..artifacts import Artifact, ArtifactError, remove_abandoned
from ..evaluations import has_unrecorded_runs
from ..storage import LocalPath, scratch_folder
from ..webhdfs import HdfsError
from .context import StepContext, log
from .recording import record

_WATCH_INTERVAL_S = 1.0
# The fields of the step's document that a manifest records.
_RECORDED = ("identity", "workload", "code", "label", "dataset", "engine", "parameters")


def run(document: Mapping[str, Any]) -> None:
    """Computes the artifact that `document` describes, unless it exists, and records what it has for MLflow.

    Starts no engine if the artifact is complete and `force` is not set. Raises StepError for errors
    that its user can fix, ValueError for an unknown workload, ArtifactError if an input is missing or another
    try has taken over. Errors of the workload pass through and leave no artifact.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    # Waiting threads of OpenMP would otherwise spin, and take cores from the working ones.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    _end_with_supervisor(document.get("supervisor_pid"))
    workload = _workload(document["workload"])
    artifact = Artifact(document["output"], document.get("hdfs"))
    if artifact.is_whole() and not document.get("force"):
        log.info("%s is complete: nothing to compute", artifact)
    else:
        _make(workload, document, artifact)
    if has_unrecorded_runs(artifact, document):
        record(artifact, document)


def _make(workload: ModuleType, document: Mapping[str, Any], artifact: Artifact) -> None:
    _check_inputs(document)
    _tidy(artifact)
    run_info = document.get("run", {})
    owner = "/".join(str(run_info.get(key, "")) for key in ("dag_id", "run_id", "task_id", "map_index"))
    temporary = artifact.begin(owner)
    started = time.time()
    try:
        results = _computed(workload, document, temporary)
        warnings = results.pop("warnings", [])
        for warning in warnings:
            log.warning("%s", warning)
        manifest = _manifest(document, started, results) | {"warnings": warnings}
        if _has_ended(document.get("supervisor_pid")):
            # Its task has already failed, and a newer try may be running.
            raise ArtifactError(f"the task's supervisor has ended: {artifact} is not published")
        if artifact.commit(temporary, manifest, replace=bool(document.get("force"))):
            log.info("published %s after %.1f s: %s", artifact, time.time() - started, results)
        else:
            log.info("%s was published by another writer meanwhile: discarding this one", artifact)
    except BaseException:
        temporary.discard()
        raise


def _tidy(artifact: Artifact) -> None:
    # NAMESPACE/DATASET/WORKLOAD/IDENTITY
    namespace = artifact.folder.parent.parent.parent
    try:
        remove_abandoned(namespace)
    except (HdfsError, OSError) as error:
        log.warning("what killed tries have left in %s stays: %s", namespace, error)


def _check_inputs(document: Mapping[str, Any]) -> None:
    for entry in document["inputs"]:
        parent = Artifact(entry["path"], document.get("hdfs"))
        if not parent.is_whole():
            raise ArtifactError(
                f"step {document['step']}: input {parent} ({entry['workload']} {entry['label']}) is "
                f"incomplete ({parent.what_is_missing()}); run the DAG that computes it, or clear that task"
            )


def _computed(workload: ModuleType, document: Mapping[str, Any], temporary: Artifact) -> dict[str, Any]:
    """The result of the workload, which has written its tables to the temporary folder."""
    exchange = None if isinstance(temporary.folder, LocalPath) else temporary.folder / ".exchange"
    with _scratch(temporary) as scratch:
        context = StepContext(document, Path(scratch), exchange)
        try:
            results = dict(workload.run(context, temporary))
        finally:
            context.close()
    if exchange is not None:
        exchange.delete()
    return results


def _manifest(document: Mapping[str, Any], started: float, results: Any) -> dict[str, Any]:
    return {
        **{name: document[name] for name in _RECORDED},
        "inputs": [entry["identity"] for entry in document["inputs"]],
        "release": document["package"],
        "run": document.get("run", {}),
        "started_unix_s": round(started, 3),
        "seconds": round(time.time() - started, 3),
        "results": results,
    }


def _scratch(temporary: Artifact) -> tempfile.TemporaryDirectory[str]:
    if isinstance(temporary.folder, LocalPath):
        # Beside the tables, so that it is on the same disk and goes with them when this process is killed.
        return tempfile.TemporaryDirectory(prefix=".scratch", dir=temporary.path)
    return tempfile.TemporaryDirectory(prefix="replayctl-", dir=scratch_folder())


def _workload(name: str) -> ModuleType:
    path = f"{__package__}.{name}"
    if not name.isidentifier() or importlib.util.find_spec(path) is None:
        raise ValueError(f"unknown workload {name!r}: this release has no workloads/{name}.py")
    return importlib.import_module(path)


def _has_ended(pid: int | None) -> bool:
    """Whether the process has ended; False for None, a process on another machine."""
    if pid is None:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


def _end_with_supervisor(pid: int | None) -> None:
    """Ends this driver when the local process that supervises it has ended.

    A worker that is killed with SIGKILL cannot stop its spark-submit; the JVM would continue, unknown to Airflow.
    `pid` is None if the driver runs on another machine, where YARN ends it.
    """
    if pid is None:
        return

    # If spark-submit's JVM is between the supervisor and this process, it has to end as well.
    parent = os.getppid()

    def watch() -> None:
        while True:
            if _has_ended(pid):
                log.error("the task's supervisor (pid %d) has ended: ending too", pid)
                if parent not in (pid, os.getpid(), 1):
                    os.kill(parent, signal.SIGTERM)
                os._exit(143)
            time.sleep(_WATCH_INTERVAL_S)

    threading.Thread(target=watch, name="supervisor-watch", daemon=True).start()
