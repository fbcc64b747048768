"""Names of images: `REGISTRY/REPOSITORY:TAG` or `…@sha256:DIGEST`, as Docker reads them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from replayctl.errors import UsageProblem

_REGISTRY = r"(?:localhost|[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+|[A-Za-z0-9.-]+(?=:[0-9]))(?::[0-9]{1,5})?"
_REPOSITORY = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+|/)[a-z0-9]+)*"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_REFERENCE = re.compile(rf"(?:(?P<registry>{_REGISTRY})/)?(?P<repository>{_REPOSITORY})(?::(?P<tag>{_TAG}))?")


@dataclass(frozen=True, slots=True)
class Reference:
    """An image's name; `registry` is None for Docker Hub, `tag` and `digest` when the name has none."""

    registry: str | None
    repository: str
    tag: str | None = None
    digest: str | None = None

    @property
    def name(self) -> str:
        """The name without its tag and digest."""
        return f"{self.registry}/{self.repository}" if self.registry else self.repository

    def __str__(self) -> str:
        return f"{self.name}{f':{self.tag}' if self.tag else ''}{f'@{self.digest}' if self.digest else ''}"


def parse_reference(text: str) -> Reference:
    """An image's name as people write it; UsageProblem for anything else."""
    match = _REFERENCE.fullmatch(text)
    if match is None or len(text) > 255:
        raise UsageProblem(
            f"{text!r} is not an image name", hint="write REGISTRY/NAME:TAG, such as localhost:5000/worker:a1"
        )
    return Reference(match["registry"], match["repository"], match["tag"])


def parse_pinned(text: str) -> Reference:
    """An image's name that may have a digest; without a tag and a digest, it is that of the tag `latest`."""
    name, pinned, digest = text.partition("@")
    reference = parse_reference(name)
    if pinned and not _DIGEST.fullmatch(digest):
        raise UsageProblem(f"{text!r} has an invalid digest", hint="write NAME@sha256:<64 hex digits>")
    tag = reference.tag if reference.tag or pinned else "latest"
    return Reference(reference.registry, reference.repository, tag, digest or None)
