"""The interface by which lower layers report progress."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
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

    def ask(self, question: str, is_secret: bool) -> str | None:
        """Ask at the terminal; None where nobody can answer."""

    def progress(
        self, message: str, total: float, unit: Unit = "items"
    ) -> AbstractContextManager[Callable[[float], None]]:
        """Report progress of work of known size; call the result with each amount that is done."""
