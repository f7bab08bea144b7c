"""Adaptive concurrency limit toward a remote dependency: how many calls may be out at once.

The algorithm only; enforcing it is the caller's. Not for local pools: there a permit is a core, and
the number is known.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Final

from penstock.policies.bounds import at_least, within

#: Kinds of calls whose latency is learnt each for itself; those beyond share one baseline.
KINDS_MAX: Final = 8


@dataclass(frozen=True, slots=True)
class LimitSettings:
    """Parameters of an adaptive limit; times in seconds on the loop's clock.

    Attributes:
        initial: The limit once the latency at rest is known; until then it is the floor.
        floor: The least limit.
        ceiling: The greatest.
        tolerance: Latency may rise by this factor over the baseline without consequence.
        smoothing_up: Share of the way gone in one step up.
        smoothing_down: Share of the way gone in one step down.
        window_s: Least time between two steps.
        samples_min: Least samples between two steps.
        drop_rate: Share of dropped calls in a window that counts as overload.
        baseline_windows: Windows over which the baseline follows a rise, where it may.
    """

    initial: int = 4
    floor: int = 1
    ceiling: int = 64
    tolerance: float = 1.5
    smoothing_up: float = 0.2
    smoothing_down: float = 0.5
    window_s: float = 0.25
    samples_min: int = 5
    drop_rate: float = 0.1
    baseline_windows: float = 10.0

    def __post_init__(self) -> None:
        at_least(self, 1, "floor", "tolerance", "samples_min", "baseline_windows")
        at_least(self, self.floor, "ceiling")
        at_least(self, 0.0, "window_s")
        within(self, self.floor, self.ceiling, "initial")
        within(self, 0.001, 1.0, "smoothing_up", "smoothing_down", "drop_rate")


class LimitChangeReason(enum.StrEnum):
    """Reason for a change of the limit."""

    ROOM = "latency near its baseline"
    SLOW = "latency above its baseline"
    DROPS = "calls dropped"


@dataclass(frozen=True, slots=True)
class LimitChange:
    """A step that changed the whole number."""

    before: int
    after: int
    reason: LimitChangeReason


def gradient(baseline_s: float, recent_s: float, tolerance: float) -> float:
    """Return ``tolerance × baseline / recent`` within 0.5 to 1: 1 means no queue at the other end."""
    return min(1.0, max(0.5, tolerance * baseline_s / recent_s)) if recent_s > 0.0 else 1.0


def step(limit: float, slope: float, settings: LimitSettings) -> float:
    """Return the next limit.

    ``target = limit × g + √limit × (2 g - 1)``, then part of the way from ``limit`` to it. After
    Netflix's concurrency-limits (Gradient2, 2018), where the headroom is added whatever the gradient:
    ``L = L/2 + √L`` rests at 4, with their queue of 4 at 8. Here the headroom vanishes as the
    gradient falls to 0.5, so that the limit reaches 1.

    Args:
        limit: The limit, not rounded.
        slope: The gradient ``g``, 0.5 to 1.
        settings: Smoothing and bounds.
    """
    target = limit * slope + math.sqrt(limit) * (2.0 * slope - 1.0)
    share = settings.smoothing_up if target > limit else settings.smoothing_down
    return min(float(settings.ceiling), max(float(settings.floor), limit + share * (target - limit)))


@dataclass(slots=True)
class _LatencySum:
    """Answers of one kind in a window: how many, and their latencies' sum in seconds."""

    count: int = 0
    latency_s: float = 0.0


