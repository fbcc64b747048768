"""Reporters of the tests: one that says nothing, and one that keeps what it is told."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from replayctl.console.events import Unit


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

    def ask(self, question: str, is_secret: bool) -> str | None:
        """Nobody answers."""

    @contextlib.contextmanager
    def progress(self, message: str, total: float, unit: Unit = "items") -> Iterator[Callable[[float], None]]:
        """Discard it."""
        yield lambda _: None


@dataclass(eq=False)
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

    def ask(self, question: str, is_secret: bool) -> str | None:
        """Record it; nobody answers."""
        self.events.append(("ask", question))
        return None

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
