"""Reads the cluster and user of a context from the kubeconfig files that kubectl reads, by the same rules.

Unknown and unsupported keys are errors: ignoring one could send requests to another server, or as another user.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from replayctl.cluster.credentials import USER_KEYS, Headers, credentials, impersonation
from replayctl.cluster.entries import Entry
from replayctl.cluster.tls import client_context
from replayctl.errors import SettingsError
from replayctl.settings.proxies import check_proxy, proxy_from_environment

_CLUSTER_KEYS = frozenset(
    {
        *("server", "tls-server-name", "insecure-skip-tls-verify", "proxy-url", "disable-compression", "extensions"),
        *("certificate-authority", "certificate-authority-data"),
    }
)
_KINDS = {"contexts": "context", "clusters": "cluster", "users": "user"}


@dataclass(frozen=True, slots=True)
class ClusterAccess:
    """One cluster and user: address, TLS, and a function that creates the headers of each request.

    `server_name` is the name in the server's certificate, if it differs from the address. Call `forget` if the server
    has refused the headers: the next ones may be newer.
    """

    server: str
    context: str
    namespace: str
    tls: ssl.SSLContext | None
    headers: Callable[[], Headers]
    server_name: str | None = None
    proxy: str | None = None
    forget: Callable[[], None] = field(default=lambda: None)


def kubeconfig_paths(kubeconfig: Path | None, environ: Mapping[str, str]) -> list[Path]:
    """The files to read, whether they exist or not: `kubeconfig`, else $KUBECONFIG, else ~/.kube/config."""
    named = str(kubeconfig) if kubeconfig else environ.get("KUBECONFIG", "")
    paths = [Path(part) for part in named.split(os.pathsep) if part] or [Path.home() / ".kube" / "config"]
    return list(dict.fromkeys(paths))


def find_cluster(kubeconfig: Path | None, context: str | None, environ: Mapping[str, str]) -> ClusterAccess:
    """The cluster of a context (None: the current one), from the files of `kubeconfig_paths`.

    With several files, the first one that defines a name or the current-context counts. Raises SettingsError that names
    the file and what is missing or not supported, AuthFailed if an exec plugin returns no credentials.
    """
    paths = kubeconfig_paths(kubeconfig, environ)
    present = [path for path in paths if path.is_file()]
    if not present:
        raise SettingsError(
            f"cannot find a kubeconfig: {', '.join(map(str, paths))}",
            hint="set kubernetes.kubeconfig or KUBECONFIG, or pass --profile to select another profile",
        )
    merged = _merge(present)
    name = context or merged.current_context
    if not name:
        raise SettingsError(f"{', '.join(map(str, present))}: no current-context is set", hint="set kubernetes.context")
    entry = merged.entry("contexts", name)
    cluster_name = entry.text("cluster")
    if cluster_name is None:
        raise SettingsError(f"{entry} has no cluster")
    return _access(entry, merged.entry("clusters", cluster_name), merged, environ)


@dataclass
class _Merged:
    """The entries of all files by kind and name, each from the first file that defines it."""

    paths: list[Path]
    current_context: str = ""
    entries: dict[str, dict[str, Entry]] = field(default_factory=lambda: {kind: {} for kind in _KINDS})

    def entry(self, kind: str, name: str) -> Entry:
        entry = self.entries[kind].get(name)
        if entry is None:
            files = ", ".join(map(str, self.paths))
            known = ", ".join(self.entries[kind]) or "none"
            raise SettingsError(f"{files}: {kind} has no entry {name!r}; it has: {known}")
        return entry


def _merge(paths: list[Path]) -> _Merged:
    merged = _Merged(paths)
    for path in paths:
        document = _read(path)
        current = document.get("current-context") or ""
        if not isinstance(current, str):
            raise SettingsError(f"{path}: current-context is not a string")
        merged.current_context = merged.current_context or current
        for kind in _KINDS:
            for name, entry in _entries(document, kind, path):
                merged.entries[kind].setdefault(name, entry)
    return merged


def _read(path: Path) -> dict[str, Any]:
    import yaml

    try:
        # The faster loader if available: certificates make long files.
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"cannot read {path}: it is not UTF-8 text") from error
    except yaml.MarkedYAMLError as error:
        # The parser's message quotes the line, which may have a token.
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise SettingsError(f"cannot read {path}: it is not YAML{line}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise SettingsError(f"cannot read {path}: it is not YAML") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise SettingsError(f"{path} is not a kubeconfig")
    return document


def _entries(document: Mapping[str, Any], kind: str, path: Path) -> Iterator[tuple[str, Entry]]:
    rows = document.get(kind) or []
    if not isinstance(rows, list):
        raise SettingsError(f"{path}: {kind} is not a list")
    names = set()
    for row in rows:
        name = row.get("name") if isinstance(row, dict) else None
        values = (row.get(_KINDS[kind]) or {}) if isinstance(row, dict) else None
        if not isinstance(name, str) or not isinstance(values, dict):
            raise SettingsError(f"{path}: an entry of {kind} must have a name and a {_KINDS[kind]}")
        if name in names:
            raise SettingsError(f"{path}: {kind} has two entries {name!r}")
        names.add(name)
        yield name, Entry(_KINDS[kind], name, values, path)


def _access(context: Entry, cluster: Entry, merged: _Merged, environ: Mapping[str, str]) -> ClusterAccess:
    _refuse_unknown(cluster, _CLUSTER_KEYS)
    server = (cluster.text("server") or "").rstrip("/")
    if not server.startswith(("https://", "http://")):
        raise SettingsError(f"{cluster} has no server that begins with https:// or http://")
    proxy = cluster.text("proxy-url")
    proxy = check_proxy(proxy, f"{cluster}: proxy-url") if proxy else proxy_from_environment(server, environ)
    user_name = context.text("user")
    user = merged.entry("users", user_name) if user_name else None
    if user is not None:
        _refuse_unknown(user, USER_KEYS)
    namespace = context.text("namespace") or "default"
    if server.startswith("http://"):
        # As in kubectl, no secret is sent without TLS. `kubectl proxy` adds credentials itself.
        unsigned = impersonation(user) if user else []
        return ClusterAccess(server, context.name, namespace, None, lambda: unsigned, proxy=proxy)
    if user is None:
        raise SettingsError(
            f"{context} has no user", hint="add a user to the context: replayctl never connects anonymously"
        )
    tls = _tls(cluster)
    signed = credentials(user, cluster, tls)
    return ClusterAccess(
        server,
        context.name,
        namespace,
        tls,
        signed.headers,
        cluster.text("tls-server-name"),
        proxy,
        signed.forget,
    )


def _refuse_unknown(entry: Entry, known: frozenset[str]) -> None:
    if unknown := sorted(str(key) for key in set(entry.values) - known):
        raise SettingsError(
            f"{entry}: replayctl does not support {', '.join(unknown)}",
            hint="set kubernetes.context or kubernetes.kubeconfig to a context without it",
        )


def _tls(cluster: Entry) -> ssl.SSLContext:
    authority, insecure = cluster.content("certificate-authority"), cluster.flag("insecure-skip-tls-verify")
    if insecure and authority is not None:
        raise SettingsError(
            f"{cluster} has certificate-authority and insecure-skip-tls-verify; only one of them is allowed"
        )
    try:
        return client_context(authority, verify=not insecure)
    except (ssl.SSLError, ValueError) as error:
        raise SettingsError(f"{cluster}: cannot use the certificate-authority: {error}") from error
