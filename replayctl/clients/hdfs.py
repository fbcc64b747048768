"""Reads small files of HDFS by its REST API.

https://hadoop.apache.org/docs/r3.4.1/hadoop-project-dist/hadoop-hdfs/WebHDFS.html
"""

from __future__ import annotations

import json
import re
import urllib.parse
from collections.abc import Mapping
from typing import Any

from replayctl.clients.proxies import make_pool
from replayctl.errors import AuthFailed, NotFound, OperationFailed, Unreachable, in_words

_TIMEOUT_S = 30.0
_MAX_LISTING_BYTES = 64 << 20
_NOT_READY = re.compile("SafeModeException|StandbyException|RetriableException")


class HdfsReader:
    """HDFS at the web address of its NameNode, as `user`. DataNodes must be reachable under their own addresses."""

    def __init__(self, url: str, user: str | None) -> None:
        self.url = url.rstrip("/")
        self._user = {"user.name": user} if user else {}

    def folders(self, path: str) -> list[str]:
        """The names of the folders in a folder; NotFound when there is no such folder."""
        return [row["pathSuffix"] for row in self._entries(path) if row["type"] == "DIRECTORY"]

    def files(self, path: str) -> dict[str, int]:
        """The sizes in bytes of the files in a folder, by name; NotFound when there is no such folder."""
        return {row["pathSuffix"]: int(row["length"]) for row in self._entries(path) if row["type"] == "FILE"}

    def read(self, path: str, limit: int) -> bytes:
        """The first `limit` bytes of a file."""
        return self._get(path, {"op": "OPEN", "length": str(limit)}, limit)

    def _entries(self, path: str) -> list[dict[str, Any]]:
        answer = self._get(path, {"op": "LISTSTATUS"}, _MAX_LISTING_BYTES)
        try:
            rows = json.loads(answer)["FileStatuses"]["FileStatus"]
            return [dict(row) for row in rows if isinstance(row["pathSuffix"], str)]
        except (ValueError, KeyError, TypeError) as error:
            raise OperationFailed(f"{self.url} did not list {path} as HDFS does") from error

    def _get(self, path: str, query: Mapping[str, str], limit: int) -> bytes:
        import urllib3

        words = urllib.parse.urlencode({**query, **self._user})
        url = f"{self.url}/webhdfs/v1{urllib.parse.quote(path)}?{words}"
        try:
            with make_pool(url) as pool:
                answer = pool.request("GET", url, timeout=_TIMEOUT_S, preload_content=False)
                content = bytes(answer.read(limit + 1))
                answer.release_conn()
        except urllib3.exceptions.HTTPError as error:
            raise Unreachable(
                f"HDFS at {self.url} does not answer",
                hint="check that this machine reaches the NameNode and the DataNodes",
                details=in_words(error),
            ) from error
        if len(content) > limit:
            raise OperationFailed(f"{path} in HDFS has more than {limit} bytes")
        if answer.status == 200:
            return content
        raise self._refusal(answer.status, content, path)

    def _refusal(self, status: int, content: bytes, path: str) -> Exception:
        details = content[:2000].decode("utf-8", "replace")
        if status == 404:
            return NotFound(f"{path} does not exist in HDFS at {self.url}")
        if _NOT_READY.search(details):
            return Unreachable(f"HDFS at {self.url} is not ready", details=details)
        if status in (401, 403):
            return AuthFailed(f"HDFS at {self.url} does not allow access to {path}", details=details)
        return OperationFailed(f"HDFS at {self.url} refused to read {path} (HTTP {status})", details=details)
