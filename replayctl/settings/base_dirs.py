"""The user's folders by the XDG base directory specification, on macOS too: its own folders have spaces in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from platformdirs.unix import Unix


def base_dirs() -> Unix:
    """Where configuration, state and caches of this user lie; nothing is made."""
    from platformdirs.unix import Unix

    return Unix("replayctl", appauthor=False)
