"""Metrics, by the exact names of SPEC §10, in a registry of their own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from penstock.kernel.errors import Broken
from penstock.telemetry import exposition
from penstock.telemetry.catalogue import Entry, Kind, entry
from penstock.telemetry.histogram import HistogramCollector, Histograms

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

#: The values of a metric's labels, in the catalogue's order, and its number.
Sample = tuple[tuple[str, ...], float]

#: A metric read at scrape time: its name in the catalogue, and what reads it.
Reading = tuple[str, Callable[[], Iterable[Sample]]]


def single(name: str, read: Callable[[], float]) -> Reading:
    """Return the reading of a metric without labels."""
    return name, lambda: [((), read())]


class Metrics:
    """Everything that is counted.

    Attributes:
        registry: All of it, for Prometheus' client.
        requests: HTTP requests answered, by route, method and status.
        latency_s: Their duration.
        refused: Requests refused, by reason.
        documents: Documents taken in, by outcome.
        chunks: Chunks written.
        searches: Searches answered, by whether the answer was degraded.
        degraded: Searches answered, by what they had to do without; ``none`` for those that lacked nothing.
        stage_s: Duration of each stage of a search.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter("http_requests_total")
        self.latency_s = Histograms("http_request_seconds")
        self.refused = self._counter("requests_refused_total")
        self.documents = self._counter("documents_total")
        self.chunks = self._counter("chunks_indexed_total")
        self.searches = self._counter("searches_total")
        self.degraded = self._counter("searches_degraded_total")
        self.stage_s = Histograms("search_stage_seconds")
        self.expose((self.latency_s, self.stage_s))

    def read(self, readings: Iterable[Reading]) -> None:
        """Register gauges and counters that are read at each scrape, on the event loop: reading must be quick.

        Raises:
            Broken: The catalogue does not have one of them, or has it as a histogram.
        """
        table = [(entry(name), values) for name, values in readings]
        for one, _ in table:
            if one.kind is Kind.HISTOGRAM:
                raise Broken(f"{one.name} is a histogram: it is exposed, not read")
        self.registry.register(_Readings(table))

    def expose(self, histograms: Iterable[Histograms]) -> None:
        """Register histograms."""
        self.registry.register(HistogramCollector(histograms))

    def counts(self, counter: Counter) -> dict[str, int]:
        """Return what a counter of one label has counted, by the label's value."""
        samples = (sample for family in counter.collect() for sample in family.samples)
        return {
            value: int(sample.value)
            for sample in samples
            if sample.name.endswith("_total")
            for value in sample.labels.values()
        }

    def exposition(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return exposition.text(self.registry.collect())

    def _counter(self, name: str) -> Counter:
        one = entry(name)
        return Counter(one.name, one.text, one.labels, registry=self.registry)


class _Readings(Collector):
    def __init__(self, table: list[tuple[Entry, Callable[[], Iterable[Sample]]]]) -> None:
        self._table = table

    def collect(self) -> Iterator[Metric]:
        for one, values in self._table:
            make = CounterMetricFamily if one.kind is Kind.COUNTER else GaugeMetricFamily
            family = make(one.name, one.text, labels=one.labels)
            for labels, number in values():
                family.add_metric(labels, number)
            yield family


def runtime_readings() -> list[Reading]:
    """Return the gauges of the process itself (M3)."""
    return [
        single("task_count", tasks),
        single("thread_count", threading.active_count),
        single("goroutine_count", lambda: tasks() + threading.active_count()),
    ]


def tasks() -> int:
    """Return how many asyncio tasks the running loop has, 0 outside one."""
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:
        return 0
