"""The user's folders by the XDG base directory specification, also on macOS, whose own folders contain spaces."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from platformdirs.unix import Unix


def base_dirs() -> Unix:
    """The folders of this user's configuration, state and cache; creates nothing."""
    from platformdirs.unix import Unix

    return Unix("replayctl", appauthor=False)
