"""The Docker engine by its API: its images, and builds and pushes as streams of events.

Docker's Python library sends every stored credential with a build, and one broken credential helper of another registry
then fails all of them; here each call gets only the credentials of its registry.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from replayctl.console.secret import Secret
from replayctl.errors import AuthFailed, NotFound, OperationFailed, ReplayctlError, Unreachable
from replayctl.images.reference import Reference

if TYPE_CHECKING:
    from docker.errors import APIError

    from docker import APIClient

# The engine sends nothing for as long as one build step takes, or while a registry stores a large layer.
_SILENCE_S = 3600
_HUB = "docker.io"
# Docker has Go's names.
_PROCESSORS = {"amd64": "x86_64", "arm64": "aarch64"}
# How an engine reports a registry that is unreachable or was lost.
_AWAY = ("connection refused", "no such host", "eof", "connection reset", "broken pipe", "i/o timeout")


@dataclass(frozen=True, slots=True)
class LocalImage:
    """One image of the engine: its tags and the digests under which registries know it; the size in bytes."""

    id: str
    tags: tuple[str, ...]
    digests: tuple[str, ...]
    size: int
    labels: Mapping[str, str]

    def digest_in(self, repository: str) -> str | None:
        """The image's digest in a repository (`REGISTRY/NAME`), if the engine has recorded it."""
        return next((name.partition("@")[2] for name in self.digests if name.startswith(f"{repository}@")), None)


class Engine:
    """The Docker engine that DOCKER_HOST or Docker's current context names."""

    def __init__(self, client: APIClient, address: str) -> None:
        self._client = client
        self.address = address

    def image(self, name: str) -> LocalImage | None:
        """One image by its name or id; None when the engine does not have it."""
        from docker.errors import ImageNotFound

        with self._speaking(f"image {name}"):
            try:
                return _local_image(self._client.inspect_image(name))
            except ImageNotFound:
                return None

    def images(self, repository: str) -> list[LocalImage]:
        """The images with a tag in the repository (`REGISTRY/NAME`), the newest first."""
        with self._speaking("images"):
            rows = self._client.images(name=repository)
            return [_local_image(self._client.inspect_image(row["Id"])) for row in rows]

    def registry_digest(self, reference: Reference) -> str | None:
        """The digest of a tag in its registry, as the engine resolves it; None when the tag does not exist there."""
        from docker.errors import APIError

        with self._speaking(str(reference)):
            try:
                answer = self._client.inspect_distribution(
                    str(reference), auth_config=credentials(reference.registry) or {"username": "", "password": ""}
                )
            except APIError as error:
                # An unknown repository is "denied" by registries that hide which repositories exist.
                if error.status_code == 404 or "manifest unknown" in str(error) or "not found" in str(error):
                    return None
                raise
            return str(answer["Descriptor"]["digest"])

    def architecture(self) -> str:
        """The processor that it builds for, as `uname -m` names it: it may be on another machine."""
        with self._speaking("its version"):
            name = str(self._client.version().get("Arch") or "")
        return _PROCESSORS.get(name, name)

    def insecure_registries(self) -> frozenset[str]:
        """The registries to which the engine may speak plain HTTP, beside those on this machine."""
        with self._speaking("its configuration"):
            configured = (self._client.info().get("RegistryConfig") or {}).get("IndexConfigs") or {}
            return frozenset(name for name, index in configured.items() if not index.get("Secure", True))

    def build(
        self, context: IO[bytes], dockerfile: str, tag: str, *, base: Reference, **options: Any
    ) -> Iterator[dict[str, Any]]:
        """Builds by the classic builder; yields the engine's events as they arrive."""
        self._client.sent_credentials = _for_build(base)
        with self._speaking(f"the build of {tag}"):
            yield from self._client.build(
                fileobj=context,
                custom_context=True,
                dockerfile=dockerfile,
                tag=tag,
                rm=True,
                forcerm=True,
                decode=True,
                **options,
            )

    def push(self, reference: Reference) -> Iterator[dict[str, Any]]:
        """Pushes a tag; yields the engine's events as they arrive."""
        with self._speaking(str(reference)):
            yield from self._client.push(
                reference.name,
                tag=reference.tag,
                stream=True,
                decode=True,
                # Without it the library would read every stored credential.
                auth_config=credentials(reference.registry) or {"username": "", "password": ""},
            )

    def tag(self, image: str, reference: Reference) -> None:
        """Gives an image one more name."""
        with self._speaking(f"image {image}"):
            self._client.tag(image, reference.name, reference.tag)

    @contextlib.contextmanager
    def _speaking(self, what: str) -> Iterator[None]:
        from docker.errors import APIError

        try:
            yield
        except ReplayctlError:
            raise
        except APIError as error:
            raise _refusal(error, what) from error
        except _troubles(self.address) as error:
            raise _silent(self.address, error) from error


