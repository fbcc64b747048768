"""Files and folders of artifacts: on this machine's file systems (including NFS), or on HDFS.

One type of path for both, with the few operations that artifacts need. Standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import getpass
import hashlib
import io
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from .webhdfs import HdfsFile, WebHdfs

# Local files up to this size are compared by content: reading them takes less time than starting a process.
_CHECKED_BYTES = 8 << 20
_READ_AHEAD = 4 << 20
_COPIED_AT_ONCE = 32 << 20


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or folder below a folder: its size in bytes, modification time (Unix time), and its number on HDFS."""

    is_folder: bool
    size: int
    modified_s: float
    number: int | None = None


class StoragePath(Protocol):
    """A file or folder. On a server, all methods raise HdfsError if it rejects the request or does not answer."""

    @property
    def name(self) -> str:
        """Its last name."""

    @property
    def parent(self) -> StoragePath:
        """The folder that it is in."""

    @property
    def uri(self) -> str:
        """Its address for Spark, with the scheme."""

    def __truediv__(self, name: str) -> StoragePath:
        """The path with this relative name below it."""

    def entries(self) -> dict[str, Entry]:
        """The entries of this folder by name; empty if there is no such folder."""

    def tree(self) -> dict[str, Entry]:
        """All entries below this folder by relative name, without links and what they lead to."""

    def exists(self) -> bool:
        """Whether there is anything at this path."""

    def open(self) -> IO[bytes]:
        """The file, opened for reading at any position. Raises FileNotFoundError if it does not exist."""

    def write(self, content: IO[bytes]) -> None:
        """Writes the file, and syncs it to the disk, from a file that is open at its beginning.

        Raises FileNotFoundError if its folder no longer exists, on this machine OSError if something else than a file
        is at this path.
        """

    def make_folder(self) -> None:
        """Creates this folder and its parents if they do not exist."""

    def rename(self, target: StoragePath) -> None:
        """Renames it within the same storage, atomically.

        Raises FileNotFoundError if it no longer exists, FileExistsError if there is anything at `target` (on this
        machine, an empty folder is replaced).
        """

    def delete(self) -> None:
        """Removes the file, or the folder with all its content, if it exists."""

    def evidence(self, entry: Entry) -> dict[str, object]:
        """Evidence of the content of the file with this entry, as JSON values, to detect changes later."""

    def has_changed(self, entry: Entry, evidence: Mapping[str, object]) -> bool:
        """Whether the file differs from the one that the evidence describes."""

    def local_file(self) -> contextlib.AbstractContextManager[Path]:
        """A local path for programs that write a file by name; the file is in this place afterwards."""

    def local_copy(self, copy: Path) -> Path:
        """A local path for programs that read a file by name: its own, or `copy` if it is not on this machine."""


