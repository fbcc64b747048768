"""A script for a bare interpreter: loads the DAG specs of a release and writes them as JSON.

The modules of a release are arbitrary code and may start processes, which must not outlive this script. So its first
process only waits for a second one that loads the modules, and then kills all processes that are left.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.util
import json
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from types import FrameType
from typing import Any, NoReturn

# On HDFS, each look is a few requests.
_LOOKS_AT_ONCE = 8
_SET_PDEATHSIG, _SET_CHILD_SUBREAPER = 1, 36


def main(argv: list[str]) -> NoReturn:
    """Ends with the status of the loading process, or with 1 if a signal has ended it."""
    _adopt_orphans()
    worker = os.fork()
    if worker == 0:
        _load(*argv[:3], view=json.loads(argv[3]), modules=argv[4:])
        os._exit(0)

    def give_up(_number: int, _frame: FrameType | None) -> None:
        _end_children()
        os._exit(1)

    signal.signal(signal.SIGTERM, give_up)
    _, status = os.waitpid(worker, 0)
    _end_children()
    os._exit(os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 1)


def _adopt_orphans() -> None:
    """Makes this process adopt orphans below it, and ends it together with its own parent.

    See prctl(2). Other systems than Linux do not have it; there, only the process group is ended.
    """
    with contextlib.suppress(OSError, AttributeError, ImportError):
        import ctypes

        prctl = ctypes.CDLL(None).prctl
        prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        prctl(_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _end_children() -> None:
    """Kills all descendants: this process adopts the children of each child that it kills."""
    while True:
        for child in _children():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(child, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _children() -> Iterator[int]:
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{int(name)}/stat", "rb") as file:
            # PID (NAME) STATE PPID …, where the name may contain any character.
            if int(file.read().rpartition(b")")[2].split()[1]) == os.getpid():
                yield int(name)


def _load(answer: str, folder: str, release: str, *, view: dict[str, Any] | None, modules: list[str]) -> None:
    sys.dont_write_bytecode = True
    process = os.getpid()
    spec = importlib.util.spec_from_file_location(release, f"{folder}/__init__.py", submodule_search_locations=[folder])
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[release] = package
    spec.loader.exec_module(package)
    entry = importlib.import_module(f"{release}.release_package")
    reuse = importlib.import_module(f"{release}.reuse")
    deployment = entry.load_deployment()
    dags, broken = [], {}
    documents: dict[str, Any] = {}
    # The artifacts as this machine sees them, which may be another path than that of the workers.
    seen = dataclasses.replace(deployment, artifacts_root=view["root"], hdfs=view["hdfs"]) if view else None
    for module in modules:
        try:
            specs = entry.load_specs(module, deployment)
        except Exception as error:  # noqa: BLE001 - a module may raise anything
            broken[module] = [_trace(error, folder), f"{type(error).__name__}: {error}"]
            continue
        for dag in specs:
            steps = [_describe(dag, step, deployment, reuse) for step in dag.steps]
            if seen:
                documents |= {step.identity: seen.step_document(dag, step) for step in dag.steps}
            dags.append(
                {
                    "dag_id": dag.dag_id,
                    "module": module,
                    "description": dag.description,
                    "mlflow_experiment": dag.mlflow_experiment,
                    "image": getattr(dag, "image", ""),
                    "steps": steps,
                }
            )
    if os.getpid() != process:
        # A copy of this process, forked by a module.
        os._exit(0)
    prospects = _prospects(documents, reuse) if documents else {}
    for described in dags:
        for step in described["steps"]:
            step["prospect"] = prospects.get(step["identity"])
    with open(answer, "w", encoding="utf-8") as file:
        json.dump({"dags": dags, "broken": broken}, file)


def _trace(error: BaseException, folder: str) -> str:
    """The traceback, and those of its causes, without the frames of the loader and of Python's import."""
    whole = traceback.TracebackException.from_exception(error)
    pending: list[traceback.TracebackException | None] = [whole]
    while pending:
        part = pending.pop()
        if part is not None:
            part.stack = traceback.StackSummary.from_list(
                frame
                for frame in part.stack
                if frame.filename.startswith(f"{folder}/") and frame.filename != f"{folder}/release_package.py"
            )
            pending += [part.__cause__, part.__context__]
    return "".join(whole.format())


def _prospects(documents: dict[str, Any], reuse: Any) -> dict[str, dict[str, Any]]:
    """What a run would do about each step, by its identity; after one failure to look, the others are unknown, too."""
    # Imported here because only dry runs look.
    from concurrent.futures import ThreadPoolExecutor

    trouble = ""

    def ask(document: Any) -> dict[str, Any]:
        nonlocal trouble
        try:
            return {"outcome": "unknown", "why": trouble} if trouble else dict(reuse.prospect(document))
        except Exception as error:  # noqa: BLE001 - reading on HDFS raises errors of the release's own
            trouble = str(error)
            return {"outcome": "unknown", "why": trouble}

    with ThreadPoolExecutor(_LOOKS_AT_ONCE) as pool:
        return dict(zip(documents, pool.map(ask, documents.values()), strict=True))


def _describe(dag: Any, step: Any, deployment: Any, reuse: Any) -> dict[str, Any]:
    return {
        "name": step.name,
        "identity": step.identity,
        "artifact": deployment.artifact_path(step),
        "upstream": [parent.name for parent in dag.upstream(step)],
        "dataset": step.dataset,
        "parameters": dict(step.parameters),
        "parameters_text": reuse.parameters_text(step.parameters),
        "overridden": dict(step.overridden),
        "packages": [*step.wheels, *step.jars],
        "on_yarn": step.engine == "spark" and deployment.place(step) == "yarn",
    }


if __name__ == "__main__":
    main(sys.argv[1:])
