"""Finds what is shipped beside the code: folders, which are inside the package or at the top of a checkout, and uv."""

from __future__ import annotations

import shutil
import sys
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


def uv_program() -> str:
    """The path of uv, which is installed with replayctl; raises NotFound when it is gone."""
    beside = Path(sys.executable).with_name("uv")
    program = str(beside) if beside.is_file() else shutil.which("uv")
    if program is None:
        raise NotFound("cannot find the program uv", hint="run `pip install uv`, or install replayctl again")
    return program
