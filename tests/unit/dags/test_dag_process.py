"""A step as a plain process: its interpreter, its words, its end."""

import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from dags.dag_process import StepProcess, StepProcessError, python_of


def test_an_environment_is_found_by_its_variable_or_spark_s_python(tmp_path: Path) -> None:
    python = sys.executable
    assert python_of("embedded", {"REPLAYCTL_PYTHON_EMBEDDED": python, "PYSPARK_PYTHON": "/x"}) == python
    assert python_of("lama-big", {"REPLAYCTL_PYTHON_LAMA_BIG": python}) == python
    assert python_of("embedded", {"PYSPARK_PYTHON": "python3"}) == "python3"
    with pytest.raises(StepProcessError, match="no environment 'lama': REPLAYCTL_PYTHON_LAMA is not set"):
        python_of("lama", {})
    with pytest.raises(StepProcessError, match=r"no environment 'spark': .* does not exist; `replayctl local up --eng"):
        python_of("spark", {"REPLAYCTL_PYTHON_SPARK": str(tmp_path / "python")})


def run(process: StepProcess, code: str) -> list[str]:
    lines: list[str] = []
    process.run([sys.executable, "-c", code], zip_files=["/r.zip"], on_line=lines.append)
    return lines


def test_lines_come_as_they_are_written_and_the_release_is_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/of/the/worker")
    code = "import os, sys; print(os.environ['PYTHONPATH'], os.environ['OMP_WAIT_POLICY']); print('ü', file=sys.stderr)"
    assert sorted(run(StepProcess(), code)) == ["/r.zip passive", "ü"]


def test_the_last_line_says_why_a_step_failed() -> None:
    with pytest.raises(StepProcessError, match="the step failed: StepError: no column x"):
        run(StepProcess(), "import sys; print('working'); sys.exit('StepError: no column x')")
    with pytest.raises(StepProcessError, match=r"ended by SIGKILL \(the machine may have run out of memory\)"):
        run(StepProcess(), "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(StepProcessError, match=r"cannot start /no/such/python"):
        StepProcess().run(["/no/such/python"], zip_files=[], on_line=print)


def test_its_end_takes_all_that_it_has_started() -> None:
    process = StepProcess()
    lines: list[str] = []
    code = (
        "import subprocess, sys, time;"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
        "print(child.pid, flush=True); time.sleep(600)"
    )
    errors: list[BaseException] = []

    def work() -> None:
        try:
            process.run([sys.executable, "-c", code], zip_files=[], on_line=lines.append)
        except StepProcessError as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    deadline = time.monotonic() + 60
    while not lines and time.monotonic() < deadline:
        time.sleep(0.01)
    child = psutil.Process(int(lines[0]))
    process.end()
    thread.join(60)
    assert "ended by SIGTERM" in str(errors[0])
    psutil.wait_procs([child], timeout=30)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    with pytest.raises(StepProcessError, match="the task was ended"):
        run(process, "print(1)")
