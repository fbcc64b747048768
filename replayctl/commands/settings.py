"""settings: the values in use and their sources."""

from __future__ import annotations

import typer

from replayctl.console.result import Result, Table
from replayctl.settings.context import AppContext


def show(ctx: typer.Context) -> Result:
    """Show every setting of the profile with its value and source.

    \b
    Examples:
      replayctl settings show
      replayctl --profile bdcl settings show
    """
    from replayctl.settings.declared import SETTINGS, value_of

    app: AppContext = ctx.obj
    settings = app.settings
    values = {setting.key: value_of(settings, setting.key) for setting in SETTINGS}
    data = {
        "profile": settings.profile,
        "settings": {key: {"value": value, "source": settings.sources[key]} for key, value in values.items()},
    }
    rows = [
        (setting.key, _shown(values[setting.key]), settings.sources[setting.key], setting.help) for setting in SETTINGS
    ]
    table = Table(
        ("setting", "value", "source", "description"),
        rows,
        title=f"profile {settings.profile}",
        wrap=(1, 2, 3),
        own=(0, 3),
    )
    return Result("settings show", data, (table,))


def profiles(ctx: typer.Context) -> Result:
    """List the profiles and the files that define them.

    \b
    Examples:
      replayctl settings profiles
      replayctl settings profiles --output json
    """
    from replayctl.settings.load import list_profiles

    app: AppContext = ctx.obj
    active = app.settings.profile
    definitions = list_profiles(app.environ, app.cwd)
    rows = [("→" if name == active else "", name, where) for name, where in sorted(definitions.items())]
    table = Table(("", "profile", "defined in"), rows, wrap=(2,))
    return Result("settings profiles", {"active": active, "profiles": definitions}, (table,))


def _shown(value: object) -> str:
    return "-" if value is None else str(value)
