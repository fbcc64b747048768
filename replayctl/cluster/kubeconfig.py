"""Whom to ask as a Kubernetes cluster, and as whom: from the kubeconfig files that kubectl reads.

A context with a client certificate or a token is read here. What needs more (credentials from a program, several merged
files) is left to the official client, which takes a second to import.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import ssl
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replayctl.console.secret import Secret
from replayctl.errors import AuthFailed, SettingsError

_SIMPLE_USER = {"client-certificate", "client-certificate-data", "client-key", "client-key-data", "token", "tokenFile"}


@dataclass(frozen=True, slots=True)
class ClusterAccess:
    """One cluster as one user: address, TLS and, anew for each request, the headers that sign it."""

    server: str
    context: str
    namespace: str
    tls: ssl.SSLContext | None
    headers: Callable[[], Mapping[str, str]]


def find_cluster(kubeconfig: Path | None, context: str | None, environ: Mapping[str, str]) -> ClusterAccess:
    """The cluster of a context (None: the file's current one), from the given file, $KUBECONFIG or ~/.kube/config.

    Raises SettingsError that names the file and what is missing in it.
    """
    named = str(kubeconfig) if kubeconfig else environ.get("KUBECONFIG", "")
    paths = [Path(each) for each in named.split(os.pathsep) if each] or [Path.home() / ".kube" / "config"]
    there = [path for path in paths if path.is_file()]
    if not there:
        raise SettingsError(
            f"there is no kubeconfig: {', '.join(map(str, paths))}",
            hint="set kubernetes.kubeconfig, or KUBECONFIG",
        )
    if len(there) == 1:
        simple = _read(there[0], context)
        if simple is not None:
            return simple
    return _by_the_official_client(os.pathsep.join(map(str, there)), context)


def _read(path: Path, context: str | None) -> ClusterAccess | None:
    """What a plain file says; None when it takes more than this to read it."""
    import yaml

    try:
        # The fast loader where it was built: certificates make long files.
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"{path} cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise SettingsError(f"{path} is no kubeconfig")
    name = context or document.get("current-context")
    if not name:
        raise SettingsError(f"{path} has no current-context", hint="set kubernetes.context")
    chosen = _named(document, "contexts", name, path).get("context") or {}
    cluster = _named(document, "clusters", chosen.get("cluster"), path).get("cluster") or {}
    user = _named(document, "users", chosen.get("user"), path).get("user") or {} if chosen.get("user") else {}
    if set(user) - _SIMPLE_USER or "proxy-url" in cluster:
        return None
    server = str(cluster.get("server", "")).rstrip("/")
    if not server.startswith(("https://", "http://")):
        raise SettingsError(f"{path}: cluster {chosen.get('cluster')!r} has no server")
    return ClusterAccess(
        server,
        str(name),
        str(chosen.get("namespace") or "default"),
        _tls(cluster, user, path) if server.startswith("https://") else None,
        _signer(user, path),
    )


def _named(document: Mapping[str, Any], kind: str, name: object, path: Path) -> Mapping[str, Any]:
    entries = [each for each in document.get(kind) or [] if isinstance(each, dict)]
    for entry in entries:
        if entry.get("name") == name:
            return entry
    known = ", ".join(str(entry.get("name")) for entry in entries) or "none"
    raise SettingsError(f"{path} has no entry {name!r} in {kind}; there are: {known}")


def _tls(cluster: Mapping[str, Any], user: Mapping[str, Any], path: Path) -> ssl.SSLContext:
    context = ssl.create_default_context()
    try:
        if cluster.get("insecure-skip-tls-verify"):
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif authority := _content(cluster, "certificate-authority", path):
            context.load_verify_locations(cadata=authority.decode("ascii"))
        certificate, key = _content(user, "client-certificate", path), _content(user, "client-key", path)
        if certificate and key:
            # OpenSSL takes a certificate of one's own from files only.
            with _private_file(certificate + b"\n" + key) as pair:
                context.load_cert_chain(pair)
    except (ssl.SSLError, ValueError) as error:
        raise SettingsError(f"{path}: a certificate or key in it cannot be used: {error}") from error
    return context


def _content(entry: Mapping[str, Any], name: str, path: Path) -> bytes | None:
    """Bytes that stand in the file itself (`name-data`) or in another one beside it."""
    if inline := entry.get(f"{name}-data"):
        try:
            return base64.b64decode(str(inline), validate=True)
        except binascii.Error as error:
            raise SettingsError(f"{path}: {name}-data is not base64") from error
    if other := entry.get(name):
        try:
            return (path.parent / str(other)).read_bytes()
        except OSError as error:
            raise SettingsError(f"{path}: {name} {other} cannot be read: {error.strerror}") from error
    return None


@contextlib.contextmanager
def _private_file(content: bytes) -> Iterator[str]:
    descriptor, name = tempfile.mkstemp(prefix="replayctl-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        yield name
    finally:
        os.unlink(name)


def _signer(user: Mapping[str, Any], path: Path) -> Callable[[], Mapping[str, str]]:
    if token_file := user.get("tokenFile"):

        def read() -> Mapping[str, str]:
            # Anew each time: whoever writes such files renews the token in them.
            try:
                token = Secret((path.parent / str(token_file)).read_text(encoding="utf-8").strip())
            except OSError as error:
                raise AuthFailed(f"the token file {token_file} cannot be read: {error.strerror}") from error
            return {"Authorization": f"Bearer {token.reveal()}"}

        return read
    if user.get("token"):
        token = Secret(str(user["token"]))
        return lambda: {"Authorization": f"Bearer {token.reveal()}"}
    return dict


def _by_the_official_client(paths: str, context: str | None) -> ClusterAccess:
    import kubernetes

    # It has no types.
    client: Any = kubernetes.client
    config: Any = kubernetes.config
    try:
        contexts, active = config.list_kube_config_contexts(paths)
        configuration = client.Configuration()
        config.load_kube_config(paths, context=context, client_configuration=configuration)
    except config.ConfigException as error:
        raise SettingsError(f"{paths}: {error}") from error
    except Exception as error:
        # A program that gives credentials may fail in any way.
        raise AuthFailed(f"no credentials for the cluster from {paths}: {error}") from error
    name = context or active["name"]
    chosen = next(each for each in contexts if each["name"] == name)["context"]
    tls = None
    if configuration.host.startswith("https://"):
        tls = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
        if not configuration.verify_ssl:
            tls.check_hostname = False
            tls.verify_mode = ssl.CERT_NONE
        if configuration.cert_file:
            tls.load_cert_chain(configuration.cert_file, configuration.key_file)

    def headers() -> Mapping[str, str]:
        # Runs the program again when its credentials have run out.
        given = [each["value"] for each in configuration.auth_settings().values() if each["in"] == "header"]
        if not given or not given[0]:
            return {}
        # Made a secret, so that nothing prints it from here on.
        Secret(given[0].rpartition(" ")[2])
        return {"Authorization": given[0]}

    return ClusterAccess(configuration.host.rstrip("/"), name, chosen.get("namespace") or "default", tls, headers)
