"""Where packages are stored: the shared folder or HDFS, reached directly or through forwards."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from replayctl.errors import SettingsError
from replayctl.forwarding.hdfs import open_hdfs
from replayctl.publishing.hdfs_packages import HdfsPackageStore
from replayctl.settings.workspace import Workspace
from replayctl.storage.packages import PackageStore, open_packages

HDFS = "hdfs"


@contextlib.contextmanager
def open_store(workspace: Workspace, store: str | None = None) -> Iterator[PackageStore | HdfsPackageStore]:
    """The namespace's packages in `store`, `folder` or `hdfs`; in the profile's `packages.store` when None."""
    if (store or workspace.settings.packages.store) != HDFS:
        with open_packages(workspace) as packages:
            yield packages
        return
    settings = workspace.settings
    if settings.hdfs.filesystem is None:
        raise SettingsError(
            f"profile {settings.profile!r} has no hdfs.filesystem",
            hint="set it to the address that Spark has for HDFS, such as hdfs://namenode:9000",
        )
    user = settings.hdfs.user or workspace.namespace.user or "replayctl"
    path = f"{settings.hdfs.packages}/{workspace.namespace.directory}"
    with open_hdfs(settings, os.environ, workspace.reporter, user) as hdfs:
        yield HdfsPackageStore(hdfs, path, settings.hdfs.filesystem)
