"""Lines that were redrawn, such as progress bars, reduced to what a terminal shows in the end."""

from __future__ import annotations

import re


def last_states(text: str) -> str:
    """The text with the last state of each such line alone; other lines, and all line ends but `\\r\\n`, as they are.

    An empty state counts only if there is no other: bars are erased with spaces.
    """
    if "\r" not in text and "\b" not in text:
        return text
    return "\n".join(_last_state(line) for line in text.split("\n"))


def last_state(line: bytes) -> bytes:
    """The same for one line of a log, with or without its end."""
    if b"\r" not in line and b"\b" not in line:
        return line
    return last_states(line.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")


def without_former_states(unfinished: bytes) -> bytes:
    """An unfinished line without its former states, so that it stays short.

    What comes after its last `\\r` may still grow.
    """
    drawn, sign, rest = unfinished.rpartition(b"\r")
    return last_state(drawn) + sign + rest if b"\r" in drawn else unfinished


def _last_state(line: str) -> str:
    states = [_taken_back(state) for state in line.split("\r")]
    return next((state for state in reversed(states) if _shows(state)), states[-1])


def _shows(state: str) -> bool:
    return bool(re.sub(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x20\x7f-\xa0]", "", state))


def _taken_back(state: str) -> str:
    """The state without the characters over which others were written; what is only gone back over stays."""
    if "\b" not in state:
        return state
    characters: list[str] = []
    place = 0
    for character in state:
        if character == "\b":
            place = max(0, place - 1)
            continue
        characters[place : place + 1] = [character]
        place += 1
    return "".join(characters)
