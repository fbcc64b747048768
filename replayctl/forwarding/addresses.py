"""Finds the pod or service of the cluster behind a host name or address that is used inside the cluster."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from replayctl.cluster.api import Endpoint, Kubernetes, Pod
from replayctl.console.events import Reporter
from replayctl.errors import AuthFailed, NotFound

_KNOWN_FOR_S = 5.0


@dataclass
class _Namespace:
    """The names in one namespace. Services come first, since they outlive pods."""

    services: dict[str, str] = field(default_factory=dict)
    pods: dict[str, list[Pod]] = field(default_factory=dict)


class AddressBook:
    """Names and addresses of some namespaces, read from the API on demand and cached for seconds.

    Safe for several threads. A namespace that may not be listed is reported once and counts as empty.
    """

    def __init__(self, cluster: Kubernetes, namespaces: Sequence[str], reporter: Reporter) -> None:
        self._cluster = cluster
        self._namespaces = tuple(dict.fromkeys(namespaces))
        self._reporter = reporter
        self._known: dict[str, _Namespace] = {}
        self._read_at = float("-inf")
        self._lock = threading.Lock()
        self._refused: set[str] = set()

    def find(self, host: str, port: int, *, near: str | None = None) -> Endpoint | None:
        """The target behind `host:port`; None if it is in none of the namespaces.

        A bare name that exists in several namespaces is taken from `near`, the namespace of the page. Raises
        what requests to the API raise; for some seconds after an error, the cached names are used.
        """
        host = host.lower().rstrip(".")
        if not 0 < port < 65536:
            return None
        with self._lock:
            self._refresh()
            for namespace in sorted(self._known, key=lambda namespace: namespace != near):
                endpoint = _find(self._known[namespace], namespace, host, port)
                if endpoint is not None:
                    return endpoint
        return None

    def _refresh(self) -> None:
        if time.monotonic() - self._read_at <= _KNOWN_FOR_S:
            return
        try:
            for namespace in self._namespaces:
                try:
                    self._known[namespace] = self._read(namespace)
                except (AuthFailed, NotFound) as error:
                    self._known.pop(namespace, None)
                    if namespace not in self._refused:
                        self._refused.add(namespace)
                        self._reporter.note(f"cannot look up names in namespace {namespace}: {error}")
        finally:
            # Also after an error: every waiting thread would otherwise run into the same one.
            self._read_at = time.monotonic()

    def _read(self, namespace: str) -> _Namespace:
        known = _Namespace()
        for name, addresses in self._cluster.services(namespace):
            for address in (name, f"{name}.{namespace}", *addresses):
                known.services[address] = name
        for pod in self._cluster.pods_of(namespace):
            for address in pod.names:
                known.pods.setdefault(address.lower(), []).append(pod)
        return known


def _find(known: _Namespace, namespace: str, host: str, port: int) -> Endpoint | None:
    # NAME.NAMESPACE.svc, with or without the cluster's domain; NAME may also be POD.SERVICE.
    name = re.split(rf"\.{re.escape(namespace)}\.svc(?=\.|$)", host)[0]
    if name in known.services:
        return Endpoint(namespace, "service", known.services[name], str(port))
    candidates = known.pods.get(name)
    if candidates is None and name != host:
        candidates = known.pods.get(name.partition(".")[0])
    if candidates is None:
        return None
    # Pods with hostNetwork share the name of their node.
    pod = next((pod for pod in candidates if port in pod.ports.values()), candidates[0])
    return Endpoint(namespace, "pod", pod.name, str(port))
