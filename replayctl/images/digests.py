"""The digest behind an image's name, so that what is deployed names one image for good."""

from __future__ import annotations

import re

from replayctl.errors import NotFound, ReplayctlError, UsageProblem
from replayctl.images.engine import find_engine
from replayctl.images.reference import Reference, parse_reference
from replayctl.images.registry import Registry

_PINNED = re.compile(r"(?P<name>[^@\s]+)@sha256:[0-9a-f]{64}")


def pin(image: str, worker: Reference) -> str:
    """`REGISTRY/NAME@sha256:…` of an image: a tag of the worker's image, REGISTRY/NAME:TAG, or a name with its digest.

    The registry is asked for the digest. Raises UsageProblem for a name without registry or tag, NotFound for a tag
    that the registry does not have, Unreachable and AuthFailed.
    """
    if pinned := _PINNED.fullmatch(image):
        parse_reference(pinned["name"])
        return image
    full = parse_reference(image if "/" in image or ":" in image else f"{worker}:{image}")
    if full.registry is None or full.tag is None:
        raise UsageProblem(
            f"image {image!r} names no {'tag' if full.registry else 'registry'}",
            hint=f"write a tag of {worker} or REGISTRY/NAME:TAG",
        )
    digest = Registry(full.registry, _insecure()).digest(full)
    if digest is None:
        raise NotFound(
            f"{full.registry} has no image {full}",
            hint="run `replayctl push-airflow-image`, or `replayctl images` to list the tags",
        )
    return f"{full.name}@{digest}"


def _insecure() -> frozenset[str]:
    try:
        return find_engine().insecure_registries()
    except ReplayctlError:
        # A deploy needs no engine; without one a registry is asked over HTTPS.
        return frozenset()
