"""Texts of logs, as they are shown and as they are compared."""

from __future__ import annotations

import re

from replayctl.logs.diagnose.limits import MAX_STORED_LINE

_NUMBER = re.compile(r"\d+")
_LONG_HEX = re.compile(r"\b[0-9a-f]{8,}\b|\b[0-9a-f]{8}-[0-9a-f-]{27}\b")


def clean(text: str) -> str:
    """The text without characters that could confuse a terminal or cannot be encoded as UTF-8."""
    text = text[:MAX_STORED_LINE].rstrip()
    if text.isprintable() or text.replace("\t", " ").isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\t" else "\N{REPLACEMENT CHARACTER}" for char in text)


def simple_name(name: str) -> str:
    """A class's name without its package."""
    return name.rpartition(".")[2]


def cause_key(summary: str) -> str:
    """The same for equal causes: without packages and numbers, which differ between executors, Java and Python."""
    name, colon, message = summary.partition(":")
    return _NUMBER.sub("#", _LONG_HEX.sub("#", simple_name(name) + colon + message))


def same_form(prefix: str, line: str) -> bool:
    """Whether a line begins with this log prefix, at another time."""
    return _NUMBER.sub("0", prefix) == _NUMBER.sub("0", line[: len(prefix)])
