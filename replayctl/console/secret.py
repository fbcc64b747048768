"""Secrets: a text type that is never printed, and the known secrets of this process, which are masked everywhere."""

from __future__ import annotations

MASK = "***"
# Shorter secrets would mask parts of ordinary words.
_SHORTEST = 4
_known: set[str] = set()


class Secret:
    """A text that is never printed; `reveal` returns it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text
        if len(text) >= _SHORTEST:
            _known.add(text)

    def __repr__(self) -> str:
        return MASK

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def reveal(self) -> str:
        """The secret itself."""
        return self._text


def mask_known(text: str) -> str:
    """The text without the known secrets of this process: a server may repeat them. Line ends stay where they are."""
    # Longest first: one may be part of another.
    for secret in sorted(_known, key=len, reverse=True):
        if secret in text:
            text = text.replace(secret, "\n".join(MASK if line else "" for line in secret.split("\n")))
    return text
