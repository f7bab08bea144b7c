"""Histograms for hot paths: a bisection, an addition, no lock. Only the event loop's thread may write."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from typing import Final

from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

from penstock.telemetry.catalogue import metric_definition

#: From half a millisecond to the longest limit of an operation (B4).
DURATION_BUCKETS_S: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)

#: Label sets of one metric. Later ones are counted under ``OTHER``.
SERIES_MAX: Final = 50
OTHER: Final = "other"


class Histogram:
    """Values of one series, counted into fixed buckets.

    Args:
        bounds: Upper bounds of the buckets, ascending; the last one, infinity, is added.

    Bounds: one integer for each bucket.

    Attributes:
        counts: Values in each bucket, not cumulated.
        sum: Of all values.
    """

    __slots__ = ("_bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def __repr__(self) -> str:
        return f"<Histogram {sum(self.counts)} values, sum {self.sum:g}>"

    def observe(self, value: float) -> None:
        """Take in a finite value. A value equal to a bound is below it, as Prometheus has it."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    @contextmanager
    def time(self) -> Iterator[None]:
        """Take in how long the body ran, in seconds, however it ended."""
        began_s = time.perf_counter()
        try:
            yield
        finally:
            self.observe(time.perf_counter() - began_s)


class Histograms:
    """The series of one metric, by their labels' values.

    Args:
        name: Of the catalogue.
        bounds: Upper bounds of the buckets, in seconds, ascending.

    Bounds: ``SERIES_MAX`` series and one named ``OTHER``.
    """

    __slots__ = ("_bounds", "_entry", "_series", "_shown", "_texts")

    def __init__(self, name: str, bounds: tuple[float, ...] = DURATION_BUCKETS_S) -> None:
        self._entry = metric_definition(name)
        self._bounds = bounds
        self._texts = (*map(floatToGoString, bounds), "+Inf")
        self._series: dict[tuple[str, ...], Histogram] = {}
        self._shown: dict[tuple[str, ...], list[dict[str, str]]] = {}

    def __repr__(self) -> str:
        return f"<Histograms {self._entry.name} {len(self._series)} series>"

    def labels(self, *values: str) -> Histogram:
        """Return the series of these label values; keep it where it is needed often."""
        series = self._series.get(values)
        if series is not None:
            return series
        if len(self._series) >= SERIES_MAX:
            values = (OTHER,) * len(values)
        return self._series.setdefault(values, Histogram(self._bounds))

    def family(self) -> Metric:
        """Return everything as Prometheus wants it: cumulated."""
        family = HistogramMetricFamily(self._entry.name, self._entry.help, labels=self._entry.labels)
        bucket, count, total = (self._entry.name + suffix for suffix in ("_bucket", "_count", "_sum"))
        # Not by ``add_metric``, which makes every bucket's labels again and took most of a scrape's time.
        for values, series in self._series.items():
            *buckets, plain = self._shown.get(values) or self._show(values)
            numbers = list(accumulate(series.counts))
            family.samples += [Sample(bucket, *one) for one in zip(buckets, numbers, strict=True)]
            family.samples += [Sample(count, plain, numbers[-1]), Sample(total, plain, series.sum)]
        return family

    def _show(self, values: tuple[str, ...]) -> list[dict[str, str]]:
        """Make the labels of a series' lines once: one set for each bucket, then the plain one."""
        plain = dict(zip(self._entry.labels, values, strict=True))
        shown = self._shown[values] = [*({**plain, "le": text} for text in self._texts), plain]
        return shown
