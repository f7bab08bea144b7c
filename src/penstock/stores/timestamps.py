"""Times in metadata and in ranges: read leniently, kept in one form that sorts and compares."""

from __future__ import annotations

import datetime as dt
from typing import Final

#: No date-time is longer; longer strings are not even tried.
_CHARACTERS_MAX: Final = 40


def to_utc_rfc3339(text: str) -> str | None:
    """Return a date or date-time as RFC 3339 in UTC, ``None`` when the text is neither.

    Without an offset it counts as UTC, without a time as midnight.
    """
    if len(text) > _CHARACTERS_MAX or text[4:5] != "-":
        return None
    try:
        when = dt.datetime.fromisoformat(text.upper())
        if when.tzinfo is None:
            when = when.replace(tzinfo=dt.UTC)
        return when.astimezone(dt.UTC).isoformat()
    except (ValueError, OverflowError):
        return None
