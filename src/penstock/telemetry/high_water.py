"""Windowed maxima: what a gauge reached between two scrapes."""

from __future__ import annotations

from collections import deque
from typing import Final

#: A maximum reaches back this far, and one slot more: longer than the usual 15 s between scrapes.
WINDOW_S: Final = 15.0
SLOTS: Final = 5


class HighWater:
    """The highest value of about the last ``window_s`` seconds.

    Reading changes nothing, so several readers see the same.

    Args:
        window_s: How far it reaches back, in seconds of whatever clock it is told.

    Bounds: ``SLOTS + 1`` pairs of numbers.
    """

    __slots__ = ("_per_s", "_slots")

    def __init__(self, window_s: float = WINDOW_S) -> None:
        self._per_s = SLOTS / window_s
        self._slots: deque[tuple[int, float]] = deque(maxlen=SLOTS + 1)

    def observe(self, value: float, now_s: float) -> None:
        """Take in a value."""
        slot = int(now_s * self._per_s)
        if not self._slots or self._slots[-1][0] < slot:
            self._slots.append((slot, value))
        elif value > self._slots[-1][1]:
            self._slots[-1] = (self._slots[-1][0], value)

    def read(self, now_s: float) -> float:
        """Return the highest value seen in the window, 0 if none was."""
        oldest = int(now_s * self._per_s) - SLOTS
        return max((value for slot, value in self._slots if slot >= oldest), default=0)
