"""Throughput and time left of an index run, from its recent progress. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from penstock.cli.index_stats import IndexStats

WINDOW_S: Final = 20.0
#: Kept however old: with large files few are done in a window, and one alone says little.
SAMPLES_MIN: Final = 6


@dataclass(frozen=True, slots=True)
class _ThroughputSample:
    """Progress of a run at a moment of the monotonic clock."""

    at_s: float
    effort: int
    chunks: int


class Throughput:
    """Rates over the recent past.

    Only what is done counts. While a large file is on its way the time left goes on falling, but never below what would
    be left if all that is on its way were done. A run that stands still longer than that counts as slower.

    Args:
        window_s: How far back the past is recent, in seconds.

    Bounds:
        Samples older than the window are dropped, but for the last ``SAMPLES_MIN``.
    """

    def __init__(self, window_s: float = WINDOW_S) -> None:
        self._window_s = window_s
        self._marks: deque[_ThroughputSample] = deque()

    def record(self, now_s: float, stats: IndexStats) -> None:
        """Record a run's progress. Moments must not go back. Without progress since the last sample none is added."""
        if not self._marks or stats.work_bytes_done > self._marks[-1].effort:
            self._marks.append(_ThroughputSample(now_s, stats.work_bytes_done, stats.chunks))
        while len(self._marks) > SAMPLES_MIN and self._marks[1].at_s <= now_s - self._window_s:
            self._marks.popleft()

    def chunks_per_s(self, now_s: float, stats: IndexStats) -> float:
        """Return chunks a second, 0 before anything is known."""
        elapsed_s = self._elapsed_s(now_s, stats)
        return (self._marks[-1].chunks - self._marks[0].chunks) / elapsed_s if elapsed_s > 0 else 0.0

    def eta_s(self, now_s: float, stats: IndexStats) -> float | None:
        """Return the seconds left for what is left, ``None`` while nothing is known."""
        elapsed_s = self._elapsed_s(now_s, stats)
        if elapsed_s <= 0:
            return None
        first, last = self._marks[0], self._marks[-1]
        rate = (last.effort - first.effort) / elapsed_s
        on_its_way = min((now_s - last.at_s) * rate, stats.work_bytes_in_flight)
        return max(0.0, stats.work_bytes_total - stats.work_bytes_done - on_its_way) / rate

    def _elapsed_s(self, now_s: float, stats: IndexStats) -> float:
        """Return the time that the work between the samples has taken, 0 while that is not known.

        The time since the last sample belongs to the work in flight, as far as that needs it.
        """
        if len(self._marks) < 2:
            return 0.0
        first, last = self._marks[0], self._marks[-1]
        span_s = last.at_s - first.at_s
        due_s = stats.work_bytes_in_flight * span_s / (last.effort - first.effort)
        return span_s + max(0.0, now_s - last.at_s - due_s) if span_s > 0 else 0.0
