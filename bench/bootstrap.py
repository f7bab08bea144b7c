"""Bootstrap intervals of means, and of paired differences of means (Efron and Tibshirani 1993, percentile method)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

RESAMPLES: Final = 10_000
#: Share of the resamples inside the interval.
CONFIDENCE: Final = 0.95
_SEED: Final = 1


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and the bounds of its interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.4f} ({self.low:.4f} to {self.high:.4f})"


def interval(values: Sequence[float]) -> Interval:
    """Return a mean with its interval, always the same for the same values.

    For a paired difference give the differences.

    Args:
        values: One for each query, at least one.
    """
    given = np.asarray(values, np.float64)
    chance = np.random.default_rng(_SEED)
    # Sums of resamples are sums of values times how often each was drawn: no [resamples, values] array of draws.
    draws = chance.multinomial(len(given), np.full(len(given), 1 / len(given)), size=RESAMPLES)
    means = draws @ given / len(given)
    low, high = np.quantile(means, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    return Interval(float(given.mean()), float(low), float(high))
