"""When a process gives memory back that it has freed: a pure state machine; time is passed in.

The memory in use does not tell: what an allocator keeps counts as in use. What tells is whether the process has
worked: only then can it have freed something.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from penstock.policies.bounds import at_least


@dataclass(frozen=True, slots=True)
class ReclaimSettings:
    """How often memory is given back.

    Attributes:
        every_s: Seconds between two times while the process works; after its end it happens once more.
        urgent_s: The same while memory is short.
        worked_s: Processor time from which on a process counts as having worked; to watch itself takes 10 ms a second.
    """

    every_s: float = 10.0
    urgent_s: float = 5.0
    worked_s: float = 0.25

    def __post_init__(self) -> None:
        at_least(self, 0.0, "every_s", "urgent_s", "worked_s")


class Reclaim:
    """Decides when memory is given back.

    Args:
        settings: How often.

    Bounds: two numbers.
    """

    __slots__ = ("_at_s", "_cpu_s", "_settings")

    def __init__(self, settings: ReclaimSettings | None = None) -> None:
        self._settings = settings or ReclaimSettings()
        self._at_s = -math.inf
        self._cpu_s = 0.0

    def due(self, cpu_s: float, now_s: float, *, short: bool = False) -> bool:
        """Return whether memory is to be given back now; the caller does so.

        Args:
            cpu_s: Processor time that the process has used so far.
            now_s: The time, of any clock that only rises.
            short: Whether memory is short: then it happens whether the process has worked or not.
        """
        settings = self._settings
        waited_s = now_s - self._at_s
        worked = cpu_s - self._cpu_s >= settings.worked_s
        if not (waited_s >= settings.every_s and worked) and not (short and waited_s >= settings.urgent_s):
            return False
        self._at_s = now_s
        self._cpu_s = cpu_s
        return True
