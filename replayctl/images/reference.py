"""Names of images: `REGISTRY/REPOSITORY:TAG`, as Docker reads them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from replayctl.errors import UsageProblem

_REGISTRY = r"(?:localhost|[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+|[A-Za-z0-9.-]+(?=:[0-9]))(?::[0-9]{1,5})?"
_REPOSITORY = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+|/)[a-z0-9]+)*"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_REFERENCE = re.compile(rf"(?:(?P<registry>{_REGISTRY})/)?(?P<repository>{_REPOSITORY})(?::(?P<tag>{_TAG}))?")


@dataclass(frozen=True, slots=True)
class Reference:
    """An image's name; `registry` is None for Docker Hub, `tag` is None when the name has no tag."""

    registry: str | None
    repository: str
    tag: str | None = None

    @property
    def name(self) -> str:
        """The name without its tag."""
        return f"{self.registry}/{self.repository}" if self.registry else self.repository

    def __str__(self) -> str:
        return f"{self.name}:{self.tag}" if self.tag else self.name


def parse_reference(text: str) -> Reference:
    """An image's name as people write it; UsageProblem for anything else."""
    match = _REFERENCE.fullmatch(text)
    if match is None or len(text) > 255:
        raise UsageProblem(
            f"{text!r} is not an image name", hint="write REGISTRY/NAME:TAG, such as localhost:5000/worker:a1"
        )
    return Reference(match["registry"], match["repository"], match["tag"])
