"""HDFS at its own addresses, or through a forward to each of its servers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from replayctl.clients.webhdfs import WebHdfs
from replayctl.cluster.api import find_kubernetes, parse_endpoint
from replayctl.console.events import Reporter
from replayctl.errors import Unreachable
from replayctl.forwarding.addresses import AddressBook
from replayctl.forwarding.announce import announce_forward
from replayctl.forwarding.targets import namespaces
from replayctl.forwarding.tunnel import open_tunnel
from replayctl.settings.declared import Settings


@contextlib.contextmanager
def open_hdfs_address(settings: Settings, environ: Mapping[str, str], reporter: Reporter) -> Iterator[str]:
    """The web address of HDFS for other programs: `hdfs.url`, else a forward that also redirects to the DataNodes."""
    if settings.hdfs.url is not None:
        yield settings.hdfs.url
        return
    cluster = find_kubernetes(settings, environ)
    announce_forward(reporter, "hdfs.url", settings.targets.hdfs)
    target = parse_endpoint(settings.targets.hdfs)
    with open_tunnel(cluster, target, reporter, redirects_to=namespaces(settings)) as url:
        yield url


@contextlib.contextmanager
def open_hdfs(settings: Settings, environ: Mapping[str, str], reporter: Reporter, user: str) -> Iterator[WebHdfs]:
    """HDFS at `hdfs.url`, else through forwards to `targets.hdfs` and to the DataNodes that it names."""
    if settings.hdfs.url is not None:
        yield WebHdfs(settings.hdfs.url, user, lambda host, port: f"http://{host}:{port}")
        return
    cluster = find_kubernetes(settings, environ)
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

        announce_forward(reporter, "hdfs.url", settings.targets.hdfs)
        yield WebHdfs(stack.enter_context(open_tunnel(cluster, target, reporter)), user, route)