class AdaptiveLimit:
    """Adaptive concurrency limit of one dependency.

    The limit stands at the floor until the first window of answers has shown the latency at rest. Began it higher, that
    window would already hold our own queueing, and be taken for the dependency's nature for good.

    The baseline falls at once to a faster window's mean. It rises only while our own calls cannot be what
    queues: at the floor, or with fewer than half the limit in flight. A moving average that always rises
    (Gradient2's) would take a lasting overload for normal and end at the ceiling. Here a dependency that has
    become slower by itself costs one descent to the floor, where the new latency is learnt.
    A limit that is not used (fewer than half in flight) does not grow.

    Calls of several kinds, such as queries and batches of documents, have a baseline each: what counts is how many
    times as long as at rest a window's calls took on average, whatever the mixture. A kind that is new while the
    dependency is loaded is taken to suffer as much as the known ones.

    Bounds: a handful of numbers, and ``KINDS_MAX`` baselines.

    Attributes:
        baseline_s: Mean latency of the last window's calls, had the dependency not been loaded; 0 before the first.
    """

    def __init__(self, settings: LimitSettings) -> None:
        self._settings = settings
        self._limit = float(settings.initial)
        self._baselines: dict[str, float] = {}
        self.baseline_s = 0.0
        self._in_flight = 0
        self._began_at_s: float | None = None
        self._begin(None)

    def __repr__(self) -> str:
        return f"<AdaptiveLimit {self.limit} baseline {self.baseline_s * 1000:.1f}ms>"

    @property
    def limit(self) -> int:
        """Calls that may be out at once."""
        return int(self._limit) if self._baselines else self._settings.floor

    def observe(
        self, latency_s: float, in_flight: int, now_s: float, *, dropped: bool = False, kind: str = ""
    ) -> LimitChange | None:
        """Take in a call that ended; return the step, if the limit moved by it.

        Args:
            latency_s: How long it took; not used of a dropped one.
            in_flight: Calls that were out as it ended, itself included.
            now_s: On the loop's clock.
            dropped: The dependency refused it or let it time out. Not: cancelled, or bad input.
            kind: Calls of one kind take about the same time when the dependency is not loaded.
        """
        if self._began_at_s is None:
            self._begin(now_s)
        self._in_flight = max(self._in_flight, in_flight)
        if dropped:
            self._drops += 1
        else:
            self._count(max(0.0, latency_s), kind)
        samples = self._drops + sum(one.count for one in self._answers.values())
        if samples < self._settings.samples_min or now_s - (self._began_at_s or 0.0) < self._settings.window_s:
            return None
        change = self._step(self._drops >= self._settings.drop_rate * samples)
        self._begin(now_s)
        return change

    @property
    def _unused(self) -> bool:
        return self._in_flight * 2 < self.limit

    def _count(self, latency_s: float, kind: str) -> None:
        known = self._baselines.keys() | self._answers.keys()
        answers = self._answers.setdefault(kind if kind in known or len(known) < KINDS_MAX else "", _LatencySum())
        answers.count += 1
        answers.latency_s += latency_s

    def _begin(self, now_s: float | None) -> None:
        self._began_at_s = now_s
        self._answers: dict[str, _LatencySum] = {}
        self._drops = 0
        self._in_flight = 0

    def _step(self, overloaded: bool) -> LimitChange | None:  # noqa: FBT001 - one word of evidence
        before, known = self.limit, bool(self._baselines)
        slope = 0.5 if overloaded else self._slope()
        if known:
            after = step(self._limit, slope, self._settings)
            # A limit that is not used up proves nothing about a higher one: it may fall and not rise.
            if after < self._limit or not self._unused:
                self._limit = after
        if self.limit == before:
            return None
        reason = (
            LimitChangeReason.DROPS
            if overloaded
            else LimitChangeReason.SLOW
            if self.limit < before
            else LimitChangeReason.ROOM
        )
        return LimitChange(before, self.limit, reason)

    def _slope(self) -> float:
        """Learn from a window's answers; return the gradient."""
        load = max(1.0, self._load())
        for kind, mean_s in self._means():
            # Unknown, or learnt from answers that took no time: what the load seen in the known kinds leaves of it.
            at_rest_s = self._baselines.get(kind) or mean_s / load
            self._baselines[kind] = min(at_rest_s, mean_s)
        slope = gradient(1.0, self._load(), self._settings.tolerance)
        counts = {kind: one.count for kind, one in self._answers.items()}
        self.baseline_s = sum(n * self._baselines[kind] for kind, n in counts.items()) / sum(counts.values())
        # Here our own calls do not explain slow answers: the dependency itself has become slower.
        if self._unused or self.limit == self._settings.floor:
            for kind, mean_s in self._means():
                self._baselines[kind] += (mean_s - self._baselines[kind]) / self._settings.baseline_windows
        return slope

    def _means(self) -> list[tuple[str, float]]:
        return [(kind, answers.latency_s / answers.count) for kind, answers in self._answers.items()]

    def _load(self) -> float:
        """Return how many times as long as at rest the window's calls of known kinds took, on average; 1 if unknown."""
        known = [(one, at_rest_s) for kind, one in self._answers.items() if (at_rest_s := self._baselines.get(kind))]
        if not known:
            return 1.0
        return sum(one.latency_s / at_rest_s for one, at_rest_s in known) / sum(one.count for one, _ in known)
