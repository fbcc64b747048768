"""The lines of a target's audit log."""

from __future__ import annotations

import datetime
import json

from replayctl.storage import lock


def audit_line(action: str, **more: object) -> str:
    """One line of JSON: the action, when (UTC), by whom and from which host."""
    who = lock.whoami()
    at = datetime.datetime.now(tz=datetime.UTC).isoformat(timespec="seconds")
    return json.dumps({"action": action, "at": at, "user": who["user"], "host": who["host"], **more})
