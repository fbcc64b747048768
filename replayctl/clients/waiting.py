"""What an application waits for, from the ResourceManager's diagnostics.

Parses the messages of CapacityScheduler (`CSAMContainerLaunchDiagnosticsConstants`, `LeafQueue`, `RMAppAttemptImpl`),
which has amounts after `Details :`. Messages of FairScheduler have fewer details, and are passed on unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_DATE = re.compile(r"^\s*\[[^\]]*\]\s*")
_DETAIL = re.compile(r"\s*([^=;]+?)\s*=\s*([^;]*?)\s*(?:;|$)")
_RESOURCES = re.compile(r"<memory:\s*(\d+)(?:\s*\w+)?,\s*vCores:\s*(\d+)")
_PREAMBLE = "Application is added to the scheduler and is not yet activated."
_LONGEST_REASON = 300
_QUEUE_LIMITS = ("Queue Resource Limit for AM", "Queue's max capacity (absolute resource)")
_IN_USE = ("Queue AM Resource Usage", "Queue's used capacity (absolute resource)")


@dataclass(frozen=True, slots=True)
class Resources:
    """An amount of memory and cores."""

    memory_mb: int
    vcores: int

    def __str__(self) -> str:
        return f"{self.memory_mb} MB, {self.vcores} core{'' if self.vcores == 1 else 's'}"


@dataclass(frozen=True, slots=True)
class Ask:
    """Containers of one size that were requested and not allocated yet; `partition` is the nodes' label, or empty."""

    containers: int
    size: Resources
    partition: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why an application waits, what it requests, the limit of its queue and how much of that is in use."""

    reason: str
    asks: tuple[Ask, ...]
    queue: str
    partition: str | None
    limit: Resources | None
    in_use: Resources | None

    def __str__(self) -> str:
        words = [f"requests {_amounts(self.asks)}"] if self.asks else []
        if self.limit is not None:
            words.append(f"limit {self.limit}")
        if self.in_use is not None:
            words.append(f"in use {self.in_use}")
        words.append(f"queue {self.queue}" + (f", partition {self.partition}" if self.partition else ""))
        return f"{self.reason} ({'; '.join(words)})"


def waiting_to_start(diagnostics: str, queue: str, requests: Sequence[Mapping[str, Any]]) -> Waiting:
    """What an application without a driver waits for."""
    summary, _, rest = _DATE.sub("", diagnostics).partition("Details :")
    details = dict(_DETAIL.findall(rest))
    reason = " ".join(summary.replace(_PREAMBLE, "").split())[:_LONGEST_REASON].rstrip(". ")
    asks = _asks(requests)
    master = _resources(details.get("AM Resource Request"))
    if not asks and master is not None:
        asks = (Ask(1, master, ""),)
    limits = ("User AM Resource Limit of the queue",) if reason.startswith("User's") else _QUEUE_LIMITS
    return Waiting(
        reason or "accepted, but no container is allocated yet",
        asks,
        queue,
        details.get("AM Partition"),
        _first(details, limits),
        _first(details, _IN_USE),
    )


def waiting_for_containers(queue: str, requests: Sequence[Mapping[str, Any]]) -> Waiting | None:
    """What a running application still waits for; None if all its containers are allocated."""
    asks = _asks(requests)
    return Waiting("requested containers are not allocated", asks, queue, None, None, None) if asks else None


def _asks(requests: Sequence[Mapping[str, Any]]) -> tuple[Ask, ...]:
    """The open requests, without those for nodes and racks, which repeat the others."""
    counts: dict[tuple[Resources, str], int] = {}
    for request in requests:
        count, size = _number(request.get("numContainers")), request.get("capability")
        if request.get("resourceName") != "*" or count <= 0 or not isinstance(size, Mapping):
            continue
        key = (Resources(_number(size.get("memory")), _number(size.get("vCores"))), _label(request))
        counts[key] = counts.get(key, 0) + count
    return tuple(Ask(count, size, label) for (size, label), count in counts.items())


def _amounts(asks: Iterable[Ask]) -> str:
    return " and ".join(
        (f"{ask.containers} containers of {ask.size}" if ask.containers > 1 else str(ask.size))
        + (f" on nodes labelled {ask.partition}" if ask.partition else "")
        for ask in asks
    )


def _label(request: Mapping[str, Any]) -> str:
    return str(request.get("nodeLabelExpression") or "").replace("<Not set>", "")


def _first(details: Mapping[str, str], names: Iterable[str]) -> Resources | None:
    return next((amount for name in names if (amount := _resources(details.get(name))) is not None), None)


def _resources(text: str | None) -> Resources | None:
    match = _RESOURCES.search(text or "")
    return Resources(int(match[1]), int(match[2])) if match else None


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
