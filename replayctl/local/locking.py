"""Locks between replayctl processes of this machine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from replayctl.console.events import Reporter
from replayctl.local.disk import disk_errors


@contextlib.contextmanager
def exclusive(path: Path, reason: str, reporter: Reporter) -> Iterator[None]:
    """Holds the lock while the block runs; reports `reason` and waits while another process holds it.

    The system releases it when its holder ends, however it ends. Raises OperationFailed when it cannot be made.
    """
    from filelock import FileLock, Timeout

    # Never the soft lock, which a killed holder would leave behind.
    lock = FileLock(path, mode=0o600, fallback_to_soft=False)
    with disk_errors("lock", path):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            reporter.step(f"waiting: {reason}")
            lock.acquire()
    try:
        yield
    finally:
        lock.release()
