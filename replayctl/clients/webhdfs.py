"""Reads and writes HDFS by its REST API, in streams.

https://hadoop.apache.org/docs/r3.4.1/hadoop-project-dist/hadoop-hdfs/WebHDFS.html
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from replayctl.clients.proxies import make_pool
from replayctl.errors import AuthFailed, Conflict, NotFound, OperationFailed, ReplayctlError, Unreachable, in_words

_TIMEOUT_S = 120.0
_CHUNK_BYTES = 1 << 20
_MAX_ANSWER_BYTES = 64 << 20
# What is said where a DataNode is missing, and by a DataNode that misses its NameNode.
_PASSING = (
    *("ConnectException", "SocketException", "SocketTimeoutException", "EOFException", "NoRouteToHostException"),
    *("Failed to find datanode", "No active nodes contain this block"),
    *("could only be written to 0 of the", "Could not obtain block"),
)
_DENIED = re.compile(r'inode="([^"]*)":([^:]*):([^:]*):([-a-z]+)')
# HDFS has one writer of a file at a time; or another one has just created it.
_BUSY = ("AlreadyBeingCreatedException", "RecoveryInProgressException", "FileAlreadyExistsException")
_PAUSES_S = (0.1, 0.3, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0)


@dataclass(frozen=True, slots=True)
class Entry:
    """One file or folder of HDFS: its size in bytes, its owner, and when it was changed (Unix time)."""

    name: str
    is_folder: bool
    size: int
    modified_s: float
    owner: str = ""


class WebHdfs:
    """HDFS at the web address of its NameNode, as `user`; without one HDFS takes everybody for the same.

    `route` gives the base address at which a DataNode's `host:port` can be reached from here, `timeout_s` is how long a
    server may be silent.
    """

    def __init__(self, url: str, user: str, route: Callable[[str, int], str], *, timeout_s: float = _TIMEOUT_S) -> None:
        self.url = url.rstrip("/")
        self.user = user
        self._route = route
        self._timeout_s = timeout_s

    def entries(self, path: str) -> list[Entry] | None:
        """What is in a folder; None when it does not exist."""
        try:
            rows = self._ask("GET", path, op="LISTSTATUS")["FileStatuses"]["FileStatus"]
        except NotFound:
            return None
        except (KeyError, TypeError) as error:
            raise OperationFailed(f"{self.url} did not answer as HDFS does") from error
        return [
            Entry(
                name=str(row["pathSuffix"]),
                is_folder=row["type"] == "DIRECTORY",
                size=int(row["length"]),
                modified_s=int(row["modificationTime"]) / 1000,
                owner=str(row.get("owner", "")),
            )
            for row in rows
        ]

    def attributes(self, path: str) -> dict[str, str]:
        """The extended attributes of a file, by their names without `user.`; empty when it does not exist."""
        try:
            rows = self._ask("GET", path, op="GETXATTRS", encoding="base64")["XAttrs"]
        except NotFound:
            return {}
        names = (str(row["name"]) for row in rows)
        values = (base64.b64decode(str(row.get("value") or "0s")[2:]).decode("utf-8", "replace") for row in rows)
        return {name.removeprefix("user."): value for name, value in zip(names, values, strict=True)}

    def set_attribute(self, path: str, name: str, value: str) -> None:
        """Sets an extended attribute."""
        words = {"xattr.name": f"user.{name}", "xattr.value": value, "flag": "CREATE"}
        self._ask("PUT", path, op="SETXATTR", **words)

    def make_folder(self, path: str) -> None:
        """Creates a folder and those above it, unless they exist."""
        self._ask("PUT", path, op="MKDIRS", permission="755")

    def rename(self, path: str, new: str) -> None:
        """Renames, and never replaces or nests; Conflict when the new name exists."""
        try:
            self._ask("PUT", path, op="RENAME", destination=new, renameoptions="NONE")
        except Conflict as error:
            raise Conflict(f"{new} exists in HDFS") from error

    def delete(self, path: str) -> None:
        """Removes a file, or a folder with all that is in it; nothing when it does not exist."""
        self._ask("DELETE", path, op="DELETE", recursive="true")

    def write(self, path: str, chunks: Iterable[bytes], *, append: bool, replace: bool = True) -> None:
        """Streams a file, or the rest of one; what has arrived stays when this is interrupted.

        Raises NotFound when there is nothing to append to.
        """
        created = {"op": "CREATE", "overwrite": str(replace).lower(), "permission": "644"}
        words = {"op": "APPEND"} if append else created
        method = "POST" if append else "PUT"
        with self._request(method, self._address(path, words)) as answer:
            location = answer.headers.get("Location") if answer.status == 307 else None
            content = self._content(answer)
        if not location:
            raise self._refusal(answer.status, content, path)
        with self._request(method, self._routed(location), body=iter(chunks)) as answer:
            if answer.status not in (200, 201):
                raise self._refusal(answer.status, self._content(answer), path)

    def append_line(self, path: str, line: str) -> None:
        """Adds a line to a file, which is created if it does not exist. Conflict while others keep writing to it."""
        content = (f"{line}\n".encode(),)

        def append() -> None:
            try:
                self.write(path, content, append=True)
            except NotFound:
                self.write(path, content, append=False, replace=False)

        self._patiently(append)

    def wait_for_writer(self, path: str) -> None:
        """Returns when a file can be appended to: HDFS needs some seconds to see that a writer was killed.

        Raises Conflict while it is still being written.
        """
        self._patiently(lambda: self.write(path, (), append=True))

    def _patiently(self, write: Callable[[], None]) -> None:
        for pause_s in _PAUSES_S:
            try:
                write()
                return
            except Conflict:
                time.sleep(pause_s)
        write()

    def read(self, path: str, limit: int) -> bytes:
        """A whole file. Raises OperationFailed when it has more than `limit` bytes."""
        content = b""
        for chunk in self._read(path):
            content += chunk
            if len(content) > limit:
                raise OperationFailed(f"{path} in HDFS has more than {limit} bytes")
        return content

    def digest(self, path: str, advance: Callable[[float], None] = lambda _: None) -> str:
        """The sha256 of a file as HDFS gives it back."""
        digest = hashlib.sha256()
        for chunk in self._read(path):
            digest.update(chunk)
            advance(len(chunk))
        return digest.hexdigest()

    def _read(self, path: str) -> Iterator[bytes]:
        with self._request("GET", self._address(path, {"op": "OPEN"})) as answer:
            location = answer.headers.get("Location") if answer.status == 307 else None
            content = self._content(answer)
        if not location:
            raise self._refusal(answer.status, content, path)
        with self._request("GET", self._routed(location)) as answer:
            if answer.status != 200:
                raise self._refusal(answer.status, self._content(answer), path)
            yield from self._errors(answer.stream(_CHUNK_BYTES))

    def _content(self, answer: Any) -> bytes:
        """The body of an answer. Raises Unreachable if it is cut off."""
        import urllib3

        try:
            return bytes(answer.read(_MAX_ANSWER_BYTES))
        except urllib3.exceptions.HTTPError as error:
            raise self._away(error) from error

    def _errors(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        import urllib3

        try:
            yield from chunks
        except urllib3.exceptions.HTTPError as error:
            raise self._away(error) from error

    def _ask(self, method: str, path: str, **words: str) -> dict[str, Any]:
        with self._request(method, self._address(path, words)) as answer:
            content = self._content(answer)
        if answer.status != 200:
            raise self._refusal(answer.status, content, path)
        try:
            return dict(json.loads(content)) if content else {}
        except (ValueError, TypeError) as error:
            raise OperationFailed(f"{self.url} did not answer as HDFS does") from error

    def _address(self, path: str, words: Mapping[str, str]) -> str:
        query = urllib.parse.urlencode({**words, "user.name": self.user})
        return f"{self.url}/webhdfs/v1{urllib.parse.quote(path)}?{query}"

    def _routed(self, location: str) -> str:
        parts = urllib.parse.urlsplit(location)
        base = urllib.parse.urlsplit(self._route(parts.hostname or "", parts.port or 80))
        return urllib.parse.urlunsplit((base.scheme, base.netloc, parts.path, parts.query, ""))

    def _request(self, method: str, url: str, body: Iterator[bytes] | None = None) -> Any:
        import urllib3

        headers = {"Content-Type": "application/octet-stream"} if body is not None else {}
        pool = make_pool(url)
        try:
            return pool.request(
                method,
                url,
                body=body,
                headers=headers,
                timeout=self._timeout_s,
                preload_content=False,
                redirect=False,
                # A stream cannot be sent twice.
                retries=False,
            )
        except urllib3.exceptions.HTTPError as error:
            raise self._away(error) from error

    def _away(self, error: Exception) -> Unreachable:
        return Unreachable(
            f"HDFS at {self.url} does not answer",
            hint="check that the NameNode and the DataNodes run: replayctl open hdfs",
            details=in_words(error),
        )

    def _refusal(self, status: int, content: bytes, path: str) -> ReplayctlError:
        details = content[:2000].decode("utf-8", "replace")
        if status == 404:
            return NotFound(f"{path} does not exist in HDFS at {self.url}")
        if "SafeModeException" in details or "StandbyException" in details:
            return Unreachable(
                f"HDFS at {self.url} is not ready: the NameNode is in safe mode or on standby", details=details
            )
        if any(word in details for word in _BUSY):
            return Conflict(
                f"{path} in HDFS is being written by someone else",
                hint="run the same command again in a minute",
                details=details,
            )
        if any(word in details for word in _PASSING):
            return Unreachable(
                f"HDFS at {self.url} is not ready: one of its servers does not answer",
                hint="check that the NameNode and the DataNodes run: replayctl open hdfs",
                details=details,
            )
        if status == 401 or "AccessControlException" in details:
            match = _DENIED.search(details.replace('\\"', '"'))
            folder, *owner = match.groups() if match else (path,)
            place = f"{folder}, which belongs to {owner[0]} (group {owner[1]}, {owner[2]})" if owner else path
            return AuthFailed(
                f"HDFS at {self.url} denies {self.user} access to {place}",
                hint="set hdfs.user to one who has access, or ask the owner for it",
                details=details,
            )
        return OperationFailed(f"HDFS at {self.url} refused {path} (HTTP {status})", details=details)
