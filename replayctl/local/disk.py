"""Reports disk errors as ReplayctlError, and creates private files and folders."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

from replayctl.errors import OperationFailed

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FULL_BELOW_BYTES = 1_000_000
# The messages of the system and of sqlite.
_FULL_DISK_WORDS = ("No space left on device", "Disk quota exceeded", "database or disk is full")


@contextlib.contextmanager
def disk_errors(action: str, path: Path, *, hint: str | None = None) -> Iterator[None]:
    """Turns an OSError within the block into OperationFailed: `cannot <action> <path>: <reason>`."""
    try:
        yield
    except OSError as error:
        place = f" ({error.filename})" if error.filename and str(error.filename) != str(path) else ""
        reason = error.strerror or str(error)
        if error.errno in (errno.EEXIST, errno.ENOTDIR):
            reason = "a file exists where a folder is required"
        if error.errno in _FULL:
            hint = full_disk_hint(path)
        raise OperationFailed(f"cannot {action} {path}{place}: {reason}", hint=hint) from error


def is_full_disk(text: str) -> bool:
    """Whether a program's output reports a full disk."""
    return any(words in text for words in _FULL_DISK_WORDS)


def is_full(path: Path) -> bool:
    """Whether the disk of a path has less than a megabyte left; False where it cannot be asked."""
    with contextlib.suppress(OSError):
        return shutil.disk_usage(path).free < _FULL_BELOW_BYTES
    return False


def full_disk_hint(path: Path) -> str:
    """The hint for a full disk at a path."""
    return f"free some disk space; check with: df -h {shlex.quote(str(_existing(path)))}"


def make_private(folder: Path, setting: str) -> Path:
    """Creates a folder that only its owner can enter, or restricts an existing one; `setting` is its key.

    Raises OperationFailed when it cannot be created or is a file.
    """
    variable = f"REPLAYCTL_{setting.upper().replace('.', '_')}"
    hint = f"choose another folder: export {variable}=<folder>"
    with disk_errors("create folder", folder, hint=hint):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if folder.stat().st_mode & 0o077:
            folder.chmod(0o700)
    return folder


def write_private(path: Path, text: str) -> None:
    """Writes a file that only its owner can read, atomically; raises OSError when it cannot be written."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            # Otherwise a full disk may only show after the rename and leave an empty file.
            os.fsync(file.fileno())
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_like(path: Path, text: str) -> None:
    """Replaces a file's text atomically and keeps its permissions; follows a link to its target."""
    target = path.resolve()
    temporary = target.with_name(f".{target.name}.replayctl.tmp")
    try:
        with temporary.open("x", encoding="utf-8") as file:
            file.write(text)
        temporary.chmod(target.stat().st_mode & 0o7777)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def size_of(path: Path) -> int:
    """Size of a file or folder on the disk in bytes, links not followed; 0 when it does not exist.

    A file with several hard links in the folder counts once.
    """
    seen: set[tuple[int, int]] = set()
    total = 0
    pending = [path]
    while pending:
        entry = pending.pop()
        with contextlib.suppress(OSError):
            status = entry.lstat()
            key = (status.st_dev, status.st_ino)
            if key not in seen:
                seen.add(key)
                total += status.st_blocks * 512
            if entry.is_dir() and not entry.is_symlink():
                pending += [Path(child.path) for child in os.scandir(entry)]
    return total


def _existing(path: Path) -> Path:
    return next((folder for folder in (path, *path.parents) if folder.exists()), Path("/"))
