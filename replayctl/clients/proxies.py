"""Connections to a server, direct or through the proxy that the environment names for it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from replayctl.settings.proxies import proxy_from_environment

if TYPE_CHECKING:
    import urllib3


def make_pool(url: str) -> urllib3.PoolManager:
    """Connections that follow HTTP_PROXY, HTTPS_PROXY and NO_PROXY; never through a proxy to this machine."""
    import urllib3

    proxy = proxy_from_environment(url, os.environ)
    return urllib3.ProxyManager(proxy) if proxy else urllib3.PoolManager()
