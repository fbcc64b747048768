"""Removes control characters and masks secrets, known ones and those in common notations."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from replayctl.console.secret import MASK, mask_known

# Tabs and line ends stay; all other control characters are removed, also those that turn the direction of a text, by
# which a line can be made to read as another one.
# Patterns are compiled where they are first used, by re itself: help needs none of them.
_ANY_CONTROL = r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]"
_CONTROL = r"\x1b\[[0-9;?]*[ -/]*[@-~]|" + _ANY_CONTROL
_ASCII_CONTROL = dict.fromkeys([*range(9), *range(0x0B, 0x20), 0x7F])
# As far as the masks look back: a header's name and its value in lines of their own, or a private key's whole block.
_CONTEXT_LINES = 3
_LONGEST_CONTEXT = 1 << 16


def clean(text: str) -> str:
    """Text that is safe for a terminal: without control characters and secrets."""
    if text.isascii() and "\x1b" not in text:
        return mask(text.translate(_ASCII_CONTROL))
    if re.search(_ANY_CONTROL, text):
        text = re.sub(_CONTROL, "", text)
    return mask(text)


def mask(text: str) -> str:
    """Text without secrets, otherwise unchanged; for data, because JSON escapes control characters.

    Line ends stay where they are.
    """
    from replayctl.console.secret_places import secret_places

    text = mask_known(text)
    places = secret_places(text)
    if not places:
        return text
    parts: list[str] = []
    done = 0
    for start, end in places:
        parts += [text[done:start], MASK]
        done = end
    return "".join([*parts, text[done:]])


def mask_value(name: str, value: str) -> str:
    """The value of a variable, setting or column of that name, completely masked if it is the name of a secret."""
    from replayctl.console.secret_places import is_secret

    return MASK if is_secret(name, value) else mask(value)


def clean_lines(lines: Sequence[str]) -> list[str]:
    """`clean` for the lines of one text."""
    return _as_one(lines, clean)


def mask_lines(lines: Sequence[str]) -> list[str]:
    """`mask` for the lines of one text."""
    return _as_one(lines, mask)


def _as_one(lines: Sequence[str], change: Callable[[str], str]) -> list[str]:
    if any("\n" in line for line in lines):
        return [change(line) for line in lines]
    return change("\n".join(lines)).split("\n") if lines else []


class LogCleaner:
    """`clean` for a text in pieces: a secret that begins in one piece is masked in the next.

    The pieces are complete lines, except for lines that are too long.
    """

    def __init__(self) -> None:
        self._context = ""

    def clean(self, text: str) -> str:
        """Clean the next piece."""
        cleaned = clean(self._context + text)
        for _ in range(self._context.count("\n")):
            cleaned = cleaned[cleaned.index("\n") + 1 :]
        self._context = self._context_after(self._context + text)
        return cleaned

    @staticmethod
    def _context_after(text: str) -> str:
        # What is repeated is counted in line ends.
        text = text[: text.rfind("\n") + 1][-_LONGEST_CONTEXT:]
        begin = text.rfind("-----BEGIN ")
        if begin >= 0 and "PRIVATE KEY" in text[begin : begin + 60] and "-----END" not in text[begin:]:
            return text[text.rfind("\n", 0, begin) + 1 :]
        lines = text.splitlines(keepends=True)
        return "".join(lines[-_CONTEXT_LINES:])
