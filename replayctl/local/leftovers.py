"""Lists and removes what the local profile keeps on the disk while the stack is stopped.

Only files that replayctl has created are removed: known names below the state folder, environments by the form of
their name, and the completion that `--install-completion` has written. Folders that settings place elsewhere are kept.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from replayctl.console.events import Reporter
from replayctl.errors import OperationFailed
from replayctl.local import processes, record
from replayctl.local.disk import size_of, write_like
from replayctl.local.locking import exclusive
from replayctl.local.state import processes_in
from replayctl.settings.declared import Settings

_STATE = {
    "data": "raw data",
    "artifacts": "results of steps",
    "mlflow": "MLflow's experiments",
    "airflow": "Airflow's database, logs of tasks, password",
    "dags": "deployed DAGs",
    "spark_submit_files": "releases for Spark",
    "spark": "Spark's scratch files",
    "logs": "logs of the stack",
}
# Small files beside them; the lock is removed last.
_STATE_FILES = ("stack.json", "identity")
_ENVIRONMENT = re.compile(r"[a-z][a-z-]*-[0-9a-f]{12}")
_COMPLETIONS = (".bash_completions/replayctl.sh", ".zfunc/_replayctl", ".config/fish/completions/replayctl.fish")


@dataclass(frozen=True, slots=True)
class Leftover:
    """One file or folder that is kept; `bytes` is its size on the disk.

    `in_use_by` names the programs outside this stack for which a purge keeps it; None if there are none.
    """

    path: Path
    purpose: str
    bytes: int
    in_use_by: str | None = None


def find_leftovers(settings: Settings) -> tuple[Leftover, ...]:
    """Everything that is kept while the stack is stopped, with sizes measured now."""
    home = settings.local.home
    environments = _environments(settings.cache_dir)
    users = _other_users(home, environments)
    candidates = [(home / name, purpose) for name, purpose in _STATE.items()]
    candidates += [(path, "environment, shared by all stacks") for path in environments]
    candidates += [(Path.home() / name, "shell completion") for name in _COMPLETIONS]
    return tuple(
        Leftover(path, purpose, size_of(path), users if path in environments else None)
        for path, purpose in candidates
        if path.is_symlink() or path.exists()
    )


def _other_users(home: Path, environments: Sequence[Path]) -> str | None:
    """What runs from the environments and does not belong to this stack: other stacks by their folders."""
    own = set(processes_in(home))
    others = [process for process in processes.find_running_from(environments) if process not in own]
    folders = dict.fromkeys(record.folder_in_mark(processes.mark_of(process)) for process in others)
    unmarked = [process for process in others if not record.folder_in_mark(processes.mark_of(process))]
    names = [f"the local stack in {folder}" for folder in folders if folder]
    return ", ".join([*names, *([processes.describe(unmarked)] if unmarked else [])]) or None


def purge(settings: Settings, leftovers: Sequence[Leftover], reporter: Reporter) -> tuple[Leftover, ...]:
    """Removes the leftovers and returns those removed. The stack must be stopped.

    Environments that others use stay. Raises OperationFailed that names what could not be removed.
    """
    leftovers = [leftover for leftover in leftovers if leftover.in_use_by is None]
    with _state_lock(settings.local.home, reporter):
        for leftover in leftovers:
            reporter.status(f"removing {leftover.path}")
            with _environment_lock(leftover.path, settings.cache_dir, reporter):
                _remove(leftover.path)
        for name in _STATE_FILES:
            _remove(settings.local.home / name)
        _forget_completion(Path.home() / ".bashrc")
    _remove_empty(settings.local.home, settings.cache_dir / "environments")
    remaining = [leftover for leftover in leftovers if leftover.path.is_symlink() or leftover.path.exists()]
    if remaining:
        raise OperationFailed(f"cannot remove {', '.join(str(leftover.path) for leftover in remaining)}")
    return tuple(leftovers)


def _environments(cache_dir: Path) -> list[Path]:
    folder = cache_dir / "environments"
    with contextlib.suppress(OSError):
        return sorted(path for path in folder.iterdir() if _is_environment(path, cache_dir))
    return []


def _is_environment(path: Path, cache_dir: Path) -> bool:
    return path.parent == cache_dir / "environments" and _ENVIRONMENT.fullmatch(path.name) is not None


@contextlib.contextmanager
def _state_lock(home: Path, reporter: Reporter) -> Iterator[None]:
    if not home.is_dir():
        yield
        return
    with exclusive(home / "lock", "another replayctl is starting or stopping the local stack", reporter):
        yield
        _remove(home / "lock")


@contextlib.contextmanager
def _environment_lock(path: Path, cache_dir: Path, reporter: Reporter) -> Iterator[None]:
    """Prevents creation of the environment while it is removed; the lock is removed as well."""
    if not _is_environment(path, cache_dir):
        yield
        return
    lock = path.with_name(f"{path.name}.lock")
    with exclusive(lock, f"another replayctl is creating {path}", reporter):
        yield
        _remove(lock)


def _remove(path: Path) -> None:
    """Removes a file, a link (never its target) or a folder; the caller checks what remains."""
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _remove_empty(*folders: Path) -> None:
    """Removes our empty folders, and empty parent folders that are ours."""
    for folder in folders:
        for path in (folder, *folder.parents):
            if path != folder and path.name != "replayctl":
                break
            with contextlib.suppress(OSError):
                path.rmdir()


def _forget_completion(rc_file: Path) -> None:
    """Removes the line that loads our completion from bash's startup file."""
    script = Path.home() / ".bash_completions" / "replayctl.sh"
    with contextlib.suppress(OSError, UnicodeDecodeError):
        text = rc_file.read_text(encoding="utf-8")
        lines = [line for line in text.splitlines(keepends=True) if line.strip() != f"source '{script}'"]
        if "".join(lines) != text:
            write_like(rc_file, "".join(lines))
