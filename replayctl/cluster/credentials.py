"""The credentials of a kubeconfig's user entry. Raises an error instead of connecting without any.

Without credentials, the API server would treat the user as `system:anonymous`, and its answers would mislead.
"""

from __future__ import annotations

import base64
import binascii
import json
import ssl
import time
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from replayctl.cluster.entries import Entry
from replayctl.cluster.exec_plugin import ExecPlugin
from replayctl.cluster.tls import identify
from replayctl.console.secret import Secret
from replayctl.errors import AuthFailed, SettingsError

Headers = list[tuple[str, str]]
USER_KEYS = frozenset(
    {
        *("client-certificate", "client-certificate-data", "client-key", "client-key-data"),
        *("token", "tokenFile", "username", "password", "exec", "auth-provider"),
        *("as", "as-uid", "as-groups", "as-user-extra", "extensions"),
    }
)
# Letters, digits and marks that a header's name may have (RFC 9110, 5.6.2), without the percent sign of the escapes.
_HEADER_NAME_MARKS = "!#$&'*+-.^_`|~"
_EXPIRY_SKEW_S = 10.0


@dataclass(frozen=True, slots=True)
class Credentials:
    """Creates the headers that authenticate a request; `forget` drops cached credentials that were refused.

    `headers` raises AuthFailed for credentials that cannot be had or sent.
    """

    headers: Callable[[], Headers]
    forget: Callable[[], None]


def credentials(user: Entry, cluster: Entry, tls: ssl.SSLContext) -> Credentials:
    """The credentials of a user; a client certificate is loaded into `tls`.

    Raises SettingsError that names what is missing or not supported, AuthFailed if an exec plugin fails.
    """
    methods = [
        *(["token"] if user.text("token") or user.text("tokenFile") else []),
        *(["username"] if user.text("username") or user.text("password") else []),
        *(["exec"] if user.mapping("exec") else []),
        *(["auth-provider"] if user.mapping("auth-provider") else []),
    ]
    if len(methods) > 1:
        raise SettingsError(f"{user} has {' and '.join(methods)}; only one of them is allowed")
    certified = _identify(user, tls)
    if not methods and not certified:
        raise SettingsError(f"{user} has no credentials", hint="add a token, a client certificate or an exec plugin")
    impersonated = impersonation(user)
    forget: Callable[[], None] = _nothing
    sign: Callable[[], str | None] = _unsigned
    if methods == ["token"]:
        sign = _bearer(user)
    elif methods == ["username"]:
        sign = _basic(user)
    elif methods == ["exec"]:
        plugin = ExecPlugin(user, cluster, tls)
        # Run it now, so that its errors are reported before anything else happens.
        plugin.token()
        forget = plugin.forget

        def sign() -> str | None:
            token = plugin.token()
            return f"Bearer {token.reveal()}" if token else None

    elif methods == ["auth-provider"]:
        sign = _auth_provider(user)

    def headers() -> Headers:
        signature = sign()
        if signature and not _fits_header(signature):
            raise AuthFailed(
                f"{user}: its token has characters other than printable ASCII", hint="check it for a line end"
            )
        return [*([("Authorization", signature)] if signature else []), *impersonated]

    return Credentials(headers, forget)


def _nothing() -> None:
    pass


def _unsigned() -> None:
    return None


def _identify(user: Entry, tls: ssl.SSLContext) -> bool:
    """Loads the user's certificate into the context; returns whether there is one."""
    certificate, key = user.content("client-certificate"), user.content("client-key")
    if certificate is None and key is None:
        return False
    if certificate is None or key is None:
        present, missing = ("client-certificate", "client-key") if key is None else ("client-key", "client-certificate")
        raise SettingsError(f"{user} has a {present} without its {missing}")
    try:
        identify(tls, certificate, key)
    except (ssl.SSLError, ValueError) as error:
        raise SettingsError(f"{user}: cannot use the client certificate or its key: {error}") from error
    return True


def _bearer(user: Entry) -> Callable[[], str]:
    path = user.file("tokenFile")
    if path is None:
        token = Secret(user.text("token") or "")
        return lambda: f"Bearer {token.reveal()}"

    def read() -> str:
        # Read it for each request, since the token in such files is renewed.
        try:
            text = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise AuthFailed(f"{user}: cannot read the token file {path}: {reason}") from error
        if not text:
            raise AuthFailed(f"{user}: the token file {path} is empty")
        return f"Bearer {Secret(text).reveal()}"

    return read


def _basic(user: Entry) -> Callable[[], str]:
    name, password = user.text("username"), user.text("password")
    if name is None or password is None:
        raise SettingsError(
            f"{user} has a {'username' if name else 'password'} without a {'password' if name else 'username'}"
        )
    Secret(password)
    pair = Secret(base64.b64encode(f"{name}:{password}".encode()).decode("ascii"))
    return lambda: f"Basic {pair.reveal()}"


def _auth_provider(user: Entry) -> Callable[[], str]:
    provider = user.mapping("auth-provider")
    name, config = provider.get("name"), provider.get("config")
    token = config.get("id-token") if isinstance(config, dict) else None
    if name != "oidc":
        raise SettingsError(
            f"{user}: replayctl does not support the auth-provider {name!r}",
            hint="generate the kubeconfig again, with an exec plugin; kubectl has not supported it since 1.26 either",
        )
    if not isinstance(token, str) or not token:
        raise SettingsError(f"{user}: its auth-provider has no id-token", hint="sign in with kubectl first")
    secret = Secret(token)

    def sign() -> str:
        if _expires_at(secret) < time.time() + _EXPIRY_SKEW_S:
            raise AuthFailed(
                f"{user}: the id-token of its auth-provider has expired",
                hint="run `kubectl get --raw /version`, which renews it",
            )
        return f"Bearer {secret.reveal()}"

    sign()
    return sign


def _expires_at(token: Secret) -> float:
    """When a JSON web token expires, in Unix seconds; infinity if it does not say."""
    try:
        payload = token.reveal().split(".")[1]
        return float(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["exp"])
    except (IndexError, KeyError, TypeError, ValueError, binascii.Error):
        return float("inf")


def impersonation(user: Entry) -> Headers:
    """The headers for impersonation. Raises SettingsError for values that cannot be sent.

    https://kubernetes.io/docs/reference/access-authn-authz/authentication/#user-impersonation
    """
    name, uid, groups, extra = user.text("as"), user.text("as-uid"), user.texts("as-groups"), _extra(user)
    if name is None and (uid or groups or extra):
        raise SettingsError(f"{user} has as-uid, as-groups or as-user-extra without as, the user to impersonate")
    headers = [("Impersonate-User", name)] if name else []
    headers += [("Impersonate-Uid", uid)] if uid else []
    headers += [("Impersonate-Group", group) for group in groups]
    headers += [
        (f"Impersonate-Extra-{urllib.parse.quote(key.lower(), safe=_HEADER_NAME_MARKS)}", value)
        for key, values in extra.items()
        for value in values
    ]
    for _, value in headers:
        if not _fits_header(value):
            raise SettingsError(f"{user}: cannot impersonate {value!r}: it has characters other than printable ASCII")
    return headers


def _fits_header(value: str) -> bool:
    # HTTP clients refuse others, some with the value in the message, and do not agree on their encoding.
    return value.isascii() and value.isprintable()


def _extra(user: Entry) -> Mapping[str, list[str]]:
    extra = user.mapping("as-user-extra")
    for key, values in extra.items():
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise SettingsError(f"{user}: as-user-extra: {key} is not a list of strings")
    return extra
