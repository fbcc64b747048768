"""Secrets: a text type that nothing shows, and the ones this process knows, to mask them wherever they turn up."""

from __future__ import annotations

MASK = "***"
# Shorter ones would mask pieces of ordinary words, and protect nothing.
_SHORTEST = 4
_known: set[str] = set()


class Secret:
    """A text that no message, log or document shows: `reveal` gives it where it is needed."""

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
    """The text without the secrets that were made in this process, wherever they stand: a server may repeat them."""
    # The longest first: one may be a part of another.
    for secret in sorted(_known, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text
