"""Lists the worker's images in the engine, in the registry and in running pods."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from replayctl.cluster.api import Kubernetes
from replayctl.images.engine import Engine
from replayctl.images.reference import Reference
from replayctl.images.registry import Registry


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One tag: its digest in the registry, its size in the engine in bytes, how many pods run it."""

    tag: str
    digest: str | None
    in_engine: bool
    in_registry: bool
    size: int | None
    inputs: str | None
    pods: int


def list_images(
    engine: Engine | None, registry: Registry | None, repository: Reference, running: Mapping[str, int], label: str
) -> list[ImageRow]:
    """The tags of a repository, and images that pods run without a tag of it (tag `-`).

    `running` has the number of pods by `NAME@DIGEST`, or by `NAME:TAG` where a node does not tell the digest.
    """
    local = {
        tag.removeprefix(f"{repository.name}:"): image
        for image in (engine.images(repository.name) if engine else ())
        for tag in image.tags
        if tag.startswith(f"{repository.name}:")
    }
    digests: dict[str, str | None] = {}
    if registry is not None:
        for tag in registry.tags(repository.repository):
            digests[tag] = registry.digest(Reference(repository.registry, repository.repository, tag))
    rows, seen = [], set()
    for tag in sorted({*local, *digests}):
        image, digest = local.get(tag), digests.get(tag)
        if digest is None and image is not None:
            digest = image.digest_in(repository.name)
        seen.add(digest)
        rows.append(
            ImageRow(
                tag=tag,
                digest=digest,
                in_engine=image is not None,
                in_registry=tag in digests,
                size=image.size if image else None,
                inputs=image.labels.get(label) if image else None,
                pods=running.get(f"{repository.name}:{tag}", 0)
                + (running.get(f"{repository.name}@{digest}", 0) if digest else 0),
            )
        )
    # Images that pods still run although their tag has moved.
    for name, count in sorted(running.items()):
        digest = name.partition("@")[2]
        if name.startswith(f"{repository.name}@") and digest not in seen:
            rows.append(ImageRow("-", digest, False, False, None, None, count))
    return rows


def running_images(cluster: Kubernetes, namespace: str) -> dict[str, int]:
    """How many running pods of a Kubernetes namespace have each image, by its digest where the node tells it."""
    pods = cluster.get(f"/api/v1/namespaces/{namespace}/pods", f"pods of {namespace}").get("items") or []
    return dict(Counter(image for pod in pods for image in _images(pod)))


def _images(pod: Mapping[str, Any]) -> Iterable[str]:
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    running = [status for status in statuses if (status.get("state") or {}).get("running")]
    # Of an image that was built or loaded on the node, some runtimes name the id alone.
    ids = [(str(status.get("imageID") or ""), str(status.get("image"))) for status in running]
    return {known.removeprefix("docker-pullable://") if "@" in known else name for known, name in ids}
