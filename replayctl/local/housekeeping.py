"""Logs of the embedded stack: their paths, maximum size and retention; and what killed tasks have left."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import time
from pathlib import Path

from replayctl.errors import OperationFailed
from replayctl.local.disk import full_disk_hint, is_full, is_full_disk

_MAX_LOG_BYTES = 20_000_000
_KEPT_LOG_BYTES = 1_000_000
_DAY_S = 86_400


def log_path(home: Path, name: str) -> Path:
    """The log of one part."""
    return home / "logs" / f"{name}.log"


def begin_log(home: Path, name: str) -> Path:
    """The log of a part that starts now; its previous log is kept beside it."""
    log = log_path(home, name)
    if log.exists():
        log.replace(log.with_suffix(".previous.log"))
    return log


def log_tail(home: Path, name: str, lines: int = 30) -> str:
    """The last lines of a part's log; empty when there is no log."""
    try:
        with log_path(home, name).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _KEPT_LOG_BYTES))
            return "\n".join(file.read().decode("utf-8", "replace").splitlines()[-lines:])
    except OSError:
        return ""


def failure(home: Path, message: str, *, name: str | None = None, output: str = "") -> OperationFailed:
    """The error of a failed part, with the end of its log or output; a full disk is reported as the cause."""
    tail = log_tail(home, name, lines=200) if name else output
    hint = f"read the whole log: less {shlex.quote(str(log_path(home, name)))}" if name else None
    if is_full_disk(tail) or is_full(home):
        message, hint = f"{message}: the disk of {home} is full", full_disk_hint(home)
    return OperationFailed(message, hint=hint, details="\n".join(tail.splitlines()[-30:]))


def tidy(home: Path, keep_days: int, *, idle: bool) -> None:
    """Removes logs that are older than `keep_days`, and truncates those that are too large.

    With `idle`, while the stack is stopped, also removes what killed tasks have left: scratch files of Spark, and
    unfinished artifacts in the stack's own folder. Raises OSError for a full disk.
    """
    oldest = time.time() - keep_days * _DAY_S
    for folder in (home / "airflow" / "logs", home / "logs"):
        _remove_older(folder, oldest, folders=idle)
    for log in (home / "logs").glob("*.log"):
        if log.stat().st_size > _MAX_LOG_BYTES:
            _cut(log)
    if idle:
        for leftover in (home / "spark").iterdir():
            if leftover.is_dir() and not leftover.is_symlink():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)
        # USER/DATASET/WORKLOAD/.IDENTITY.OWNER.NUMBER.tmp; `.old` is one that was about to be replaced.
        for pattern in (".*.tmp", ".*.old"):
            for leftover in (home / "artifacts").glob(f"*/*/*/{pattern}"):
                if not leftover.is_symlink():
                    shutil.rmtree(leftover, ignore_errors=True)


def _remove_older(folder: Path, oldest: float, *, folders: bool) -> None:
    for path, _, names in os.walk(folder, topdown=False):
        for name in names:
            with contextlib.suppress(OSError):
                file = Path(path) / name
                if file.lstat().st_mtime < oldest:
                    file.unlink()
        # Removes empty folders only, and only while no process may write into them.
        if folders and Path(path) != folder:
            with contextlib.suppress(OSError):
                Path(path).rmdir()


def _cut(log: Path) -> None:
    """Keeps the end of a log to which a program still appends."""
    with log.open("r+b") as file:
        file.seek(-_KEPT_LOG_BYTES, os.SEEK_END)
        file.readline()
        kept = file.read()
        file.seek(0)
        file.write(kept)
        file.truncate()
