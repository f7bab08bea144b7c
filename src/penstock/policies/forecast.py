"""Forecast of the end of a job that is worked off part by part (pure; the time is passed in)."""

from __future__ import annotations

from typing import Final

#: Parts that must be done before the pace means anything: the first ones start together and end together.
PARTS_MIN: Final = 32
#: A deadline is given up only if the forecast misses it by this factor: an early pace is rough.
DOUBT: Final = 1.25


class Forecast:
    """Expected end of a job, from the pace of what is done.

    Args:
        total: Units of the whole job, for instance tokens.
        began_s: When it began.

    Bounds: four numbers.

    Attributes:
        parts: How many parts are done.
    """

    __slots__ = ("_began_s", "_done", "_total", "parts")

    def __init__(self, total: float, began_s: float) -> None:
        self._total = total
        self._began_s = began_s
        self._done = 0.0
        self.parts = 0

    def __repr__(self) -> str:
        return f"<Forecast {self._done:g} of {self._total:g} in {self.parts} parts>"

    def note(self, units: float) -> None:
        """Take in that one more part, of so many units, is done."""
        self._done += units
        self.parts += 1

    def left_s(self, now_s: float) -> float:
        """Return the seconds that the rest will take at the pace so far; 0 while too little is done."""
        if self.parts < PARTS_MIN:
            return 0.0
        return (now_s - self._began_s) / self._done * max(0.0, self._total - self._done)

    def misses(self, deadline_s: float, now_s: float) -> bool:
        """Return whether the rest will most likely not be done by the deadline."""
        return self.left_s(now_s) > DOUBT * (deadline_s - now_s)
