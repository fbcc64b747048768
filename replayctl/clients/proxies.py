"""Connections to a server, either direct or through the environment's proxy."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from replayctl.settings.proxies import proxy_from_environment

if TYPE_CHECKING:
    import urllib3


def make_pool(url: str) -> urllib3.PoolManager:
    """Connections that follow HTTP_PROXY, HTTPS_PROXY and NO_PROXY; servers on this machine need no proxy."""
    import urllib3

    proxy = proxy_from_environment(url, os.environ)
    return urllib3.ProxyManager(proxy) if proxy else urllib3.PoolManager()
