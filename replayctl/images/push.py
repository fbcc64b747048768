"""One push: reported by layers, and complete only when the registry reports the digest that was sent."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from replayctl.console.events import Reporter
from replayctl.errors import OperationFailed
from replayctl.images.engine import Engine, explain
from replayctl.images.reference import Reference

_DIGEST = re.compile(r"digest: (sha256:[0-9a-f]{64})")
_DONE = frozenset({"Pushed", "Layer already exists"})
_MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Pushed:
    """An image in its registry: `reference` names it by its digest. `sent_layers` did not exist there before."""

    reference: str
    digest: str
    layers: int
    sent_layers: int


@dataclass(slots=True)
class _Layers:
    """The state of each layer, and the bytes sent of each layer in transfer."""

    states: dict[str, str] = field(default_factory=dict)
    bytes: dict[str, tuple[int, int]] = field(default_factory=dict)

    def take(self, event: Mapping[str, Any]) -> bool:
        """Records an event; returns True when a layer is finished."""
        layer, state = event.get("id"), str(event.get("status") or "")
        if not layer or state.startswith(("The push refers", f"{layer}: digest")):
            return False
        detail = event.get("progressDetail") or {}
        if detail.get("total"):
            self.bytes[layer] = (int(detail.get("current") or 0), int(detail["total"]))
        ended = state in _DONE and self.states.get(layer) not in _DONE
        if state == "Pushed" and layer in self.bytes:
            self.bytes[layer] = (self.bytes[layer][1], self.bytes[layer][1])
        self.states[layer] = state
        return ended

    def __str__(self) -> str:
        done = sum(state in _DONE or state.startswith("Mounted") for state in self.states.values())
        sent, total = (sum(values) / _MB for values in zip(*self.bytes.values(), strict=True)) if self.bytes else (0, 0)
        return f"{done} of {len(self.states)} layers, {sent:.1f} of {total:.1f} MB"


def push(engine: Engine, reference: Reference, reporter: Reporter) -> Pushed:
    """Pushes a tag of the engine, then reads its digest back from the registry.

    Raises AuthFailed, Unreachable or OperationFailed with a hint when the registry refuses or is lost, and
    OperationFailed when the registry reports another digest than the one that was sent.
    """
    layers, digest = _Layers(), None
    for event in engine.push(reference):
        if "error" in event:
            message = str(event["error"]).strip()
            raise explain(message, str(reference), reference.registry) or OperationFailed(
                f"the push of {reference} failed: {message}"
            )
        # The classic store reports the digest in `aux`, that of containerd only in its text.
        digest = (event.get("aux") or {}).get("Digest") or digest
        match = _DIGEST.search(str(event.get("status") or ""))
        digest = match[1] if match else digest
        if layers.take(event):
            reporter.note(f"layer {event['id']}: {event['status'].lower()}")
        if layers.states:
            reporter.status(f"pushing {reference}: {layers}")
    known = engine.registry_digest(reference)
    if known is None or (digest is not None and known != digest):
        raise OperationFailed(
            f"the registry has {known or 'no image'} for {reference}, but {digest} was pushed",
            hint="push again; another user may be pushing the same tag",
        )
    sent = sum(state == "Pushed" for state in layers.states.values())
    return Pushed(f"{reference.name}@{known}", known, len(layers.states), sent)
