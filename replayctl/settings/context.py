"""What a command gets: the chosen profile's settings, read when first asked for, and somebody to report to."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from replayctl.console.events import Reporter
    from replayctl.console.result import Block, Result
    from replayctl.settings.declared import Settings


def _working_folder() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError:
        # Removed under our feet: what it was called is still good for messages, and no file is found in it.
        return Path(os.environ.get("PWD") or "/")


@dataclass
class AppContext:
    """One call of the program."""

    profile: str | None
    reporter: Reporter
    # Shows a part of the answer at once, for commands that go on; with JSON each such part is one line.
    announce: Callable[[Result], None]
    # Shows people a part of the answer ahead of a log; with JSON there is one document, at the end.
    show_first: Callable[[Sequence[Block]], None]
    # Shows bytes of a log as they come; with True as they are, control characters too.
    write_log: Callable[[bytes, bool], None]
    # Asks at the terminal, and raises when the answer is no or nobody can be asked.
    confirm: Callable[[str], None]
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    cwd: Path = field(default_factory=_working_folder)

    @cached_property
    def settings(self) -> Settings:
        """The profile's settings; SettingsError when something in them is wrong."""
        # Here, since help and version need none of it.
        from replayctl.settings.load import load_settings

        return load_settings(self.profile, environ=self.environ, cwd=self.cwd)