@dataclass(frozen=True, slots=True)
class LocalPath:
    """A path of a file system that this machine has."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def parent(self) -> LocalPath:
        return LocalPath(self.path.parent)

    @property
    def uri(self) -> str:
        return f"file://{self.path}"

    def __truediv__(self, name: str) -> LocalPath:
        return LocalPath(self.path / name)

    def entries(self) -> dict[str, Entry]:
        entries = {}
        try:
            with os.scandir(self.path) as rows:
                for row in sorted(rows, key=lambda row: row.name):
                    # It was removed meanwhile.
                    with contextlib.suppress(FileNotFoundError):
                        status = row.stat(follow_symlinks=False)
                        if row.is_dir(follow_symlinks=False) or row.is_file(follow_symlinks=False):
                            is_folder = row.is_dir(follow_symlinks=False)
                            entries[row.name] = Entry(is_folder, status.st_size, status.st_mtime)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        return entries

    def tree(self) -> dict[str, Entry]:
        return dict(_tree(self))

    def exists(self) -> bool:
        return os.path.lexists(self.path)

    def open(self) -> IO[bytes]:
        # Others may write to a shared folder: no link is followed, and a named pipe would be waited for.
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):
                raise FileNotFoundError(f"{self} is not a file") from error
            raise
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise FileNotFoundError(f"{self} is not a file")
        return os.fdopen(descriptor, "rb")

    def write(self, content: IO[bytes]) -> None:
        # As in `open`: a link is not written through.
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with os.fdopen(os.open(self.path, flags, 0o666), "wb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OSError(errno.EEXIST, "not a regular file", str(self.path))
            shutil.copyfileobj(content, file, 1 << 20)
            file.flush()
            os.fsync(file.fileno())

    def make_folder(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)

    def rename(self, target: StoragePath) -> None:
        assert isinstance(target, LocalPath)
        try:
            os.rename(self.path, target.path)
        except OSError as error:
            # The error number depends on what is in the way: a file, or a folder that is not empty.
            if target.exists() and self.exists():
                raise FileExistsError(f"{target} is there already") from error
            raise

    def delete(self) -> None:
        if self.path.is_dir() and not self.path.is_symlink():
            shutil.rmtree(self.path, ignore_errors=True)
        else:
            self.path.unlink(missing_ok=True)

    def evidence(self, entry: Entry) -> dict[str, object]:
        return {"blake2b": self._digest()} if entry.size <= _CHECKED_BYTES else {}

    def has_changed(self, entry: Entry, evidence: Mapping[str, object]) -> bool:
        digest = evidence.get("blake2b")
        return digest is not None and digest != self._digest()

    @contextlib.contextmanager
    def local_file(self) -> Iterator[Path]:
        yield self.path

    def local_copy(self, copy: Path) -> Path:
        return self.path

    def _digest(self) -> str:
        digest = hashlib.blake2b(digest_size=16)
        with self.open() as file:
            # The manifest decides which files are compared by content, and it may name a large one.
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class HdfsPath:
    """A path of HDFS, without a JVM. `filesystem` is `hdfs://` and the name of the file system, if it has one."""

    hdfs: WebHdfs
    filesystem: str
    path: str

    def __str__(self) -> str:
        return self.uri

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def parent(self) -> HdfsPath:
        return HdfsPath(self.hdfs, self.filesystem, self.path.rpartition("/")[0] or "/")

    @property
    def uri(self) -> str:
        return f"{self.filesystem}{self.path}"

    def __truediv__(self, name: str) -> HdfsPath:
        return HdfsPath(self.hdfs, self.filesystem, f"{self.path.rstrip('/')}/{name}")

    def entries(self) -> dict[str, Entry]:
        try:
            rows = self.hdfs.entries(self.path)
        except FileNotFoundError:
            return {}
        # For a file, HDFS lists the file itself, without a name.
        return {
            row.name: Entry(row.is_folder, row.size, row.modified_ms / 1000, row.number)
            for row in sorted(rows, key=lambda row: row.name)
            if row.name
        }

    def tree(self) -> dict[str, Entry]:
        return dict(_tree(self))

    def exists(self) -> bool:
        return self.hdfs.status(self.path) is not None

    def open(self) -> IO[bytes]:
        status = self.hdfs.status(self.path)
        if status is None or status.is_folder:
            raise FileNotFoundError(f"{self} is not a file")
        return io.BufferedReader(HdfsFile(self.hdfs, self.path, status), _READ_AHEAD)

    def write(self, content: IO[bytes]) -> None:
        size = content.seek(0, io.SEEK_END)
        content.seek(0)
        self.hdfs.write(self.path, content, size)

    def make_folder(self) -> None:
        self.hdfs.make_folder(self.path)

    def rename(self, target: StoragePath) -> None:
        assert isinstance(target, HdfsPath)
        self.hdfs.rename(self.path, target.path)

    def delete(self) -> None:
        self.hdfs.delete(self.path)

    def evidence(self, entry: Entry) -> dict[str, object]:
        return {**_stamp(entry), "checksum": self.hdfs.checksum(self.path)}

    def has_changed(self, entry: Entry, evidence: Mapping[str, object]) -> bool:
        # HDFS never reuses a number, and writing changes the time, so most files need not be read. In a copy of the
        # complete artifact, the numbers differ.
        if all(evidence.get(name) == value for name, value in _stamp(entry).items()):
            return False
        return self.hdfs.checksum(self.path) != evidence.get("checksum")

    @contextlib.contextmanager
    def local_file(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="replayctl-", dir=scratch_folder()) as folder:
            path = Path(folder) / self.name
            yield path
            with path.open("rb") as content:
                self.write(content)

    def local_copy(self, copy: Path) -> Path:
        with self.open() as source, copy.open("wb") as target:
            shutil.copyfileobj(source, target, _COPIED_AT_ONCE)
        return copy


def open_path(address: str, hdfs: Mapping[str, str | None] | None) -> StoragePath:
    """The path at an absolute path, a `file://` or an `hdfs://` URL.

    `hdfs` has the connection to HDFS: `url`, the NameNode's web address, `user`, and `patience_s`, how long requests
    wait for a server that is away, if not as long as a task. Raises ValueError for other kinds of addresses, and for an
    `hdfs://` one if there is no connection.
    """
    scheme, separator, rest = address.partition("://")
    if separator and scheme == "hdfs":
        name, slash, path = rest.partition("/")
        path = f"{slash}{path}".rstrip("/")
        parts = path.split("/")[1:]
        if not path or any(part in ("", ".", "..") for part in parts) or any(ord(letter) < 32 for letter in address):
            raise ValueError(f"{address}: not an address like hdfs://NAMENODE:PORT/FOLDER")
        url = (hdfs or {}).get("url")
        if not url:
            raise ValueError(f"{address}: the deployment does not name WebHDFS's address (set hdfs.url_in_pods)")
        patience = (hdfs or {}).get("patience_s")
        options = {"patience_s": float(patience)} if patience else {}
        return HdfsPath(WebHdfs(url, (hdfs or {}).get("user") or _own_name(), **options), f"hdfs://{name}", path)
    if separator and scheme != "file":
        raise ValueError(f"{address}: {scheme}:// is not supported, only hdfs:// and folders of this machine are")
    if not (rest if separator else address).startswith("/"):
        raise ValueError(f"{address}: not an absolute path")
    return LocalPath(Path(rest if separator else address))


def scratch_folder() -> str:
    """A folder for large temporary files of this process; on YARN, the container's own, which is removed with it."""
    return os.getcwd() if "CONTAINER_ID" in os.environ else tempfile.gettempdir()


def _stamp(entry: Entry) -> dict[str, object]:
    return {"number": entry.number, "modified_ms": round(entry.modified_s * 1000)}


def _own_name() -> str:
    """The user of Hadoop's own programs here. Raises ValueError if this process has no user name."""
    try:
        return os.environ.get("HADOOP_USER_NAME") or getpass.getuser()
    except (KeyError, OSError) as error:
        raise ValueError(
            "the deployment names no user of HDFS (set hdfs.user), and this process has no name"
        ) from error


def _tree(folder: StoragePath, prefix: str = "") -> Iterator[tuple[str, Entry]]:
    for name, entry in folder.entries().items():
        yield f"{prefix}{name}", entry
        if entry.is_folder:
            yield from _tree(folder / name, f"{prefix}{name}/")
