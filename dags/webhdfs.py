"""HDFS through its REST API, for tasks: no JVM, standard library only.

https://hadoop.apache.org/docs/r3.4.1/hadoop-project-dist/hadoop-hdfs/WebHDFS.html

Requests wait for a NameNode that starts, is in safe mode or in standby, and for a DataNode that does not answer. Every
request may be repeated: if the answer to a rename is lost, the folder's number, which never changes, tells whether it
has succeeded.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import logging
import re
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any, TypeVar

log = logging.getLogger("replay")

_PREFIX = "/webhdfs/v1"
_INODES = "/.reserved/.inodes"
_BLOCK = 1 << 20
_MAX_ANSWER_BYTES = 256 << 20
_MAX_HOPS = 3
_PAUSES_S = (0.5, 15.0)
# Errors of a NameNode that starts, is in standby or misses its DataNodes, and of a DataNode that misses its NameNode.
_PASSING = (
    *("SafeModeException", "RetriableException", "StandbyException", "NoNamenodesAvailableException"),
    *("ConnectException", "SocketException", "SocketTimeoutException", "EOFException", "NoRouteToHostException"),
    *("Failed to find datanode", "No active nodes contain this block"),
    *("could only be written to 0 of the", "Could not obtain block"),
)
_DENIED = re.compile(r'user=([^,]*), access=(\w+), inode="([^"]*)":([^:]*):([^:]*):(\S+)')
_ACCESS = {"WRITE": "write to", "READ": "read", "READ_EXECUTE": "read", "EXECUTE": "look into"}
_REDIRECTS = (301, 302, 303, 307, 308)
_Value = TypeVar("_Value")


class HdfsError(Exception):
    """HDFS has rejected a request or does not answer; the message names the request."""


class HdfsUnavailable(HdfsError):
    """HDFS does not answer at the moment: it is down, starts, is in safe mode or in standby."""


@dataclass(frozen=True, slots=True)
class HdfsStatus:
    """A file or folder: its name, its size in bytes, its modification time, and its number, which is never reused."""

    name: str
    is_folder: bool
    size: int
    modified_ms: int
    number: int


class WebHdfs:
    """HDFS at the web address of its NameNode, as `user`.

    `timeout_s` is how long a server may be silent, `patience_s` how long requests wait for an unavailable server before
    they raise HdfsUnavailable. Methods raise HdfsError if a request is rejected.
    """

    def __init__(self, url: str, user: str, *, timeout_s: float = 60.0, patience_s: float = 180.0) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise HdfsError(f"WebHDFS address {url!r} is not an address with http:// or https://")
        self.url = url.rstrip("/")
        self.user = user
        self._timeout_s = timeout_s
        self._patience_s = patience_s

    def status(self, path: str) -> HdfsStatus | None:
        """The entry at `path`; None if there is none."""
        try:
            return _status(self._json("GET", path, "GETFILESTATUS")["FileStatus"])
        except FileNotFoundError:
            return None

    def entries(self, path: str) -> list[HdfsStatus]:
        """The entries of a folder. Raises FileNotFoundError if there is no such folder."""
        return [_status(row) for row in self._json("GET", path, "LISTSTATUS")["FileStatuses"]["FileStatus"]]

    def make_folder(self, path: str) -> None:
        """Creates a folder and its parents if they do not exist."""
        if not self._json("PUT", path, "MKDIRS").get("boolean"):
            raise HdfsError(f"HDFS did not make the folder {path}")

    def rename(self, source: str, target: str) -> None:
        """Renames a file or folder, atomically.

        Raises FileNotFoundError without `source`, FileExistsError if there is anything at `target`.
        """
        moved = self.status(source)
        if moved is None:
            raise FileNotFoundError(source)

        def is_done() -> bool:
            there = self.status(target)
            return there is not None and there.number == moved.number

        def attempt() -> None:
            # Without the option, HDFS moves a folder into an existing one, or answers just `false`.
            with self._answer("PUT", source, "RENAME", {"destination": target, "renameoptions": "NONE"}):
                pass

        try:
            self._patiently(attempt)
        except (FileNotFoundError, FileExistsError):
            # The answer to an earlier attempt may have been lost.
            if not is_done():
                raise
        else:
            if not is_done():
                raise HdfsError(f"HDFS took the request to rename {source}, but it is not at {target}")

    def delete(self, path: str) -> None:
        """Removes a file, or a folder with all its content, if it exists."""
        self._json("DELETE", path, "DELETE", recursive="true")

    def checksum(self, path: str) -> str:
        """HDFS's own checksum of a file's content, with the name of its method."""
        answer = self._json("GET", path, "GETFILECHECKSUM")["FileChecksum"]
        return f"{answer['algorithm']}:{answer['bytes']}"

    def read(self, path: str, offset: int, length: int) -> bytes:
        """`length` bytes of a file from `offset`; the file must have them."""

        def attempt() -> bytes:
            with self._answer("GET", path, "OPEN", {"offset": str(offset), "length": str(length)}) as answer:
                data = answer.read(length)
            if len(data) != length:
                raise HdfsUnavailable(f"HDFS sent {len(data)} of {length} bytes of {path}")
            return data

        return self._patiently(attempt) if length else b""

    def write(self, path: str, content: IO[bytes], size: int) -> None:
        """Writes a file of `size` bytes from the position of `content`; overwrites an existing one.

        Raises FileNotFoundError if the folder no longer exists.
        """
        start = content.tell()

        def attempt() -> None:
            content.seek(start)
            query = {"overwrite": "true", "createparent": "false"}
            with self._answer("PUT", path, "CREATE", query, (content, size)):
                pass
            written = self.status(path)
            if written is None or written.size != size:
                raise HdfsUnavailable(f"HDFS has {written.size if written else 'none'} of {size} bytes of {path}")

        self._patiently(attempt)

    def _json(self, method: str, path: str, operation: str, **query: str) -> dict[str, Any]:
        def attempt() -> dict[str, Any]:
            with self._answer(method, path, operation, query) as answer:
                text = answer.read(_MAX_ANSWER_BYTES)
            try:
                return dict(json.loads(text))
            except (ValueError, TypeError) as error:
                raise HdfsError(f"{self.url} is no WebHDFS: its answer to {operation} is not JSON") from error

        return self._patiently(attempt)

    def _patiently(self, attempt: Callable[[], _Value]) -> _Value:
        deadline = time.monotonic() + self._patience_s
        pause, longest = _PAUSES_S
        while True:
            try:
                return attempt()
            except HdfsUnavailable as error:
                if time.monotonic() + pause > deadline:
                    raise
                log.warning("%s; next attempt in %.1f s", error, pause)
            time.sleep(pause)
            pause = min(2 * pause, longest)

    @contextlib.contextmanager
    def _answer(
        self,
        method: str,
        path: str,
        operation: str,
        query: Mapping[str, str],
        content: tuple[IO[bytes], int] | None = None,
    ) -> Iterator[_Body]:
        """The answer of the NameNode, or of the DataNode that it redirects to; only the latter gets the content."""
        names = urllib.parse.urlencode({"op": operation, "user.name": self.user, **query})
        url = f"{self.url}{_PREFIX}{urllib.parse.quote(path)}?{names}"
        with contextlib.ExitStack() as stack:
            for hop in range(_MAX_HOPS):
                connection, host, target = self._connection(url)
                stack.callback(connection.close)
                answer = _ask(connection, host, method, target, content if hop else None)
                stack.callback(answer.close)
                body = _Body(answer, host)
                if answer.status not in _REDIRECTS:
                    if answer.status not in (200, 201):
                        raise self._refusal(answer.status, body, operation, path)
                    if content is not None and not hop:
                        raise HdfsError(f"{self.url} is no WebHDFS: it names no DataNode for {operation}")
                    yield body
                    return
                url = answer.headers.get("Location") or ""
            raise HdfsError(f"{self.url} sends {operation} of {path} from server to server")

    def _connection(self, url: str) -> tuple[http.client.HTTPConnection, str, str]:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise HdfsError(f"{self.url} is no WebHDFS: it sends us to {url!r}")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname, parts.port, timeout=self._timeout_s, blocksize=_BLOCK)
        return connection, parts.netloc.rpartition("@")[2], f"{parts.path}?{parts.query}"

    def _refusal(self, code: int, body: _Body, operation: str, path: str) -> Exception:
        text = body.read(_MAX_ANSWER_BYTES)
        try:
            row = json.loads(text)["RemoteException"]
            kind, message = str(row["exception"]), str(row.get("message") or "").partition("\n")[0]
        except (ValueError, KeyError, TypeError):
            kind, message = "", text[:200].decode("utf-8", errors="replace")
        if kind == "FileNotFoundException":
            return FileNotFoundError(message)
        if kind == "FileAlreadyExistsException":
            return FileExistsError(message)
        if kind in _PASSING or code in (502, 503, 504) or any(word in message for word in _PASSING):
            return HdfsUnavailable(f"HDFS at {self.url} is not ready ({kind or f'HTTP {code}'}: {message})")
        if code == 401:
            return HdfsError(f"HDFS at {self.url} asks for a sign-in (HTTP 401), which is not supported: {message}")
        if kind == "AccessControlException":
            return HdfsError(_denied(message) or f"HDFS does not let user {self.user} {operation} {path}: {message}")
        return HdfsError(f"HDFS at {self.url} refused {operation} of {path} (HTTP {code} {kind}): {message}")


class HdfsFile(io.RawIOBase):
    """A file on HDFS for readers that seek; each read is a request.

    It is read by its number, so that it stays the same file while another one takes its name; reads raise
    FileNotFoundError once it is removed.
    https://hadoop.apache.org/docs/r3.4.1/hadoop-project-dist/hadoop-hdfs/HdfsNfsGateway.html (`/.reserved/.inodes`)
    """

    def __init__(self, hdfs: WebHdfs, path: str, status: HdfsStatus) -> None:
        super().__init__()
        self._hdfs = hdfs
        self._path = path
        self._number = status.number
        self._size = status.size
        self._place = 0
        self._has_numbers = True

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """The position of the next read."""
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Sets the position of the next read."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = max(0, base + offset)
        return self._place

    def readinto(self, buffer: Any) -> int:
        """Reads up to the size of `buffer` or the end of the file."""
        view = memoryview(buffer).cast("B")
        length = max(0, min(len(view), self._size - self._place))
        view[:length] = self._read(length)
        self._place += length
        return length

    def _read(self, length: int) -> bytes:
        if self._has_numbers:
            try:
                return self._hdfs.read(f"{_INODES}/{self._number}", self._place, length)
            except HdfsUnavailable:
                raise
            except (FileNotFoundError, HdfsError):
                # Removed, or a proxy in front of HDFS that knows files by their paths alone.
                self._has_numbers = False
        status = self._hdfs.status(self._path)
        if status is None or status.number != self._number:
            raise FileNotFoundError(f"{self._path} was replaced or removed while it was read")
        return self._hdfs.read(self._path, self._place, length)


class _Body:
    """The answer of a server; raises HdfsUnavailable if it ends early."""

    def __init__(self, answer: http.client.HTTPResponse, host: str) -> None:
        self._answer = answer
        self._host = host

    def read(self, limit: int) -> bytes:
        """All of it, at most `limit` bytes."""
        try:
            data = self._answer.read(limit)
        except (OSError, http.client.HTTPException) as error:
            raise HdfsUnavailable(f"HDFS at {self._host} was cut off: {_words(error)}") from error
        # With a limit, the library returns what there is.
        if len(data) < limit and self._answer.length:
            raise HdfsUnavailable(f"HDFS at {self._host} was cut off: {self._answer.length} bytes are missing")
        return data


def _ask(
    connection: http.client.HTTPConnection, host: str, method: str, target: str, content: tuple[IO[bytes], int] | None
) -> http.client.HTTPResponse:
    headers = {"Content-Type": "application/octet-stream", "Content-Length": str(content[1])} if content else {}
    try:
        try:
            connection.request(method, target, content[0] if content else None, headers)
        except (BrokenPipeError, ConnectionResetError):
            # A server that rejects the request does not wait for the rest, and its answer may already be there.
            if not content:
                raise
        return connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        raise HdfsUnavailable(f"HDFS at {host} does not answer: {_words(error)}") from error


def _status(row: dict[str, Any]) -> HdfsStatus:
    is_folder = row["type"] == "DIRECTORY"
    return HdfsStatus(
        str(row["pathSuffix"]), is_folder, int(row["length"]), int(row["modificationTime"]), int(row["fileId"])
    )


def _denied(message: str) -> str | None:
    """The NameNode's message about permissions, with the folder and its owner; None for other messages."""
    match = _DENIED.search(message)
    if match is None:
        return None
    user, access, folder, owner, group, mode = match.groups()
    verb = _ACCESS.get(access, f"{access} on")
    return (
        f"HDFS does not let user {user} {verb} {folder}, which belongs to {owner} (group {group}, {mode}): "
        f"set hdfs.user to one who may, or ask {owner} for access"
    )


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
