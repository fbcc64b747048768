"""Finds the folders that are shipped beside the code: inside the package when installed, at the top in a checkout."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from replayctl.errors import NotFound


def shipped_dir(name: Literal["dags", "docker"]) -> Path:
    """The folder of that name; raises NotFound when the installation does not have it."""
    package = Path(__file__).parent
    for candidate in (package / "shipped" / name, package.parent / name):
        if candidate.is_dir():
            return candidate
    raise NotFound(f"cannot find the folder {name}/ in this installation of replayctl", hint="reinstall replayctl")
