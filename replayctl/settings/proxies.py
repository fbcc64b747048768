"""Selects the HTTP proxy for an API server: the kubeconfig's `proxy-url`, else the environment's, by the rules of Go's
`golang.org/x/net/http/httpproxy`, which kubectl follows.
"""

from __future__ import annotations

import ipaddress
import urllib.parse
from collections.abc import Mapping

from replayctl.errors import SettingsError

_SCHEMES = ("http", "https")


def check_proxy(url: str, source: str) -> str:
    """The proxy's URL; raises SettingsError that names `source` when the proxy is not supported."""
    parts = urllib.parse.urlsplit(url)
    try:
        usable = parts.scheme in _SCHEMES and parts.hostname and (parts.port is None or parts.port)
    except ValueError:
        usable = False
    if not usable:
        # Without the password, if it has one.
        without_login = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        raise SettingsError(
            f"{source}: replayctl cannot use the proxy {without_login!r}",
            hint="only http:// and https:// proxies are supported; for a SOCKS proxy, run an HTTP proxy in front of it",
        )
    return url


def proxy_from_environment(server: str, environ: Mapping[str, str]) -> str | None:
    """The proxy that HTTPS_PROXY or HTTP_PROXY sets for a server; None for local servers and those in NO_PROXY."""
    parts = urllib.parse.urlsplit(server)
    name = f"{parts.scheme}_proxy"
    # As in Go, lower-case variables count only when the upper-case ones are not set.
    url = environ.get(name.upper()) or environ.get(name)
    host = (parts.hostname or "").rstrip(".")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    if not url or _is_local(host) or _is_excluded(host, port, environ.get("NO_PROXY") or environ.get("no_proxy") or ""):
        return None
    return check_proxy(url if "://" in url else f"http://{url}", name.upper())


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return None


def _is_local(host: str) -> bool:
    address = _address(host)
    return address.is_loopback if address else host == "localhost"


def _is_excluded(host: str, port: int, rules: str) -> bool:
    return any(_matches(host, port, rule) for rule in rules.lower().replace(",", " ").split())


def _matches(host: str, port: int, rule: str) -> bool:
    if rule == "*":
        return True
    address = _address(host)
    if "/" in rule:
        try:
            return address is not None and address in ipaddress.ip_network(rule, strict=False)
        except ValueError:
            return False
    name, _, number = rule.rpartition(":") if _address(rule) is None else (rule, "", "")
    if number.isdigit() and name:
        if int(number) != port:
            return False
        rule = name
    if address is not None:
        return _address(rule) == address
    domain = rule.removeprefix("*")
    return host.endswith(domain) if domain.startswith(".") else host == domain or host.endswith(f".{domain}")
