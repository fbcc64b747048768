"""What every command receives: the profile's settings, read on first use, and the reporter."""

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
    from replayctl.settings.workspace import Workspace


def _working_folder() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError:
        # The folder was removed. Its name still serves messages, and no file can be found in it.
        return Path(os.environ.get("PWD") or "/")


@dataclass(eq=False, repr=False)
class AppContext:
    """One invocation of the program."""

    profile: str | None
    reporter: Reporter
    # Shows a part of the answer at once, for commands that keep running; in JSON each part is one line.
    announce: Callable[[Result], None]
    # Shows a part of the answer ahead of a log; in JSON there is one document, at the end.
    show_first: Callable[[Sequence[Block]], None]
    # Shows bytes of a log as they arrive; with True unchanged, including control characters.
    write_log: Callable[[bytes, bool], None]
    # Asks at the terminal; raises when the answer is no or when there is no terminal.
    confirm: Callable[[str], None]
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    cwd: Path = field(default_factory=_working_folder)

    @cached_property
    def settings(self) -> Settings:
        """The profile's settings; SettingsError when something in them is wrong."""
        # Imported here because help and version do not need it.
        from replayctl.settings.load import load_settings

        return load_settings(self.profile, environ=self.environ, cwd=self.cwd)

    def workspace(self, *, shared: bool = False) -> Workspace:
        """The user's workspace, or with `shared` the common one; UsageProblem for a missing or invalid user name."""
        from replayctl.settings.namespace import find_namespace
        from replayctl.settings.workspace import Workspace

        return Workspace(self.settings, find_namespace(self.settings, shared=shared), self.reporter)
