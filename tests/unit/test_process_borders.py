"""Programs that end in unusual ways."""

import time
from pathlib import Path

import pytest

from replayctl import process
from replayctl.errors import NotFound, TimedOut


def test_the_deadline_counts_also_after_the_program_has_closed_its_output() -> None:
    started = time.monotonic()
    with pytest.raises(TimedOut, match="within 1 s"):
        process.run(["sh", "-c", "exec >&- 2>&-; exec sleep 60"], timeout_s=1)
    assert time.monotonic() - started < 15


def test_the_status_comes_also_after_the_output_was_closed() -> None:
    assert process.run(["sh", "-c", "exec >&- 2>&-; exit 3"], check=False).returncode == 3


def test_a_missing_program_cannot_be_detached(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no-such-program"):
        process.spawn_detached(["no-such-program"], env={}, cwd=tmp_path, log_path=tmp_path / "log")
