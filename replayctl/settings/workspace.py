"""Where a deploy works: the one context that deploys, rollbacks, removals and uploads hand down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from replayctl.console.events import Reporter
    from replayctl.settings.declared import Settings
    from replayctl.settings.namespace import Namespace


@dataclass(frozen=True, slots=True)
class Workspace:
    """The profile's settings, the namespace to work in, and the reporter of progress."""

    settings: Settings
    namespace: Namespace
    reporter: Reporter
