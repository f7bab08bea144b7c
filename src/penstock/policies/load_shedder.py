"""Load shedder: how many requests an event loop carries at once, found by how long requests wait for it.

Queues are bounded elsewhere. What no queue sees is the loop itself: above what it can carry, requests wait in the
kernel until they are read, and then for their turn at each step. Their callers give up while all queues look empty.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from penstock.policies.bounds import at_least, within


@dataclass(frozen=True, slots=True)
class ShedderSettings:
    """Parameters of a load shedder; times in seconds.

    Attributes:
        target: Mean wait of requests for the loop above which the limit falls, as a share of their time limits.
        patience_s: Time limit of a request that names none.
        limit_s_min: A shorter time limit counts as this one: who hurries must not make others wait.
        window_s: Least time between two steps; after a step down twice the mean wait where that is longer,
            since it shows only in requests that come after it.
        samples_min: Least requests between two steps.
        calm_s: So long after the last step down the limit is lifted, once less than half of it is used.
        floor: The least limit.
        ceiling: The greatest. There is no limit to speak of while it stands there.
        decrease: Factor of a step down.
        increase: Share of the limit that a step up adds, one request at least.
        newcomers: Room beyond the limit for clients without a request in flight, as a share of it.
    """

    target: float = 0.025
    patience_s: float = 10.0
    limit_s_min: float = 1.0
    window_s: float = 0.05
    samples_min: int = 10
    calm_s: float = 5.0
    floor: int = 8
    ceiling: int = 1000
    decrease: float = 0.8
    increase: float = 0.05
    newcomers: float = 0.25

    def __post_init__(self) -> None:
        at_least(self, 0.0001, "target", "patience_s", "limit_s_min", "window_s", "increase")
        at_least(self, 0.0, "newcomers", "calm_s")
        at_least(self, 1, "floor", "samples_min")
        at_least(self, self.floor, "ceiling")
        within(self, 0.1, 0.99, "decrease")


class LoadShedder:
    """Limit on the requests in flight: additive increase, multiplicative decrease by the mean wait for the loop.

    It falls as well while the work behind is exhausted: everything cheaper has been tried, and some of what is admitted
    still ends in vain.
    A step down begins at what was in flight, if that is less than the limit. The limit rises while it is used.
    A client has its even share of the limit among those that have requests in flight. One that has none finds room
    beyond the limit, so that those who send most do not shut out the others.

    Args:
        settings: Its parameters.
        exhausted: Whether the work behind is; asked at each step.

    Bounds: a handful of numbers, and one for each client with requests in flight.

    Attributes:
        in_flight: Requests admitted and not ended.
    """

    __slots__ = (
        "_by_client",
        "_count",
        "_exhausted",
        "_fell_at_s",
        "_limit",
        "_peak",
        "_settings",
        "_shares",
        "_sum_s",
        "_until_s",
        "in_flight",
    )

    def __init__(self, settings: ShedderSettings | None = None, exhausted: Callable[[], bool] = lambda: False) -> None:
        self._settings = settings or ShedderSettings()
        self._exhausted = exhausted
        self._limit = float(self._settings.ceiling)
        self._by_client: dict[str, int] = {}
        self._sum_s = 0.0
        self._shares = 0.0
        self._count = 0
        self._peak = 0
        self._until_s = self._fell_at_s = -math.inf
        self.in_flight = 0

    def __repr__(self) -> str:
        return f"<LoadShedder {self.in_flight}/{self.limit}>"

    @property
    def limit(self) -> int:
        """Requests that may be in flight."""
        return int(self._limit)

    @property
    def full(self) -> bool:
        """True while no request at all is admitted."""
        settings = self._settings
        return self.in_flight >= self._limit * (1.0 + settings.newcomers) and self._limit < settings.ceiling

    def observe(self, wait_s: float, now_s: float, limit_s: float = 0.0) -> None:
        """Take in how long a request has waited for the loop, admitted or not.

        Args:
            wait_s: From its arrival in the kernel to the moment it is looked at.
            now_s: On the loop's clock.
            limit_s: How long its caller waits for the answer; 0 where it does not say.
        """
        self._sum_s += wait_s
        self._shares += wait_s / max(limit_s or self._settings.patience_s, self._settings.limit_s_min)
        self._count += 1
        self._peak = max(self._peak, self.in_flight)
        if now_s >= self._until_s and self._count >= self._settings.samples_min:
            self._step(now_s)

    def _step(self, now_s: float) -> None:
        """Move the limit by a window's mean wait, and begin the next."""
        settings, count = self._settings, self._count
        self._until_s = now_s + settings.window_s
        if self._shares > settings.target * count or self._exhausted():
            self._limit = max(float(settings.floor), min(self._limit, self._peak) * settings.decrease)
            self._fell_at_s = now_s
            self._until_s = now_s + max(settings.window_s, 2.0 * self._sum_s / count)
        elif now_s - self._fell_at_s >= settings.calm_s and 2 * self._peak < self._limit:
            self._limit = float(settings.ceiling)
        elif self._peak + 1 >= self._limit:
            self._limit = min(float(settings.ceiling), self._limit + max(1.0, self._limit * settings.increase))
        self._sum_s = self._shares = 0.0
        self._count, self._peak = 0, self.in_flight

    def admits(self, client: str) -> bool:
        """Return whether a client's request may be begun."""
        if self._limit >= self._settings.ceiling:
            return True
        own = self._by_client.get(client, 0)
        if not own:
            return not self.full
        return self.in_flight < self._limit and own < max(1, self.limit // len(self._by_client))

    def begin(self, client: str) -> None:
        """Count an admitted request."""
        self.in_flight += 1
        self._by_client[client] = self._by_client.get(client, 0) + 1

    def end(self, client: str) -> None:
        """Count a request no more."""
        self.in_flight -= 1
        left = self._by_client[client] - 1
        if left:
            self._by_client[client] = left
        else:
            del self._by_client[client]
