"""Packages in HDFS: the same folders as in the shared one, each published by one rename."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence

from replayctl.clients.webhdfs import WebHdfs
from replayctl.errors import Conflict, OperationFailed, ReplayctlError
from replayctl.storage.packages import Part, Stored, StoredPackage, facts_of, folder_of

AUDIT_LOG = "audit.log"
_PARTS = ".parts"
# As long as in a shared folder.
_LEFTOVER_S = 7 * 24 * 3600.0
_FOLDER = re.compile(r"p_[0-9a-f]{16}")


class HdfsPackageStore:
    """The packages of one namespace below `path` of HDFS; `root` is the same folder as Spark names it.

    A package's sha256 is an attribute of its file, written once HDFS has given the whole file back.
    """

    def __init__(self, hdfs: WebHdfs, path: str, filesystem: str) -> None:
        self._hdfs = hdfs
        self.path = path
        self.root = f"{filesystem}{path}"

    @property
    def name(self) -> str:
        """The folder, for messages."""
        return self.root

    def look(self, sha256: Sequence[str] = ()) -> Stored:
        """What is stored; parts of uploads with one of the given `sha256` are read to verify them."""
        packages = {}
        for folder in self._hdfs.entries(self.path) or ():
            if folder.is_folder and _FOLDER.fullmatch(folder.name):
                package = self._package(folder.name)
                if package is not None:
                    packages[folder.name] = package
        partial = {entry.name: entry.size for entry in self._hdfs.entries(f"{self.path}/{_PARTS}") or () if entry.size}
        parts = {
            name: Part(size, self._hdfs.digest(f"{self.path}/{_PARTS}/{name}"))
            for name, size in partial.items()
            if name in sha256
        }
        return Stored(packages, parts, frozenset(partial))

    def send(
        self,
        *,
        sha256: str,
        name: str,
        size: int,
        offset: int,
        chunks: Iterable[bytes],
        facts: Mapping[str, str],
        audit: str,
    ) -> None:
        """Stores a complete package, or leaves the old state; `chunks` are its bytes from `offset` on.

        After an error the uploaded part is kept, and the next upload resumes there. `audit` is part of the file's
        attributes too, which come with the package: a killed upload may lack its line in the log.
        """
        parts, part = f"{self.path}/{_PARTS}", f"{self.path}/{_PARTS}/{sha256}"
        self._hdfs.make_folder(parts)
        if offset:
            self._hdfs.wait_for_writer(part)
        self._hdfs.write(part, chunks, append=offset > 0)
        if self._hdfs.digest(part) != sha256:
            self._hdfs.delete(part)
            raise OperationFailed(
                f"{name} in HDFS differs from the local file and was deleted", hint="run the same command again"
            )
        folder = folder_of(sha256)
        new = f"{self.path}/{_PARTS}/new-{secrets.token_hex(8)}"
        try:
            self._hdfs.make_folder(new)
            self._hdfs.rename(part, f"{new}/{name}")
            self._describe(f"{new}/{name}", {"sha256": sha256, "facts": json.dumps({**facts, "audit": audit})})
            self._hdfs.rename(new, f"{self.path}/{folder}")
        except Conflict:
            # Another upload of the same file may have been first.
            self._hdfs.delete(new)
        except BaseException:
            # The next upload finds it there, and sends nothing.
            with contextlib.suppress(ReplayctlError):
                self._hdfs.rename(f"{new}/{name}", part)
            raise
        package = self._package(folder)
        if package is None or (package.name, package.size, package.sha256) != (name, size, sha256):
            raise Conflict(
                f"{self.root}/{folder} has another content than {name}",
                hint=f"look at it, then remove it: hdfs dfs -rm -r {self.path}/{folder}",
            )
        self._hdfs.append_line(f"{self.path}/{AUDIT_LOG}", audit)

    def prune(self, folders: Sequence[str], audit: str) -> int:
        """Removes stored packages, each by one deletion, after the log has the line; returns the number of leftovers.

        Leftovers are what our own interrupted uploads have left for a week, and are removed too.
        """
        if folders:
            self._hdfs.append_line(f"{self.path}/{AUDIT_LOG}", audit)
        for folder in folders:
            self._hdfs.delete(f"{self.path}/{folder}")
        old = [
            entry
            for entry in self._hdfs.entries(f"{self.path}/{_PARTS}") or ()
            if entry.owner == self._hdfs.user and entry.modified_s < time.time() - _LEFTOVER_S
        ]
        for entry in old:
            self._hdfs.delete(f"{self.path}/{_PARTS}/{entry.name}")
        return len(old)

    def _describe(self, path: str, attributes: Mapping[str, str]) -> None:
        """Sets the attributes that an earlier upload of the file has not set: they cannot be set twice."""
        known = self._hdfs.attributes(path)
        for name, value in attributes.items():
            if name not in known:
                self._hdfs.set_attribute(path, name, value)

    def _package(self, folder: str) -> StoredPackage | None:
        files = [entry for entry in self._hdfs.entries(f"{self.path}/{folder}") or () if not entry.is_folder]
        if len(files) != 1:
            return None
        attributes = self._hdfs.attributes(f"{self.path}/{folder}/{files[0].name}")
        return StoredPackage(
            folder, files[0].name, files[0].size, attributes.get("sha256"), facts_of(attributes.get("facts", ""))
        )
