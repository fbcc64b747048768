"""settings: what is set, and where each value came from."""

from __future__ import annotations

import typer

from replayctl.console.result import Result, Table
from replayctl.settings.context import AppContext


def show(ctx: typer.Context) -> Result:
    """Show every setting of the profile with its source."""
    from replayctl.settings.declared import SETTINGS, value_of

    app: AppContext = ctx.obj
    settings = app.settings
    values = {setting.key: value_of(settings, setting.key) for setting in SETTINGS}
    data = {
        "profile": settings.profile,
        "settings": {key: {"value": value, "source": settings.sources[key]} for key, value in values.items()},
    }
    rows = [
        (each.key, "-" if values[each.key] is None else str(values[each.key]), settings.sources[each.key], each.help)
        for each in SETTINGS
    ]
    table = Table(("setting", "value", "source", "what for"), rows, wrap=(1, 2, 3), title=f"profile {settings.profile}")
    return Result("settings show", data, (table,))


def profiles(ctx: typer.Context) -> Result:
    """List the profiles and where they are defined."""
    from replayctl.settings.load import list_profiles

    app: AppContext = ctx.obj
    active = app.settings.profile
    found = list_profiles(app.environ, app.cwd)
    rows = [("→" if name == active else "", name, where) for name, where in sorted(found.items())]
    table = Table(("", "profile", "defined in"), rows, wrap=(2,))
    return Result("settings profiles", {"active": active, "profiles": found}, (table,))
