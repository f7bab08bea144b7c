"""Metrics, by the exact names of SPEC §10, in a registry of their own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_LATENCY_BUCKETS_S = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)

#: A gauge read at scrape time: its name, its help, its label's name ('' for none), its values.
Reading = tuple[str, str, str, Callable[[], Iterable[tuple[str, float]]]]


class Metrics:
    """Everything that is counted.

    Attributes:
        requests: HTTP requests answered, by route, method and status.
        latency_s: Their duration.
        refused: Requests refused, by reason.
        documents: Documents taken in, by outcome.
        chunks: Chunks written.
        searches: Searches answered, by whether the answer was degraded.
        stage_s: Duration of each stage of a search.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "http_requests", "HTTP requests answered", ("route", "method", "status"), registry=self.registry
        )
        self.latency_s = Histogram(
            "http_request_seconds",
            "Duration of a request",
            ("route",),
            buckets=_LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self.refused = Counter("requests_refused", "Requests refused, by reason", ("reason",), registry=self.registry)
        self.documents = Counter("documents", "Documents taken in, by outcome", ("status",), registry=self.registry)
        self.chunks = Counter("chunks_indexed", "Chunks written", registry=self.registry)
        self.searches = Counter("searches", "Searches answered", ("degraded",), registry=self.registry)
        self.stage_s = Histogram(
            "search_stage_seconds",
            "Duration of a stage of a search",
            ("stage",),
            buckets=_LATENCY_BUCKETS_S,
            registry=self.registry,
        )

    def read(self, readings: Iterable[Reading]) -> None:
        """Register gauges that are read at each scrape."""
        self.registry.register(_Gauges(tuple(readings)))

    def exposition(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)


class _Gauges(Collector):
    def __init__(self, readings: tuple[Reading, ...]) -> None:
        self._readings = readings

    def collect(self) -> Iterator[Metric]:
        for name, text, label, values in self._readings:
            family = GaugeMetricFamily(name, text, labels=[label] if label else [])
            for value, number in values():
                family.add_metric([value] if label else [], number)
            yield family


def runtime_readings() -> list[Reading]:
    """Return the gauges of the process itself (M3)."""
    return [
        ("task_count", "asyncio tasks", "", lambda: [("", float(_tasks()))]),
        ("thread_count", "threads", "", lambda: [("", float(threading.active_count()))]),
        (
            "goroutine_count",
            "asyncio tasks and threads together",
            "",
            lambda: [("", float(_tasks() + threading.active_count()))],
        ),
    ]


def _tasks() -> int:
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:
        return 0
