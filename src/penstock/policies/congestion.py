"""Congestion detector for a queue: a burst that drains is no congestion, a standing queue is.

The idea is CoDel's (Nichols and Jacobson, RFC 8289): look at the *minimum* wait over a window. The
target follows the service time instead of CoDel's 5 ms: behind a model call of 100 ms, a wait of 20 ms
is no congestion.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from penstock.policies.bounds import at_least, within


@dataclass(frozen=True, slots=True)
class CongestionSettings:
    """Thresholds of congestion; times in seconds.

    Attributes:
        target_s_min: The least target for the minimum wait.
        target_services: The target, in typical service times.
        window_s_min: The least window.
        window_services: The window, in typical service times: long enough to see each permit pop.
        window_s_max: The longest window.
        clear_share: Congestion ends when the wait falls to this share of the target.
    """

    target_s_min: float = 0.005
    target_services: float = 2.0
    window_s_min: float = 0.1
    window_services: float = 2.0
    window_s_max: float = 1.0
    clear_share: float = 0.5

    def __post_init__(self) -> None:
        at_least(self, 0.0, "target_services", "window_services")
        at_least(self, 0.0001, "target_s_min", "window_s_min")
        at_least(self, self.window_s_min, "window_s_max")
        within(self, 0.0, 1.0, "clear_share")


class Congestion:
    """Congestion detector of one queue.

    The minimum over a window lies above the target exactly if every wait in it does. So the moment
    since when none was below replaces the window: O(1), and exact.

    Feed it the age of the **oldest** message waiting, at each push and pop, and 0 when the queue is
    empty. First in first out, that is the wait of the message served. Newest first, the wait of the
    message served is near 0 however long the queue has stood, and would end the congestion that
    caused newest first: the two would alternate. An age also tells of the past (the oldest was
    at least so old in between), so rare observations suffice.

    Bounds: a handful of numbers.
    """

    __slots__ = ("_above_since_s", "_calm_at_s", "_settings", "congested", "target_s", "window_s")

    def __init__(self, settings: CongestionSettings) -> None:
        self._settings = settings
        self._calm_at_s = -math.inf
        self._above_since_s = math.inf
        self.congested = False
        self.target_s = settings.target_s_min
        self.window_s = settings.window_s_min

    def __repr__(self) -> str:
        word = "congested" if self.congested else "clear"
        return f"<Congestion {word} target {self.target_s * 1000:.0f}ms window {self.window_s * 1000:.0f}ms>"

    def retarget(self, service_s: float) -> None:
        """Derive target and window from the median service time: ``max(5 ms, 2 × p50)``, ``100 ms … 1 s``."""
        settings = self._settings
        self.target_s = max(settings.target_s_min, settings.target_services * service_s)
        window_s = max(settings.window_s_min, settings.window_services * service_s)
        self.window_s = min(settings.window_s_max, window_s)

    def observe(self, wait_s: float, now_s: float) -> bool:
        """Take in the age of the oldest message; return whether the verdict changed."""
        bar_s = self.target_s * self._settings.clear_share if self.congested else self.target_s
        if wait_s <= bar_s:
            self._calm_at_s, self._above_since_s = now_s, math.inf
            changed, self.congested = self.congested, False
            return changed
        if self.congested:
            return False
        # The oldest passed the target at that moment, observed or not; but not before the last calm observation.
        since_s = min(self._above_since_s, now_s - (wait_s - self.target_s))
        self._above_since_s = max(self._calm_at_s, since_s)
        self.congested = now_s - self._above_since_s >= self.window_s
        return self.congested
