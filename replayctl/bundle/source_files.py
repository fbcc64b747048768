"""The files of a DAG folder on disk, with bounded reads; reports what is not a regular file."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from replayctl.errors import UsageProblem

_KINDS = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISDIR, "a link to a folder"),
)


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of the folder; `oddity` says what it is if it is not a regular file."""

    path: Path
    relative: str
    oddity: str | None = None


def source_files(folder: Path) -> Iterator[SourceFile]:
    """All files below a folder, sorted, except hidden files and folders, virtual environments and bytecode.

    Links to files count as files, links to folders as oddities. Raises UsageProblem for a folder that cannot be read.
    """
    yield from _below(folder, "")


def _below(folder: Path, prefix: str) -> Iterator[SourceFile]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise _unreadable(folder, error) from error
    for entry in entries:
        path, relative = folder / entry.name, f"{prefix}{entry.name}"
        if entry.name.startswith(".") or entry.name == "__pycache__" or path.suffix in (".pyc", ".pyo"):
            continue
        if entry.is_dir(follow_symlinks=False):
            if not os.path.exists(path / "pyvenv.cfg"):
                yield from _below(path, f"{relative}/")
            continue
        yield SourceFile(path, relative, _oddity(path))


def _oddity(path: Path) -> str | None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if path.is_symlink():
            return f"a link to {os.readlink(path)}, which cannot be followed: {error.strerror}"
        raise _unreadable(path, error) from error
    if stat.S_ISREG(mode):
        return None
    return next((name for holds, name in _KINDS if holds(mode)), "not a regular file")


def read_source(path: Path, limit: int) -> bytes:
    """The bytes of a file; UsageProblem if it cannot be read, is not a regular file or is larger than `limit` bytes."""
    try:
        # A named pipe that has replaced the file meanwhile must not block the open.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UsageProblem(f"{path} is not a regular file any more", hint="run the command again")
            content = file.read(limit + 1)
    except OSError as error:
        raise _unreadable(path, error) from error
    if len(content) > limit:
        raise UsageProblem(
            f"{path} has more than {limit} bytes, which is too large for a release",
            hint="move data out of the DAG folder, and pass its path to the workload",
        )
    return content


def _unreadable(path: Path, error: OSError) -> UsageProblem:
    if isinstance(error, FileNotFoundError):
        return UsageProblem(f"{path} was removed while the folder was read", hint="run the command again")
    return UsageProblem(
        f"cannot read {path}: {error.strerror}",
        hint="make it readable, move it out of the folder, or start its name with a dot",
    )
