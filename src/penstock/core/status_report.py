"""Status report: the core's state in the records of ``/v1/status``."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from datetime import UTC, datetime

from msgspec import UNSET

from penstock.bus.management import BreakerView, TopicState
from penstock.http import responses
from penstock.http.gate import Gate
from penstock.kernel.context import Criticality
from penstock.models.contract import ModelInfo
from penstock.policies.alerts import RaisedAlert, Timestamp
from penstock.policies.ladder import Rung
from penstock.stores.key_value_cache import ShrinkableCache
from penstock.telemetry.memory_watch import MemoryWatch
from penstock.telemetry.metrics import Metrics


def topic_status(state: TopicState) -> responses.TopicStatus:
    """Return a topic's state."""
    counts = state.counts
    return responses.TopicStatus(
        name=state.name,
        waiting=state.waiting,
        capacity=state.capacity,
        running=state.running,
        blocked=state.blocked,
        level=state.level.name.lower(),
        congested=state.congested,
        offered=counts.offered,
        answered=counts.answered,
        failed=counts.failed,
        expired=counts.expired_waiting + counts.expired_running,
        discarded=counts.discarded,
        left=counts.left,
        lost=counts.lost,
        late=counts.late_replies,
        refused=dict(counts.refused),
    )


def breaker_status(guard: BreakerView) -> responses.BreakerStatus:
    """Return a circuit breaker's state."""
    state = guard.state.name.lower().replace("_", "-")
    return responses.BreakerStatus(guard.dependency, state, round(guard.retry_after_s(), 1))


def ladder_status(rungs: dict[Criticality, Rung]) -> list[responses.RungStatus]:
    """Return the ladder's rung for each class."""
    return [responses.RungStatus(one.name.lower(), rung.name.lower(), int(rung)) for one, rung in rungs.items()]


def cache_status(caches: Iterable[ShrinkableCache]) -> list[responses.CacheStatus]:
    """Return each cache's numbers."""
    states = (cache.state() for cache in caches)
    return [responses.CacheStatus(s.name, s.entries, s.bytes, s.hits, s.misses, s.evictions) for s in states]


def memory_status(watch: MemoryWatch) -> responses.MemoryStatus:
    """Return the memory as of the last poll."""
    return responses.MemoryStatus(watch.used, watch.limit.bytes, watch.limit.source, watch.level.name.lower())


def traffic_status(gate: Gate, metrics: Metrics) -> responses.TrafficStatus:
    """Return the counts of HTTP requests so far."""
    counters = gate.counters
    return responses.TrafficStatus(
        in_flight=gate.in_flight,
        in_flight_max=gate.in_flight_max(),
        in_time=counters.in_time,
        too_late=counters.too_late,
        client_gone=counters.client_gone,
        cut_off=counters.cut_off,
        refused=metrics.counts_by_label(metrics.refused),
        degraded=metrics.counts_by_label(metrics.degraded),
    )


def alert_status(alert: RaisedAlert) -> responses.AlertStatus:
    """Return an alert."""
    rule, since, until = alert.rule, _rfc3339(alert.since), _rfc3339(alert.until) if alert.until else UNSET
    severity = rule.severity.value
    return responses.AlertStatus(rule.name, severity, alert.subject, alert.detail, alert.active, since, until)


def _rfc3339(moment: Timestamp) -> str:
    return datetime.fromtimestamp(moment.wall_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def model_status(used: Iterable[ModelInfo]) -> list[responses.ModelStatus]:
    """Return the models in use."""
    return [responses.ModelStatus(one.part, one.kind, one.name, one.url, one.note) for one in used]


def process_status(loop_lag_s_max: float) -> responses.ProcessStatus:
    """Return the front process's tasks, threads and the event loop's lag."""
    return responses.ProcessStatus(len(asyncio.all_tasks()), threading.active_count(), round(loop_lag_s_max * 1000, 3))
