"""Catalogue of the exported metrics: name, kind, labels, meaning. ``docs/monitoring.md`` is tested against it."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from penstock.kernel.errors import Broken


class MetricKind(enum.StrEnum):
    """Prometheus' types of metrics."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class MetricDefinition:
    """Definition of a metric.

    Attributes:
        name: As exported; a counter ends in ``_total``.
        kind: Its type.
        labels: The names of its labels, in the order in which values are given.
        help: One line for ``# HELP``.
    """

    name: str
    kind: MetricKind
    labels: tuple[str, ...]
    help: str

    @property
    def series(self) -> tuple[str, ...]:
        """The names of the lines it is exported as."""
        if self.kind is MetricKind.HISTOGRAM:
            return tuple(self.name + suffix for suffix in ("_bucket", "_sum", "_count"))
        return (self.name,)


def _table(kind: MetricKind, *rows: tuple[str, str, str]) -> tuple[MetricDefinition, ...]:
    return tuple(MetricDefinition(name, kind, tuple(labels.split()), text) for name, labels, text in rows)


_COUNTERS: Final = _table(
    MetricKind.COUNTER,
    ("http_requests_total", "route method status", "HTTP requests that reached a route, by route, method and status"),
    ("http_responses_total", "in_time", "Answers sent whole, by whether before their deadline; true is goodput"),
    ("http_client_disconnects_total", "how", "Requests whose client disconnected or was cut off for not reading"),
    ("http_key_requests_total", "key status", "HTTP requests of a key, by the key's id and the answer's status"),
    ("requests_refused_total", "reason", "HTTP requests refused, by reason"),
    ("searches_total", "degraded", "Searches answered, by whether the answer was degraded"),
    ("searches_degraded_total", "what", "Searches answered, by what they had to do without; none if nothing"),
    ("documents_total", "status", "Documents taken in, by outcome"),
    ("chunks_indexed_total", "", "Chunks written"),
    ("event_bus_messages_total", "topic outcome", "Messages of a topic that came to their end, by how"),
    ("event_bus_refused_total", "topic reason", "Messages that a topic refused, by reason"),
    ("event_bus_level_reached_total", "topic level", "How often a topic's fill rose to high or critical"),
    ("event_bus_late_replies_total", "topic", "Replies that came after their requester had stopped waiting"),
    ("event_bus_handler_errors_total", "topic", "Handlers that raised what they should not"),
    (
        "dependency_calls_total",
        "dependency outcome",
        "Calls to models or a store on other servers, by what became of them",
    ),
    ("degradation_moves_total", "criticality rung", "How often the ladder moved to a rung"),
    ("cache_hits_total", "cache", "Keys asked for and found"),
    ("cache_misses_total", "cache", "Keys asked for and not found"),
    ("cache_evictions_total", "cache", "Entries given up for want of room"),
    (
        "store_index_builds_total",
        "outcome",
        "Index builds of collections that ended, by whether the new index was taken or given up",
    ),
    ("alerts_raised_total", "alert severity", "How often an alert was raised"),
)

_GAUGES: Final = _table(
    MetricKind.GAUGE,
    ("http_concurrent_requests", "", "HTTP requests in flight"),
    ("http_concurrent_requests_max", "", "The most HTTP requests in flight, of about 15 s"),
    ("http_concurrency_limit", "", "HTTP requests in flight that the event loop carries"),
    ("http_rate_limit_clients", "", "Clients the rate limit remembers"),
    ("chunks_pending", "", "Chunks known to this server that wait for their vectors"),
    ("spool_tasks", "status", "Tasks in the data directory, by status"),
    ("spool_bytes", "", "Bytes of the bodies of tasks that have not ended"),
    ("worker_pool_active", "pool", "Permits held by running work"),
    ("worker_pool_limit", "pool", "Permits a pool has"),
    ("worker_pool_queued", "pool", "Messages waiting for a pool"),
    ("event_bus_buffer_used", "topic", "Share of a topic's buffer in use, 0 to 1"),
    ("event_bus_buffer_used_max", "topic", "The largest share of a topic's buffer in use, of about 15 s"),
    ("circuit_breaker_state", "dependency", "0 closed, 1 half-open, 2 open"),
    (
        "dependency_connections",
        "dependency",
        "Connections open to a server elsewhere; of Kafka to the broker with most",
    ),
    ("degradation_level", "criticality", "Where the degradation ladder stands, 0 full to 5 refuse"),
    ("cache_entries", "cache", "Entries held"),
    ("cache_bytes", "cache", "What the entries take up"),
    ("memory_used_bytes", "", "Memory that counts against the limit"),
    ("memory_limit_bytes", "", "The memory limit"),
    ("memory_level", "", "0 calm, 1 high, 2 critical"),
    ("store_index_builds_in_progress", "", "Collections whose index is being built"),
    ("event_loop_lag_seconds_max", "", "How late the event loop was at most, of about 15 s"),
    ("task_count", "", "asyncio tasks"),
    ("thread_count", "", "Threads"),
    ("goroutine_count", "", "asyncio tasks and threads together"),
    ("alerts_active", "severity", "Alerts active now"),
)

_HISTOGRAMS: Final = _table(
    MetricKind.HISTOGRAM,
    ("http_request_seconds", "route", "Duration of a request, from its whole body to its answer"),
    ("search_stage_seconds", "stage", "Duration of a stage of a search"),
    ("event_bus_wait_seconds", "topic", "How long a message waited for its turn"),
    ("event_bus_slack_seconds", "topic", "What was left until the deadline when handling began"),
    ("event_bus_service_seconds", "topic", "How long a handler ran, whichever way it ended"),
    ("event_loop_lag_seconds", "", "How late the event loop woke up, ten times a second"),
)

CATALOGUE: Final = (*_COUNTERS, *_GAUGES, *_HISTOGRAMS)

#: Metrics that are exported under their former name as well, until the release after the next.
FORMER_NAMES: Final = {
    "http_client_disconnects_total": "http_parted_total",
    "http_rate_limit_clients": "http_rate_clients",
    "http_responses_total": "http_answers_total",
    "store_index_builds_in_progress": "store_generations_making",
    "store_index_builds_total": "store_generations_total",
}

_BY_NAME: Final = {one.name: one for one in CATALOGUE}


def metric_definition(name: str) -> MetricDefinition:
    """Return the definition of a metric.

    Raises:
        Broken: There is no such metric.
    """
    try:
        return _BY_NAME[name]
    except KeyError:
        raise Broken(f"the catalogue of metrics has no {name!r}") from None
