"""How lower layers say what they do, without knowing who listens."""

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
        """Something begins, or has changed."""

    def note(self, message: str) -> None:
        """A detail for those who ask for details."""

    def warn(self, message: str) -> None:
        """Something that the user should look at, though we go on."""

    def status(self, message: str) -> None:
        """A sign of life while waiting; the next one takes its place."""

    def progress(
        self, message: str, total: float, unit: Unit = "items"
    ) -> AbstractContextManager[Callable[[float], None]]:
        """How far work is whose size is known: call what it gives with each amount that is done."""


class SilentReporter:
    """Says nothing."""

    def step(self, message: str) -> None:
        """Nothing."""

    def note(self, message: str) -> None:
        """Nothing."""

    def warn(self, message: str) -> None:
        """Nothing."""

    def status(self, message: str) -> None:
        """Nothing."""

    @contextlib.contextmanager
    def progress(self, message: str, total: float, unit: Unit = "items") -> Iterator[Callable[[float], None]]:
        """Nothing."""
        yield lambda _: None


@dataclass
class RecordingReporter:
    """Keeps what it is told, as (kind, message)."""

    events: list[tuple[str, str]] = field(default_factory=list)

    def step(self, message: str) -> None:
        """Kept."""
        self.events.append(("step", message))

    def note(self, message: str) -> None:
        """Kept."""
        self.events.append(("note", message))

    def warn(self, message: str) -> None:
        """Kept."""
        self.events.append(("warn", message))

    def status(self, message: str) -> None:
        """Kept."""
        self.events.append(("status", message))

    @contextlib.contextmanager
    def progress(self, message: str, total: float, unit: Unit = "items") -> Iterator[Callable[[float], None]]:
        """Kept, with the amount that was done in the end."""
        amounts: list[float] = []
        try:
            yield amounts.append
        finally:
            self.events.append(("progress", f"{message}: {sum(amounts):.0f} of {total:.0f} {unit}"))

    def messages(self, kind: str) -> list[str]:
        """What was said of one kind, in order."""
        return [message for each, message in self.events if each == kind]
