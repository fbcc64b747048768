"""What no terminal and no document may show: control characters, and secrets, known ones or those of the usual shapes.

Logs of gigabytes pass here, so patterns are only tried near the words without which they cannot match.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from replayctl.console.secret import mask_known

# Tabs and line ends stay; everything else that could move a cursor or ring a bell goes.
# Patterns are compiled where they are first used, by re itself: help needs none of them.
_ANY_CONTROL = r"[\x00-\x08\x0b-\x1f\x7f-\x9f]"
_CONTROL = r"\x1b\[[0-9;?]*[ -/]*[@-~]|" + _ANY_CONTROL
# Each with signs, one of which is in every text that it fits, a character near them, and what takes its place.
_MASKS = (
    (("://",), "@", r"(?<=://)[^/\s:@]*:[^/\s@]+(?=@)", "***"),
    # Any scheme in a header; elsewhere only `bearer`, since "basic" is an ordinary word.
    (("authorization",), "", r"(?i)\b(authorization\"?\s*[:=]\s*\"?\w+)\s+[^\s\"',;}]+", r"\1 ***"),
    (("bearer",), "", r"(?i)\b(bearer)\s+[a-z0-9._~+/=-]{8,}", r"\1 ***"),
    (
        ("password", "passwd", "secret", "token", "api_key"),
        "",
        r"(?i)\b(password|passwd|secret|token|access_token|api_key)(\"?\s*[:=]\s*\"?)[^\s\"',;&}]+",
        r"\1\2***",
    ),
)
# A name, a sign, a scheme and a secret may each stand in a line of their own.
_FOLLOWING = 3


def clean(text: str) -> str:
    """Text fit for a terminal: no control characters, no secrets, neither known ones nor those of the usual shapes."""
    if re.search(_ANY_CONTROL, text):
        text = re.sub(_CONTROL, "", text)
    return mask(text)


def mask(text: str) -> str:
    """Text without secrets, else as it is; data are masked so, since JSON keeps control characters harmless."""
    text = mask_known(text)
    lowered = text.lower()
    for signs, near, pattern, replacement in _MASKS:
        if len(lowered) != len(text):
            # Some letters of other scripts are longer so, and places would not fit.
            text = re.sub(pattern, replacement, text)
            lowered = text.lower()
            continue
        parts: list[str] = []
        done = 0
        for start, end in _suspicious(lowered, signs):
            if near in text[start:end]:
                parts += [text[done:start], re.sub(pattern, replacement, text[start:end])]
                done = end
        if parts:
            text = "".join([*parts, text[done:]])
            lowered = text.lower()
    return text


def _suspicious(lowered: str, signs: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Runs of whole lines around the signs, in order: each line with a sign, and some after it."""
    run: tuple[int, int] | None = None
    for start, end in sorted(span for sign in signs for span in _around(lowered, sign)):
        if run is not None and start < run[1]:
            run = (run[0], max(run[1], end))
            continue
        if run is not None:
            yield run
        run = (start, end)
    if run is not None:
        yield run


def _around(text: str, sign: str) -> Iterator[tuple[int, int]]:
    place = text.find(sign)
    while place >= 0:
        line_end = end = _line_end(text, place)
        left = _FOLLOWING
        while left and end < len(text):
            begin, end = end + 1, _line_end(text, end + 1)
            left -= not text[begin:end].isspace() and begin < end
        yield text.rfind("\n", 0, place) + 1, end
        place = text.find(sign, line_end)


def _line_end(text: str, start: int) -> int:
    end = text.find("\n", start)
    return len(text) if end < 0 else end
