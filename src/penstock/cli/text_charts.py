"""Figures, durations, bars and curves in few signs. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice
from typing import Final

#: What a terminal without Unicode shows instead, sign by sign.
ASCII_FALLBACK: Final = str.maketrans("█▉▊▋▌▍▎▏░▁▂▃▄▅▆▇–…", "###===--.__--==#-~")

#: What is shown where nothing is known.
UNKNOWN: Final = "–"
_STEPS: Final = "▁▂▃▄▅▆▇█"
_PARTS: Final = ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")


def compact(value: float | None) -> str:
    """Return a figure in four signs: ``0``, ``3.4``, ``345``, ``12k``, ``1.2M``; ``–`` where nothing is known."""
    if value is None:
        return UNKNOWN
    units = iter("kMG")
    unit = ""
    while value >= 999.5 and unit != "G":
        value, unit = value / 1000, next(units)
    return (f"{value:.1f}" if value < 9.95 else f"{value:.0f}").removesuffix(".0") + unit


def format_duration(seconds: float | None) -> str:
    """Return ``1h02m``, ``2m05s`` or ``7s``; ``–`` where nothing is known."""
    if seconds is None:
        return UNKNOWN
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 60}m{whole % 60:02}s" if whole >= 60 else f"{whole}s"


def percent(share: float | None) -> str:
    """Return a share of 0 to 1 as ``87%``."""
    return UNKNOWN if share is None else f"{share:.0%}"


def megabytes(count: float) -> str:
    """Return bytes as ``12 MB`` or ``1.2 GB``."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.0f} MB"


def capped(text: str, width: int) -> str:
    """Return the text, its end cut where it is too wide."""
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"


def bar(value: float, limit: float, width: int) -> str:
    """Return a bar in eighths of a sign; anything above nothing shows, and only what is full looks full."""
    share = min(1.0, max(0.0, value / limit)) if limit > 0 else 0.0
    eighths = share * width * 8
    whole, rest = divmod(math.floor(eighths) if share > 0.5 else math.ceil(eighths), 8)
    return ("█" * whole + _PARTS[rest]).ljust(width, "░")


def sparkline(values: Sequence[float | None], width: int) -> str:
    """Return the last values as a curve from 0 to their greatest; a gap where nothing is known."""
    last = list(islice(values, max(0, len(values) - width), None))
    most = max((value for value in last if value is not None), default=0.0)
    return "".join(" " if value is None else _STEPS[_step(value, most)] for value in last)


def _step(value: float, most: float) -> int:
    return max(0, math.ceil(value / most * len(_STEPS)) - 1) if most > 0 else 0
