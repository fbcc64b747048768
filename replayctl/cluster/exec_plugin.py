"""Credentials from an exec plugin of the kubeconfig.

https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
"""

from __future__ import annotations

import datetime
import json
import os
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from replayctl.cluster.entries import Entry
from replayctl.cluster.tls import identify
from replayctl.console.secret import Secret
from replayctl.errors import AuthFailed, SettingsError

_VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
_KEYS = frozenset({"apiVersion", "command", "args", "env", "installHint", "interactiveMode", "provideClusterInfo"})
_MODES = ("Never", "IfAvailable", "Always")
_CLUSTER_KEYS = (
    *("server", "tls-server-name", "insecure-skip-tls-verify", "certificate-authority-data"),
    *("proxy-url", "disable-compression"),
)
# The plugin may wait for a user who signs in with a browser.
_TIMEOUT_S = 300.0
_EXPIRY_SKEW_S = 10.0
_STDERR_CHARACTERS = 2000


class ExecPlugin:
    """A credential plugin; runs once, and again if the credentials have expired or were refused."""

    def __init__(self, user: Entry, cluster: Entry, tls: ssl.SSLContext) -> None:
        """Raises SettingsError for an entry that kubectl would refuse, or that is not supported."""
        exec_values = user.mapping("exec")
        if unknown := sorted(set(exec_values) - _KEYS):
            raise SettingsError(f"{user}: replayctl does not support {', '.join(map(str, unknown))} of exec")
        self._entry = Entry("exec plugin of user", user.name, exec_values, user.path)
        self._cluster = cluster
        self._tls = tls
        self._lock = threading.Lock()
        self._token: Secret | None = None
        self._expires_at = float("-inf")
        self._version = self._entry.text("apiVersion")
        if self._version not in _VERSIONS:
            raise SettingsError(f"{self._entry}: apiVersion must be one of {', '.join(_VERSIONS)}")
        mode = self._entry.text("interactiveMode") or "IfAvailable"
        if mode not in _MODES:
            raise SettingsError(f"{self._entry}: interactiveMode must be one of {', '.join(_MODES)}")
        self._interactive = mode != "Never" and sys.stdin is not None and sys.stdin.isatty()
        if mode == "Always" and not self._interactive:
            raise SettingsError(f"{self._entry} requires a terminal, but stdin is not one")
        command = self._entry.text("command")
        if command is None:
            raise SettingsError(f"{self._entry} has no command")
        # As in kubectl, a path is relative to the kubeconfig's folder, and a bare name is searched on the PATH.
        self._argv = [str(user.path.parent.absolute() / command) if os.sep in command else command]
        self._argv += self._entry.texts("args")

    def token(self) -> Secret | None:
        """The token; None if the plugin returns a certificate. Raises AuthFailed if it returns neither."""
        with self._lock:
            if time.time() > self._expires_at - _EXPIRY_SKEW_S:
                self._take(self._run())
            return self._token

    def forget(self) -> None:
        """Makes the next call run the plugin again, since the server has refused the credentials."""
        self._expires_at = float("-inf")

    def _take(self, status: Mapping[str, Any]) -> None:
        token, expiry = status.get("token"), status.get("expirationTimestamp")
        certificate, key = status.get("clientCertificateData"), status.get("clientKeyData")
        if (certificate is None) != (key is None):
            raise self._failed("it returned only one of certificate and key")
        if not token and not certificate:
            raise self._failed("it returned neither a token nor a certificate")
        try:
            expires_at = datetime.datetime.fromisoformat(expiry).timestamp() if expiry else float("inf")
        except (TypeError, ValueError) as error:
            raise self._failed("its expirationTimestamp is not a time") from error
        if certificate and key:
            try:
                identify(self._tls, str(certificate).encode(), Secret(str(key)).reveal().encode())
            except (ssl.SSLError, ValueError) as error:
                raise self._failed(f"its certificate cannot be used: {error}") from error
        self._token = Secret(str(token)) if token else None
        self._expires_at = expires_at

    def _run(self) -> Mapping[str, Any]:
        # Users who sign in must see its messages while it runs.
        visible = self._interactive and sys.stderr is not None and sys.stderr.isatty()
        try:
            done = subprocess.run(
                self._argv,
                env=self._environ(),
                stdin=None if self._interactive else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=None if visible else subprocess.PIPE,
                timeout=_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise self._failed(f"{self._argv[0]} did not end within {_TIMEOUT_S:.0f} s") from error
        except OSError as error:
            hint = self._entry.text("installHint")
            raise self._failed(f"cannot run {self._argv[0]}: {error.strerror}", hint=hint) from error
        if done.returncode:
            words = (done.stderr or b"").decode("utf-8", "replace").strip()[-_STDERR_CHARACTERS:]
            raise self._failed(f"{self._argv[0]} ended with status {done.returncode}", details=words or None)
        try:
            answer = json.loads(done.stdout)
            kind, version, status = answer["kind"], answer["apiVersion"], answer["status"]
        except (ValueError, TypeError, KeyError) as error:
            raise self._failed(f"{self._argv[0]} did not print an ExecCredential with a status") from error
        if (kind, version) != ("ExecCredential", self._version) or not isinstance(status, dict):
            raise self._failed(f"{self._argv[0]} printed {kind} {version} instead of ExecCredential {self._version}")
        return status

    def _environ(self) -> dict[str, str]:
        own = self._entry.values.get("env") or []
        try:
            extra = {str(item["name"]): str(item["value"]) for item in own}
        except (TypeError, KeyError) as error:
            raise SettingsError(f"{self._entry}: env is not a list of names and values") from error
        spec: dict[str, Any] = {"interactive": self._interactive}
        if self._entry.flag("provideClusterInfo"):
            spec["cluster"] = self._cluster_info()
        info = {"apiVersion": self._version, "kind": "ExecCredential", "spec": spec}
        return {**os.environ, **extra, "KUBERNETES_EXEC_INFO": json.dumps(info)}

    def _cluster_info(self) -> dict[str, Any]:
        values = self._cluster.values
        info = {key: values[key] for key in _CLUSTER_KEYS if values.get(key)}
        if "certificate-authority-data" not in info and (authority := self._cluster.content("certificate-authority")):
            import base64

            info["certificate-authority-data"] = base64.b64encode(authority).decode("ascii")
        for extension in values.get("extensions") or []:
            if isinstance(extension, dict) and extension.get("name") == "client.authentication.k8s.io/exec":
                info["config"] = extension.get("extension")
        return info

    def _failed(self, reason: str, *, hint: str | None = None, details: str | None = None) -> AuthFailed:
        return AuthFailed(f"cannot get credentials from the {self._entry}: {reason}", hint=hint, details=details)
