"""A folder as one archive whose bytes follow from names, contents and executable bits alone."""

from __future__ import annotations

import gzip
import hashlib
import stat
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

# The archive is unpacked once per node and sent once: speed counts more than the last megabytes.
_LEVEL = 1
# Files are newer than any that tools take for damaged, and older than all others: 2000-01-01.
_MTIME = 946684800


@dataclass(frozen=True, slots=True)
class Packed:
    """One archive: sizes in bytes; `files` is the number of its files."""

    size: int
    unpacked: int
    files: int
    sha256: str


class _Hashing:
    """A file that is hashed while it is written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self.size += len(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def pack(tree: Path, path: Path, advance: Callable[[float], None]) -> Packed:
    """Writes `tree` to `path`; `advance` is called with the bytes that are done. OSError when the disk is full."""
    files = unpacked = 0
    with path.open("wb") as raw:
        hashing = _Hashing(raw)
        with (
            gzip.GzipFile(filename="", mode="wb", compresslevel=_LEVEL, fileobj=hashing, mtime=0) as zipped,
            tarfile.open(fileobj=zipped, mode="w", format=tarfile.GNU_FORMAT) as archive,
        ):
            for entry in sorted(tree.rglob("*"), key=lambda entry: entry.relative_to(tree).parts):
                if entry.is_dir():
                    continue
                info = tarfile.TarInfo(entry.relative_to(tree).as_posix())
                status = entry.stat()
                info.size, info.mtime = status.st_size, _MTIME
                info.mode = 0o755 if status.st_mode & stat.S_IXUSR else 0o644
                with entry.open("rb") as content:
                    archive.addfile(info, content)
                files += 1
                unpacked += status.st_size
                advance(status.st_size)
        return Packed(hashing.size, unpacked, files, hashing.digest.hexdigest())
