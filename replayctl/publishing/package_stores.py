"""Where packages are stored: the shared folder or HDFS, reached directly or through forwards."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from replayctl.clients.webhdfs import WebHdfs
from replayctl.cluster.api import find_kubernetes, parse_endpoint
from replayctl.errors import SettingsError, Unreachable
from replayctl.forwarding.addresses import AddressBook
from replayctl.forwarding.targets import namespaces
from replayctl.forwarding.tunnel import open_tunnel
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
    with _open_hdfs(workspace, user) as hdfs:
        yield HdfsPackageStore(hdfs, path, settings.hdfs.filesystem)


@contextlib.contextmanager
def _open_hdfs(workspace: Workspace, user: str) -> Iterator[WebHdfs]:
    settings, reporter = workspace.settings, workspace.reporter
    if settings.hdfs.url is not None:
        yield WebHdfs(settings.hdfs.url, user, lambda host, port: f"http://{host}:{port}")
        return
    cluster = find_kubernetes(settings, os.environ)
    book = AddressBook(cluster, namespaces(settings), reporter)
    target = parse_endpoint(settings.targets.hdfs)
    with contextlib.ExitStack() as stack:
        routes: dict[tuple[str, int], str] = {}

        def route(host: str, port: int) -> str:
            if (host, port) not in routes:
                endpoint = book.find(host, port, near=target.namespace)
                if endpoint is None:
                    raise Unreachable(
                        f"cannot forward to {host}:{port}: no pod of the cluster has this address",
                        hint="set hdfs.url, if this machine reaches HDFS directly",
                    )
                routes[host, port] = stack.enter_context(open_tunnel(cluster, endpoint, reporter))
            return routes[host, port]

        reporter.step(f"hdfs.url is not set: forwarding to {settings.targets.hdfs}")
        yield WebHdfs(stack.enter_context(open_tunnel(cluster, target, reporter)), user, route)
