"""The interface by which lower layers report progress."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Literal, Protocol

Unit = Literal["bytes", "items"]


class Reporter(Protocol):
    """Takes messages about the progress of a command."""

    def step(self, message: str) -> None:
        """Report a step that begins or a change."""

    def note(self, message: str) -> None:
        """Report a detail for verbose output."""

    def warn(self, message: str) -> None:
        """Report a problem that does not stop the command."""

    def status(self, message: str) -> None:
        """Report what the command waits for; the next status replaces it."""

    def progress(
        self, message: str, total: float, unit: Unit = "items"
    ) -> AbstractContextManager[Callable[[float], None]]:
        """Report progress of work of known size; call the result with each amount that is done."""


class SilentReporter:
    """Discards all messages."""

    def step(self, message: str) -> None:
        """Discard it."""

    def note(self, message: str) -> None:
        """Discard it."""

    def warn(self, message: str) -> None:
        """Discard it."""

    def status(self, message: str) -> None:
        """Discard it."""

    @contextlib.contextmanager
    def progress(self, message: str, total: float, unit: Unit = "items") -> Iterator[Callable[[float], None]]:
        """Discard it."""
        yield lambda _: None


@dataclass
class RecordingReporter:
    """Records all messages as (kind, message)."""

    events: list[tuple[str, str]] = field(default_factory=list)

    def step(self, message: str) -> None:
        """Record it."""
        self.events.append(("step", message))

    def note(self, message: str) -> None:
        """Record it."""
        self.events.append(("note", message))

    def warn(self, message: str) -> None:
        """Record it."""
        self.events.append(("warn", message))

    def status(self, message: str) -> None:
        """Record it."""
        self.events.append(("status", message))

    @contextlib.contextmanager
    def progress(self, message: str, total: float, unit: Unit = "items") -> Iterator[Callable[[float], None]]:
        """Record it with the total amount."""
        amounts: list[float] = []
        try:
            yield amounts.append
        finally:
            self.events.append(("progress", f"{message}: {sum(amounts):.0f} of {total:.0f} {unit}"))

    def messages(self, kind: str) -> list[str]:
        """The messages of one kind, in order."""
        return [message for event, message in self.events if event == kind]
