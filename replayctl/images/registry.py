"""A registry by its HTTP API: the tags of a repository and the digest of each.

https://distribution.github.io/distribution/spec/api/
"""

from __future__ import annotations

import base64
import json
import re
import urllib.parse
from collections.abc import Collection, Mapping
from typing import Any

from replayctl.errors import AuthFailed, OperationFailed, Unreachable, in_words
from replayctl.images.engine import credentials
from replayctl.images.reference import Reference

_TIMEOUT_S = 15.0
_PAGES = 50
_ACCEPT = ", ".join(
    f"application/vnd.{kind}+json"
    for kind in (
        "oci.image.index.v1",
        "oci.image.manifest.v1",
        "docker.distribution.manifest.list.v2",
        "docker.distribution.manifest.v2",
    )
)
# A page of a thousand tags has 130 kB.
_MAX_ANSWER_BYTES = 8 << 20
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')
_LOCAL = ("localhost", "127.0.0.1", "[::1]")


class Registry:
    """One registry with Docker's credentials for it; `insecure` lists the registries that speak plain HTTP."""

    def __init__(self, name: str, insecure: Collection[str] = ()) -> None:
        import urllib3

        self.name = name
        host = name.rpartition(":")[0] or name
        plain = name in insecure or host in _LOCAL
        self._base = f"{'http' if plain else 'https'}://{name}"
        self._pool = urllib3.PoolManager(retries=False, timeout=_TIMEOUT_S)
        self._headers: dict[str, str] = {}

    def tags(self, repository: str) -> list[str]:
        """The tags of a repository, sorted; none for one that does not exist."""
        tags: list[str] = []
        path: str | None = f"/v2/{repository}/tags/list?n=1000"
        for _ in range(_PAGES):
            if path is None:
                break
            status, headers, body = self._get(path, repository)
            if status == 404:
                return []
            tags += map(str, self._document(body, path).get("tags") or ())
            link = re.match(r"<([^>]+)>", headers.get("Link") or "")
            path = _below(urllib.parse.urljoin(path, link[1])) if link else None
        return sorted(tags)

    def digest(self, reference: Reference) -> str | None:
        """The digest of a tag; None for one that does not exist."""
        path = f"/v2/{reference.repository}/manifests/{reference.tag}"
        status, headers, _ = self._get(path, reference.repository, method="HEAD")
        if status == 404:
            return None
        digest = headers.get("Docker-Content-Digest") or ""
        if not _DIGEST.fullmatch(digest):
            raise OperationFailed(f"{self.name} does not answer as a registry: it names no digest of {reference}")
        return digest

    def _get(self, path: str, repository: str, method: str = "GET") -> tuple[int, Mapping[str, str], bytes]:
        status, headers, body = self._ask(method, path)
        if status == 401:
            self._sign_in(headers.get("WWW-Authenticate") or "", repository)
            status, headers, body = self._ask(method, path)
        if status in (401, 403):
            raise AuthFailed(f"{self.name} refused access to {repository}", hint=f"docker login {self.name}")
        if status not in (200, 404):
            raise OperationFailed(f"{self.name} responded to {path} with HTTP status {status}")
        return status, headers, body

    def _ask(self, method: str, path: str) -> tuple[int, Mapping[str, str], bytes]:
        import urllib3

        try:
            return self._answer(method, self._base + path, {"Accept": _ACCEPT, **self._headers})
        except urllib3.exceptions.HTTPError as error:
            raise Unreachable(f"{self.name} does not answer: {in_words(error)}") from error

    def _answer(
        self, method: str, url: str, headers: Mapping[str, str], content: bytes | None = None
    ) -> tuple[int, Mapping[str, str], bytes]:
        with self._pool.request(
            method, url, body=content, headers=headers, redirect=False, preload_content=False
        ) as answer:
            body = answer.read(_MAX_ANSWER_BYTES + 1)
        if len(body) > _MAX_ANSWER_BYTES:
            raise OperationFailed(f"the answer of {url} is longer than {_MAX_ANSWER_BYTES} bytes")
        return answer.status, answer.headers, body

    def _document(self, body: bytes, path: str) -> dict[str, Any]:
        try:
            return dict(json.loads(body))
        except (ValueError, TypeError, RecursionError) as error:
            message = f"{self.name} does not answer as a registry: its answer to {path} is not a JSON object"
            raise OperationFailed(message) from error

    def _sign_in(self, challenge: str, repository: str) -> None:
        stored = {name.lower(): value for name, value in (credentials(self.name) or {}).items()}
        user, password = stored.get("username"), stored.get("password")
        encoded = base64.b64encode(f"{user}:{password}".encode()).decode()
        basic = {"Authorization": f"Basic {encoded}"} if user else {}
        if not challenge.lower().startswith("bearer"):
            self._headers = basic
            return
        parameters = dict(_CHALLENGE.findall(challenge))
        realm = parameters.get("realm", "")
        if not realm.startswith("https://") and not (realm.startswith("http://") and self._base.startswith("http://")):
            raise OperationFailed(f"cannot sign in to {self.name}: its token address {realm!r} is not encrypted")
        query = {"service": parameters.get("service", ""), "scope": f"repository:{repository}:pull"}
        token = self._token(realm, query, basic, stored.get("identitytoken"))
        self._headers = {"Authorization": f"Bearer {token}"}

    def _token(self, realm: str, query: Mapping[str, str], basic: Mapping[str, str], identity: str | None) -> str:
        """A token for one repository; empty when the login is refused.

        A login by browser or by a cloud's own program leaves an identity token in place of a password; it goes in the
        body of a request (https://distribution.github.io/distribution/spec/auth/oauth/).
        """
        import urllib3

        try:
            if identity:
                form = {"grant_type": "refresh_token", "client_id": "replayctl", "refresh_token": identity, **query}
                kind = {"Content-Type": "application/x-www-form-urlencoded"}
                status, _, body = self._answer("POST", realm, kind, urllib.parse.urlencode(form).encode())
            else:
                status, _, body = self._answer("GET", f"{realm}?{urllib.parse.urlencode(query)}", basic)
        except urllib3.exceptions.HTTPError as error:
            raise Unreachable(f"{realm} does not answer: {in_words(error)}") from error
        document = self._document(body, realm) if status == 200 else {}
        return str(document.get("token") or document.get("access_token") or "")


def _below(url: str) -> str:
    """The path and query of an address: some registries name the next page with their host."""
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit(("", "", parts.path, parts.query, ""))
