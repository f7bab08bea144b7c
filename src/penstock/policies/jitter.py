"""Jitter: clients that were refused together must not come back together."""

from __future__ import annotations

import math
from collections.abc import Callable

#: Draws evenly from [0, 1); ``random.random`` in the server, a seeded one in tests.
Rng = Callable[[], float]

RETRY_SPREAD_S_MIN = 2.0
RETRY_AFTER_S_MAX = 3600


def with_jitter(seconds: float, fraction: float, draw: float) -> float:
    """Return ``seconds`` lengthened by up to ``fraction`` of itself; never shortened.

    Args:
        seconds: The time without jitter.
        fraction: How much longer it may become, 0.2 for a fifth.
        draw: A draw from [0, 1).
    """
    return seconds * (1.0 + fraction * draw)


def jittered_retry_after_s(seconds: float, draw: float) -> int:
    """Return the whole seconds for a ``Retry-After`` header (RFC 9110 §10.2.3), jittered.

    The field knows whole seconds only, so jitter in proportion would round away for short waits and
    a crowd would return within one second. The spread is half the wait and at least two seconds:
    ``ceil(seconds + draw × max(2, seconds / 2))``.

    Args:
        seconds: When another try makes sense; negative counts as 0, NaN as an hour.
        draw: A draw from [0, 1).

    Bounds: 1 to 3600.
    """
    wait_s = max(0.0, seconds) if seconds <= RETRY_AFTER_S_MAX else RETRY_AFTER_S_MAX
    spread_s = max(RETRY_SPREAD_S_MIN, wait_s / 2.0)
    return min(RETRY_AFTER_S_MAX, max(1, math.ceil(wait_s + draw * spread_s)))
