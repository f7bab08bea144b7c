"""Policy for returning freed memory to the operating system: a pure state machine; time is passed in.

The memory that it takes up does not tell how much of it is free: what an allocator keeps counts as taken. Two things
hint at free memory: the process has worked, or it takes up more than it once could do with.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from penstock.policies.bounds import at_least


@dataclass(frozen=True, slots=True)
class ReclaimSettings:
    """Intervals and thresholds for returning memory to the system.

    Attributes:
        every_s: Seconds between two times while the process works; after its end it happens once more.
        urgent_s: The same while memory is short.
        worked_s: Processor time from which on a process counts as having worked; to watch itself takes 10 ms a second.
        growth: Times the floor from which on a process counts as having grown. After each time that memory was given
            back, the floor rises so much as well, up to what is taken up: memory in use is not tried for ever.
    """

    every_s: float = 10.0
    urgent_s: float = 5.0
    worked_s: float = 0.25
    growth: float = 1.1

    def __post_init__(self) -> None:
        at_least(self, 0.0, "every_s", "urgent_s", "worked_s")
        at_least(self, 1.01, "growth")


class ReclaimPolicy:
    """Decides when memory is returned to the system.

    Bounds: four numbers.
    """

    __slots__ = ("_at_s", "_cpu_s", "_floor", "_settings", "_tried")

    def __init__(self, settings: ReclaimSettings | None = None) -> None:
        self._settings = settings or ReclaimSettings()
        self._at_s = -math.inf
        self._cpu_s = 0.0
        self._floor = math.inf
        self._tried = False

    def due(self, used: float, cpu_s: float, now_s: float, *, short: bool = False) -> bool:
        """Return whether memory is to be given back now; the caller does so.

        Args:
            used: Memory that the process takes up, in bytes; 0 where that is not known.
            cpu_s: Processor time that the process has used so far.
            now_s: The time, of any clock that only rises.
            short: Whether memory is short: then it happens whether the process has worked or not.
        """
        settings = self._settings
        if self._tried:
            self._tried = False
            self._floor *= settings.growth
        self._floor = min(self._floor, used)
        waited_s = now_s - self._at_s
        hinted = cpu_s - self._cpu_s >= settings.worked_s or used > settings.growth * self._floor
        if not (waited_s >= settings.every_s and hinted) and not (short and waited_s >= settings.urgent_s):
            return False
        self._at_s = now_s
        self._cpu_s = cpu_s
        self._tried = True
        return True
