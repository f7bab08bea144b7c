"""When a client that was refused tries again. Pure."""

from __future__ import annotations

import random


def back_off_s(tries: int, base_s: float, retry_after_s: float, chance: random.Random) -> float:
    """Return the wait before the next attempt: full jitter over a doubling range, or what the server asked for.

    Args:
        tries: Attempts so far beyond the first.
        base_s: The first range.
        retry_after_s: The server's ``Retry-After``; 0 for none. Up to half of it is added, as jitter.
        chance: Where the jitter comes from.
    """
    if retry_after_s > 0:
        return retry_after_s * chance.uniform(1.0, 1.5)
    return chance.uniform(0.0, base_s * 2.0**tries)
