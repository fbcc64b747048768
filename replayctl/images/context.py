"""The context of a build: a folder as one deterministic tar, computed before anything is sent."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from replayctl.errors import UsageProblem

IGNORE_FILE = ".dockerignore"
# Never part of an image, whatever the ignore file says.
_NEVER = frozenset({"__pycache__", ".git", ".DS_Store", IGNORE_FILE})
_IN_MEMORY_BYTES = 16 << 20
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class ContextFile:
    """One file of a build's context; its size in bytes."""

    path: str
    size: int
    executable: bool


@dataclass(frozen=True, slots=True)
class BuildContext:
    """The sorted files that are sent to a build; `left_out` are those that the ignore rules exclude."""

    folder: Path
    dockerfile: str
    files: tuple[ContextFile, ...]
    left_out: tuple[str, ...]

    @property
    def size(self) -> int:
        """The size of all files together in bytes."""
        return sum(file.size for file in self.files)

    def tar(self) -> IO[bytes]:
        """The context as a tar archive whose bytes depend on names, contents and executable bits alone.

        Raises UsageProblem when a file cannot be read or its size has changed since the plan.
        """
        buffer = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES)  # noqa: SIM115 - the caller closes it
        try:
            with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
                for file in self.files:
                    self._add(archive, file)
        except BaseException:
            buffer.close()
            raise
        buffer.seek(0)
        return buffer

    def _add(self, archive: tarfile.TarFile, file: ContextFile) -> None:
        info = tarfile.TarInfo(file.path)
        info.size, info.mode = file.size, 0o755 if file.executable else 0o644
        path = self.folder / file.path
        with _open(path) as content:
            try:
                archive.addfile(info, content)
            except OSError as error:
                raise UsageProblem(f"cannot read {path}: {error}") from error
            if content.read(1):
                raise UsageProblem(f"{path} changed while it was read", hint="run the command again")

    def digest(self) -> str:
        """The sha256 of the tar, in hex."""
        digest = hashlib.sha256()
        with self.tar() as archive:
            while block := archive.read(_BLOCK):
                digest.update(block)
        return digest.hexdigest()


def plan_context(folder: Path, dockerfile: str) -> BuildContext:
    """The context of a folder by its `.dockerignore`.

    Links to files are followed, inside the folder only. Raises UsageProblem when the folder or the Dockerfile does not
    exist, or when what the ignore rules keep has anything but files and folders.
    """
    from docker.utils.build import exclude_paths

    if not (folder / dockerfile).is_file():
        raise UsageProblem(
            f"{dockerfile} does not exist in {folder}", hint="pass the folder of the Dockerfile with --docker-dir"
        )
    paths = sorted((path.relative_to(folder).as_posix(), path) for path in _walk(folder))
    # The Dockerfile is always sent; `exclude_paths` adds it to its list.
    kept = {Path(path).as_posix() for path in exclude_paths(str(folder), _ignored(folder), dockerfile=dockerfile)}
    kept = {path for path in kept if not _NEVER.intersection(Path(path).parts)}
    files = tuple(_described(folder, relative, path) for relative, path in paths if relative in kept)
    return BuildContext(folder, dockerfile, files, tuple(relative for relative, _ in paths if relative not in kept))


def _ignored(folder: Path) -> list[str]:
    try:
        text = (folder / IGNORE_FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise UsageProblem(f"cannot read {folder / IGNORE_FILE}: {error}") from error
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def _walk(folder: Path) -> Iterator[Path]:
    """All entries that are not folders; links to folders are not entered, and are entries as well."""

    def refuse(error: OSError) -> None:
        raise UsageProblem(f"cannot read {error.filename}: {error.strerror}") from error

    for base, folders, names in os.walk(folder, onerror=refuse):
        yield from (Path(base) / name for name in names)
        yield from (Path(base) / name for name in folders if (Path(base) / name).is_symlink())


def _described(folder: Path, relative: str, path: Path) -> ContextFile:
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UsageProblem(f"{path} is a link that points outside the folder", hint="copy the file into the folder")
    try:
        status = path.stat()
    except OSError as error:
        raise UsageProblem(f"cannot read {path}: {error.strerror}") from error
    if stat.S_ISDIR(status.st_mode):
        raise UsageProblem(
            f"{path} is a link to a folder", hint=f"replace it by a copy of the folder, or add it to {IGNORE_FILE}"
        )
    if not stat.S_ISREG(status.st_mode):
        raise UsageProblem(f"{path} is neither a file nor a folder", hint=f"remove it, or add it to {IGNORE_FILE}")
    if any(0xDC80 <= ord(character) <= 0xDCFF for character in relative):
        raise UsageProblem(f"the name of {path!r} is not UTF-8", hint="rename it")
    return ContextFile(relative, status.st_size, bool(status.st_mode & stat.S_IXUSR))


def _open(path: Path) -> io.BufferedReader:
    try:
        return path.open("rb")
    except OSError as error:
        raise UsageProblem(f"cannot read {path}: {error.strerror}") from error