def find_engine() -> Engine:
    """The engine, after it has answered; raises Unreachable when it does not."""
    with _without_paramiko():
        import docker

    from docker import auth

    class Client(docker.APIClient):  # type: ignore[misc]
        sent_credentials: Mapping[str, Any] = {}

        def _set_auth_headers(self, headers: dict[str, Any]) -> None:
            if self.sent_credentials:
                headers["X-Registry-Config"] = auth.encode_header(dict(self.sent_credentials))

    address = os.environ.get("DOCKER_HOST")
    context = {} if address else _current_context()
    address = address or str(context["base_url"])
    if address.startswith("ssh://"):
        from docker.transport.sshconn import SSHHTTPAdapter

        # Docker's client looks for it at its own import, which has kept it away.
        docker.api.client.SSHHTTPAdapter = SSHHTTPAdapter
    try:
        options = context or docker.utils.kwargs_from_env()
        # Negotiated with the engine: newer ones reject old API versions, older ones do not support new ones.
        return Engine(Client(version="auto", timeout=_SILENCE_S, **options), address)
    except _troubles(address) as error:
        raise _silent(address, error) from error


@contextlib.contextmanager
def _without_paramiko() -> Iterator[None]:
    """Keeps Docker's client from loading paramiko, half of its import, which only an engine at ssh:// needs."""
    if "paramiko" in sys.modules:
        yield
        return
    # The import system's own sign of a module that is not to be had.
    sys.modules["paramiko"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["paramiko"]


def credentials(registry: str | None) -> dict[str, str] | None:
    """What Docker's configuration and its credential helpers have for one registry; None when nothing is stored.

    Raises AuthFailed when the helper for this registry fails; those of others are not asked.
    """
    from docker.errors import DockerException

    from docker import auth

    try:
        stored = auth.load_config().resolve_authconfig(registry or _HUB)
    except DockerException as error:
        raise AuthFailed(
            f"cannot read credentials for {registry or _HUB}: the credential helper failed: {error}",
            hint=f"docker login {registry or ''}".rstrip() + ", or correct credHelpers in ~/.docker/config.json",
        ) from error
    if not stored:
        return None
    for name in ("password", "Password", "identitytoken", "IdentityToken", "auth"):
        if stored.get(name):
            # Registered as a secret, so that it is never printed.
            Secret(str(stored[name]))
    return {str(key): str(value) for key, value in stored.items() if value is not None}


def _for_build(base: Reference) -> dict[str, Any]:
    stored = credentials(base.registry)
    return {base.registry or _HUB: stored} if stored else {}


def _current_context() -> dict[str, Any]:
    """The address, and the certificates if there are any, of the context that Docker's own client would use."""
    from docker.context import ContextAPI

    name = os.environ.get("DOCKER_CONTEXT") or None
    try:
        context = ContextAPI.get_context(name)
    except Exception as error:
        raise OperationFailed(
            f"cannot read Docker's current context: {error}", hint="run `docker context ls`"
        ) from error
    if context is None:
        raise OperationFailed("Docker's current context does not exist", hint="run `docker context ls`")
    certificates = {"tls": context.TLSConfig} if context.TLSConfig else {}
    return {"base_url": str(context.Host or "unix:///var/run/docker.sock"), **certificates}


def _local_image(row: Mapping[str, Any]) -> LocalImage:
    return LocalImage(
        id=str(row["Id"]),
        tags=tuple(row.get("RepoTags") or ()),
        digests=tuple(row.get("RepoDigests") or ()),
        size=int(row.get("Size") or 0),
        labels=dict((row.get("Config") or {}).get("Labels") or {}),
    )


def _troubles(address: str) -> tuple[type[Exception], ...]:
    """What Docker's client raises when the engine at an address does not answer."""
    from docker.errors import DockerException

    # The errors of requests are among them.
    kinds = (DockerException, OSError)
    if not address.startswith("ssh://"):
        return kinds
    from docker.transport import sshconn

    return (*kinds, sshconn.paramiko.SSHException)


def _silent(address: str, error: BaseException) -> Unreachable:
    return Unreachable(
        f"the Docker engine at {address} does not answer: {error}",
        hint="start Docker, or select another engine: export DOCKER_HOST=<address>",
    )


def _refusal(error: APIError, what: str) -> ReplayctlError:
    return explain(str(error.explanation or error), what) or (
        NotFound(f"{what} does not exist in the Docker engine", details=str(error.explanation or error))
        if error.status_code == 404
        else OperationFailed(f"the Docker engine refused {what}", details=str(error.explanation or error))
    )


def explain(message: str, what: str, registry: str | None = None) -> ReplayctlError | None:
    """The error for an engine's message about a registry; None for other messages."""
    where = registry or "the registry"
    lower = message.lower()
    if any(words in lower for words in ("unauthorized", "no basic auth", "denied", "authentication required")):
        return AuthFailed(f"{where} refuses {what}", hint=f"docker login {registry or ''}".rstrip(), details=message)
    if "server gave http response to https client" in lower:
        return OperationFailed(
            f"{where} speaks plain HTTP, but the engine requires HTTPS",
            hint=f'add {{"insecure-registries": ["{registry or "REGISTRY"}"]}} to daemon.json, then restart Docker',
            details=message,
        )
    if any(words in lower for words in _AWAY):
        return Unreachable(
            f"cannot reach {where} for {what}",
            hint="check the network and the registry, then try again; layers that were already sent are skipped",
            details=message,
        )
    return None
