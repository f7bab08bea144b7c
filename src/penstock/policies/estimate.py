"""Estimates of service time, online: median, tail and mean for each kind of work, and when many parts will end."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from penstock.policies.bounds import at_least

#: Parts that must be done before the pace means anything: the first ones start together and end together.
PARTS_MIN: Final = 32
#: A deadline is given up only if the forecast misses it by this factor: an early pace is rough.
MISS_FACTOR: Final = 1.25


class CompletionForecast:
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
        return f"<CompletionForecast {self._done:g} of {self._total:g} in {self.parts} parts>"

    def observe(self, units: float) -> None:
        """Take in that one more part, of so many units, is done."""
        self._done += units
        self.parts += 1

    def remaining_s(self, now_s: float) -> float:
        """Return the seconds that the rest will take at the pace so far; 0 while too little is done."""
        if self.parts < PARTS_MIN:
            return 0.0
        return (now_s - self._began_s) / self._done * max(0.0, self._total - self._done)

    def misses_deadline(self, deadline_s: float, now_s: float) -> bool:
        """Return whether the rest will most likely not be done by the deadline."""
        return self.remaining_s(now_s) > MISS_FACTOR * (deadline_s - now_s)


#: Buckets grow by a tenth: relative error of a quantile at most (γ - 1) / (γ + 1) = 4.8 %.
_GROWTH = 1.1
_LOG_GROWTH = math.log(_GROWTH)
_SHORTEST_S = 1e-5
_LONGEST_S = 1e3
_BUCKETS = 1 + math.ceil(math.log(_LONGEST_S / _SHORTEST_S) / _LOG_GROWTH)
#: The newest sample's weight at which all weights are scaled down again.
_WEIGHT_MAX = 1e9


@dataclass(frozen=True, slots=True)
class EstimateSettings:
    """Learning parameters of a service-time estimate.

    Attributes:
        prior_s: The estimate before there are enough samples, in seconds.
        samples_min: Samples before the prior gives way.
        memory_samples: A sample's weight falls to 1/e after so many more.
        clip: The mean takes a sample as at most so many times the 90th percentile.
    """

    prior_s: float = 0.05
    samples_min: int = 16
    memory_samples: float = 100.0
    clip: float = 8.0

    def __post_init__(self) -> None:
        at_least(self, _SHORTEST_S, "prior_s")
        at_least(self, 1, "samples_min", "clip")
        at_least(self, 2, "memory_samples")


class _QuantileCursor:
    """Walks along the buckets, so that a quantile is at hand without a scan."""

    __slots__ = ("below", "bucket", "share")

    def __init__(self, share: float) -> None:
        self.share = share
        self.bucket = 0
        self.below = 0.0

    def seek(self, weights: list[float], total: float) -> None:
        """Walk to the first bucket up to which at least ``share`` of the weight lies."""
        goal = self.share * total
        while self.bucket > 0 and self.below >= goal:
            self.bucket -= 1
            self.below -= weights[self.bucket]
        while self.bucket < _BUCKETS - 1 and self.below + weights[self.bucket] < goal:
            self.below += weights[self.bucket]
            self.bucket += 1


class Estimate:
    """Service time of one kind of work.

    A histogram with logarithmic buckets (DDSketch, Masson et al., VLDB 2019) from 10 µs to 1000 s;
    values beyond go into the outermost ones. Old samples fade by forward decay (Cormode et al., ICDE
    2009), counted in samples, not in seconds: an idle night forgets nothing, and after it one odd
    sample weighs no more than ever. A single outlier has a hundredth of the weight (of the first 16 samples,
    a fifteenth), so it cannot be the 90th percentile, and moves the mean by ``clip × p90 / 100`` at most.

    Feed it also calls that were cut off at their deadline, as the time they took; leaving them out
    would make a slow kind look fast.

    Bounds: 195 numbers; O(1) amortised for each sample.

    Attributes:
        samples: Samples so far.
        ready: Whether there are enough of them; until then every answer is the prior.
    """

    def __init__(self, settings: EstimateSettings) -> None:
        self._settings = settings
        self._weights = [0.0] * _BUCKETS
        self._total = 0.0
        self._sum = 0.0
        self._weight = 1.0
        self._decay = math.exp(1.0 / settings.memory_samples)
        self._median = _QuantileCursor(0.5)
        self._tail = _QuantileCursor(0.9)
        self.samples = 0
        self.ready = False

    def __repr__(self) -> str:
        return f"<Estimate p50 {self.p50_s * 1000:.1f}ms p90 {self.p90_s * 1000:.1f}ms of {self.samples}>"

    @property
    def p50_s(self) -> float:
        """The median in seconds."""
        return _VALUES[self._median.bucket] if self.ready else self._settings.prior_s

    @property
    def p90_s(self) -> float:
        """The 90th percentile in seconds."""
        return _VALUES[self._tail.bucket] if self.ready else self._settings.prior_s

    @property
    def mean_s(self) -> float:
        """The mean in seconds, outliers clipped: what a queued message is expected to cost."""
        return self._sum / self._total if self.ready else self._settings.prior_s

    def observe(self, seconds: float) -> None:
        """Take in how long one call took; negative or NaN counts as the shortest."""
        taken_s = min(max(seconds, _SHORTEST_S), _LONGEST_S) if seconds >= 0.0 else _SHORTEST_S
        bucket = _bucket(taken_s)
        # The clip is for the mean; the histogram takes the sample as it is.
        if self.ready:
            taken_s = min(taken_s, self._settings.clip * _VALUES[self._tail.bucket])
        self._weight *= self._decay
        self._weights[bucket] += self._weight
        self._total += self._weight
        self._sum += self._weight * taken_s
        self.samples += 1
        self.ready = self.samples >= self._settings.samples_min
        if self._weight > _WEIGHT_MAX:
            self._rescale()
        else:
            for quantile in (self._median, self._tail):
                # `below` is the weight under the cursor; it is kept true without a scan.
                if bucket < quantile.bucket:
                    quantile.below += self._weight
        self._median.seek(self._weights, self._total)
        self._tail.seek(self._weights, self._total)

    def _rescale(self) -> None:
        """Scale all weights down and recompute their sum: no overflow, no drift."""
        factor = 1.0 / self._weight
        self._weights = [weight * factor for weight in self._weights]
        self._total = math.fsum(self._weights)
        self._sum *= factor
        self._weight = 1.0
        for quantile in (self._median, self._tail):
            quantile.below = math.fsum(self._weights[: quantile.bucket])


class Estimates:
    """Estimates of service time, one for each kind of work.

    Args:
        settings: For each of them.
        kinds_max: Kinds beyond share one estimate.

    Bounds: ``kinds_max + 1`` estimates.
    """

    def __init__(self, settings: EstimateSettings, kinds_max: int = 64) -> None:
        self._settings = settings
        self._kinds_max = kinds_max
        self._of: dict[str, Estimate] = {}
        self._shared = Estimate(settings)

    def of(self, kind: str) -> Estimate:
        """Return the estimate of ``kind``, a new one the first time."""
        estimate = self._of.get(kind)
        if estimate is None:
            if len(self._of) >= self._kinds_max:
                return self._shared
            estimate = self._of[kind] = Estimate(self._settings)
        return estimate


def _bucket(seconds: float) -> int:
    return math.ceil(math.log(seconds / _SHORTEST_S) / _LOG_GROWTH)


#: For each bucket ``(γ^(i-1), γ^i]`` the value whose relative error is least: ``2 γ^i / (γ + 1)``.
_VALUES = [_SHORTEST_S * 2.0 * math.pow(_GROWTH, bucket) / (_GROWTH + 1.0) for bucket in range(_BUCKETS)]
