"""Times and durations for people; programs get ISO 8601 and seconds."""

from __future__ import annotations

import datetime

_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def short_moment(moment: datetime.datetime, *, now: datetime.datetime | None = None) -> str:
    """Local time, 12 characters: `Nov 25 19:02`, and `Nov 25  2025` for another year, as ls writes it."""
    local = moment.astimezone()
    year = (now or datetime.datetime.now(tz=datetime.UTC)).astimezone().year
    return local.strftime("%b %e %H:%M" if local.year == year else "%b %e  %Y")


def short_duration(seconds: float) -> str:
    """The two largest units: `4.2s`, `42s`, `11m 49s`, `3h 05m`, `2d 04h`."""
    seconds = max(0.0, seconds)
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole}s"
    if whole < _HOUR:
        return f"{whole // _MINUTE}m {whole % _MINUTE:02d}s"
    if whole < _DAY:
        return f"{whole // _HOUR}h {whole % _HOUR // _MINUTE:02d}m"
    return f"{whole // _DAY}d {whole % _DAY // _HOUR:02d}h"


def duration(seconds: float | None) -> datetime.timedelta | None:
    """Seconds as a table cell."""
    return None if seconds is None else datetime.timedelta(seconds=seconds)


def moment(text: object) -> datetime.datetime | str | None:
    """An ISO 8601 time as a table cell; other text is returned unchanged, and so is a time that no clock shows."""
    if not isinstance(text, str) or not text:
        return None
    try:
        parsed = datetime.datetime.fromisoformat(text)
        # Whoever may write to a shared folder chooses the text; the year 1 has no local time everywhere.
        parsed.astimezone()
    except (ValueError, OverflowError, OSError):
        return text
    return parsed
