"""Metrics, under the exact names of SPEC §10, in a registry of their own."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Final

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from penstock.kernel.errors import Broken
from penstock.telemetry.catalogue import FORMER_NAMES, MetricDefinition, MetricKind, metric_definition
from penstock.telemetry.histogram import Histograms

_IN_LABELS: Final = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
_IN_HELP: Final = str.maketrans({"\\": r"\\", "\n": r"\n"})

#: Sets of labels that are remembered as text, as most of them are the same at every scrape; several times the usual.
LABELS_MAX: Final = 10_000


def render(families: Iterable[Metric]) -> bytes:
    """Return the metrics as text. It holds the loop a quarter as long as ``prometheus_client.generate_latest``.

    Samples named ``…_created`` are left out: they say when a series began, double what is sent, and Prometheus
    makes no use of them in this format.
    """
    lines: list[str] = []
    for family in families:
        name, created = family.name, f"{family.name}_created"
        if family.type == "counter":
            name += "_total"
        lines.append(f"# HELP {name} {family.documentation.translate(_IN_HELP)}\n# TYPE {name} {family.type}\n")
        for sample in family.samples:
            if sample.name == created:
                continue
            labels = _labels(tuple(sample.labels.items()))
            lines.append(f"{sample.name}{labels} {_number(sample.value)}\n")
    return "".join(lines).encode()


@lru_cache(LABELS_MAX)
def _labels(pairs: tuple[tuple[str, str], ...]) -> str:
    shown = ",".join(f'{key}="{value.translate(_IN_LABELS)}"' for key, value in sorted(pairs))
    return f"{{{shown}}}" if shown else ""


def _number(value: float) -> str:
    # The counts in buckets, most of all numbers, are integers.
    if type(value) is int:
        return str(value)
    if math.isfinite(value):
        return repr(float(value))
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"


CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

#: The values of a metric's labels, in the catalogue's order, and its number.
Sample = tuple[tuple[str, ...], float]

#: A metric read at scrape time: its name in the catalogue, and what reads it.
CallbackMetric = tuple[str, Callable[[], Iterable[Sample]]]


def unlabelled(name: str, read: Callable[[], float]) -> CallbackMetric:
    """Return the callback of a metric without labels."""
    return name, lambda: [((), read())]


class Metrics:
    """Metrics of a server, and their registry.

    Attributes:
        registry: All metrics, for Prometheus' client.
        requests: HTTP requests answered, by route, method and status.
        latency_s: Their duration.
        by_key: Requests answered or refused, by the id of their key and by status.
        refused: Requests refused, by reason.
        documents: Documents taken in, by outcome.
        chunks: Chunks written.
        searches: Searches answered, by whether the answer was degraded.
        degraded: Searches answered, by what their answer lacked, ``none`` for those that lacked nothing.
        stage_s: Duration of each stage of a search.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter("http_requests_total")
        self.latency_s = Histograms("http_request_seconds")
        self.by_key = self._counter("http_key_requests_total")
        self.refused = self._counter("requests_refused_total")
        self.documents = self._counter("documents_total")
        self.chunks = self._counter("chunks_indexed_total")
        self.searches = self._counter("searches_total")
        self.degraded = self._counter("searches_degraded_total")
        self.stage_s = Histograms("search_stage_seconds")
        self.register_histograms((self.latency_s, self.stage_s))

    def register_callbacks(self, callbacks: Iterable[CallbackMetric]) -> None:
        """Register gauges and counters that are read at each scrape, on the event loop: reading must be quick.

        Raises:
            Broken: The catalogue does not have one of them, or has it as a histogram.
        """
        table = [(metric_definition(name), values) for name, values in callbacks]
        for one, _ in table:
            if one.kind is MetricKind.HISTOGRAM:
                raise Broken(f"{one.name} is a histogram: it is exposed, not read")
        self.registry.register(_Collector(lambda: _read(table)))

    def register_histograms(self, histograms: Iterable[Histograms]) -> None:
        """Register histograms."""
        every = tuple(histograms)
        self.registry.register(_Collector(lambda: (one.family() for one in every)))

    def counts_by_label(self, counter: Counter) -> dict[str, int]:
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
        return render(self.registry.collect())

    def _counter(self, name: str) -> Counter:
        one = metric_definition(name)
        return Counter(one.name, one.help, one.labels, registry=self.registry)


class _Collector(Collector):
    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self._collect = collect

    def collect(self) -> Iterable[Metric]:
        return self._collect()


def _read(table: Iterable[tuple[MetricDefinition, Callable[[], Iterable[Sample]]]]) -> Iterator[Metric]:
    for one, values in table:
        samples = list(values())
        yield _family(one, one.name, one.help, samples)
        if former := FORMER_NAMES.get(one.name):
            yield _family(one, former, f"Former name of {one.name}", samples)


def _family(definition: MetricDefinition, name: str, text: str, samples: Iterable[Sample]) -> Metric:
    make = CounterMetricFamily if definition.kind is MetricKind.COUNTER else GaugeMetricFamily
    family = make(name, text, labels=definition.labels)
    for labels, number in samples:
        family.add_metric(labels, number)
    return family


def runtime_metrics() -> list[CallbackMetric]:
    """Return the gauges of the process itself (M3)."""
    return [
        unlabelled("task_count", task_count),
        unlabelled("thread_count", threading.active_count),
        unlabelled("goroutine_count", lambda: task_count() + threading.active_count()),
    ]


def task_count() -> int:
    """Return how many asyncio tasks the running loop has, 0 outside one."""
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:
        return 0
