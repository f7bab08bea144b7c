"""Retries: a budget for their number, and the backoff before each."""

from __future__ import annotations

import math
from dataclasses import dataclass

from penstock.policies.bounds import at_least
from penstock.policies.bucket import TokenBucket


@dataclass(frozen=True, slots=True)
class RetrySettings:
    """Parameters of the retry budget and the backoff; times in seconds.

    Attributes:
        ratio: Retries earned by each first try.
        saved_max: Earned retries saved at most.
        per_s_min: Retries a second allowed besides, for those who ask rarely; 0 for none.
        backoff_s: Longest wait before the first retry.
        backoff_s_max: Longest wait before any.
    """

    ratio: float = 0.1
    saved_max: float = 10.0
    per_s_min: float = 1.0
    backoff_s: float = 0.05
    backoff_s_max: float = 5.0

    def __post_init__(self) -> None:
        at_least(self, 0.0, "ratio", "saved_max", "per_s_min", "backoff_s")
        at_least(self, self.backoff_s, "backoff_s_max")


class RetryBudget:
    """Keeps retries to a share of requests, so that they cannot multiply an overload.

    After Finagle's ``RetryBudget`` and *Site Reliability Engineering* (Google, 2016), ch. 21. In any
    ``T`` seconds with ``n`` first tries, at most ``ratio × n + saved_max + per_s_min × (T + 1)`` retries
    pass, one more if ``per_s_min`` lies between 0 and 1.

    Bounds: two numbers.
    """

    def __init__(self, settings: RetrySettings) -> None:
        self._settings = settings
        self._saved = 0.0
        rate = settings.per_s_min
        self._minimum = TokenBucket(rate, max(1.0, rate)) if rate > 0.0 else None

    def __repr__(self) -> str:
        return f"<RetryBudget {self._saved:.1f} saved>"

    def earn(self) -> None:
        """Count a first try."""
        self._saved = min(self._settings.saved_max, self._saved + self._settings.ratio)

    def spend(self, now_s: float, *, congested: bool = False) -> bool:
        """Take one retry if the budget holds it; never while congested.

        Args:
            now_s: On the loop's clock.
            congested: Whether the call's own queue is congested: a retry would only add to it.
        """
        if congested:
            return False
        # Ten times a tenth is less than one in floating point.
        if self._saved >= 1.0 - 1e-9:
            self._saved = max(0.0, self._saved - 1.0)
            return True
        return self._minimum is not None and self._minimum.take(now_s)


def backoff_s(attempt: int, draw: float, settings: RetrySettings) -> float:
    """Return the wait before a retry: full jitter (M. Brooker, AWS Architecture Blog, 2015).

    ``draw × min(backoff_s_max, backoff_s × 2^attempt)``.

    Args:
        attempt: 0 before the first retry.
        draw: A draw from [0, 1).
        settings: Base and cap.
    """
    return draw * min(settings.backoff_s_max, math.ldexp(settings.backoff_s, min(attempt, 64)))
