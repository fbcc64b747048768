"""A step as a plain process of the worker, without Spark. Standard library only."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_GRACE_S = 10.0
# Variables for the worker's own interpreter, which the step's must not inherit.
_FOREIGN = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")


class StepProcessError(Exception):
    """A step's process cannot be started, or has failed; the message says why."""


def python_of(environment: str, environ: Mapping[str, str]) -> str:
    """The interpreter of a Python environment of this worker.

    It is in the worker's variable REPLAYCTL_PYTHON_<ENVIRONMENT>; a worker with a single environment needs only
    PYSPARK_PYTHON. Raises StepProcessError if neither is set, or if there is no such program.
    """
    variable = f"REPLAYCTL_PYTHON_{environment.upper().replace('-', '_')}"
    program = environ.get(variable) or environ.get("PYSPARK_PYTHON")
    if not program:
        raise StepProcessError(f"this worker has no environment {environment!r}: {variable} is not set")
    if os.path.isabs(program) and not os.access(program, os.X_OK):
        hint = "; `replayctl local up --engine spark` makes it" if environment == "spark" else ""
        raise StepProcessError(f"this worker has no environment {environment!r}: {program} does not exist{hint}")
    return program


class StepProcess:
    """One process in a group of its own; `end` ends the whole group."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self._ended = False

    def run(self, argv: list[str], *, zip_files: Sequence[str], on_line: Callable[[str], None]) -> None:
        """Runs `argv` with these folders on Python's path and logs its lines; StepProcessError if it fails."""
        if remote := [path for path in zip_files if "://" in path]:
            raise StepProcessError(f"only Spark reads wheels from HDFS: {', '.join(remote)}")
        environ = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
        environ |= {"PYTHONPATH": os.pathsep.join(zip_files), "PYTHONUNBUFFERED": "1", "OMP_WAIT_POLICY": "passive"}
        with self._lock:
            if self._ended:
                raise StepProcessError("the task was ended")
            try:
                self._process = subprocess.Popen(
                    argv,
                    env=environ,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    errors="replace",
                    start_new_session=True,
                )
            except OSError as error:
                raise StepProcessError(f"cannot start {Path(argv[0])}: {error}") from error
        last = ""
        with self._process as process:
            assert process.stdout is not None
            for line in process.stdout:
                on_line(line.rstrip("\n"))
                last = line.strip() or last
        if process.returncode < 0:
            name = signal.Signals(-process.returncode).name
            memory = " (the machine may have run out of memory)" if name == "SIGKILL" and not self._ended else ""
            raise StepProcessError(f"the step's process was ended by {name}{memory}")
        if process.returncode:
            raise StepProcessError(f"the step failed: {last}")

    def end(self) -> None:
        """Ends the process, first with SIGTERM; a process that has not started yet does not start any more."""
        with self._lock:
            self._ended = True
            process = self._process
        if process is None or process.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
