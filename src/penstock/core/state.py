"""The core's state as ``/v1/status`` tells it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable

from msgspec import UNSET

from penstock.bus.contract import TopicState
from penstock.bus.link import Link
from penstock.http import answers
from penstock.http.gate import Gate
from penstock.kernel.context import Criticality
from penstock.models.used import InUse
from penstock.policies.ladder import Rung
from penstock.pools.guard import Guard
from penstock.stores.cache import Remembering
from penstock.telemetry.alarms import AlertRecord
from penstock.telemetry.memory import MemoryWatch
from penstock.telemetry.metrics import Metrics


def topic_status(state: TopicState) -> answers.TopicStatus:
    """Return a topic's state."""
    counts = state.counts
    return answers.TopicStatus(
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
        late=counts.late,
        refused=dict(counts.refused),
    )


def breaker_status(guard: Guard | Link) -> answers.BreakerStatus:
    """Return a circuit breaker's state."""
    state = guard.state.name.lower().replace("_", "-")
    return answers.BreakerStatus(guard.dependency, state, round(guard.retry_after_s(), 1))


def ladder_status(rungs: dict[Criticality, Rung]) -> list[answers.RungStatus]:
    """Return where the ladder stands for each class."""
    return [answers.RungStatus(one.name.lower(), rung.name.lower(), int(rung)) for one, rung in rungs.items()]


def cache_status(caches: Iterable[Remembering]) -> list[answers.CacheStatus]:
    """Return each cache's numbers."""
    states = (cache.state() for cache in caches)
    return [answers.CacheStatus(s.name, s.entries, s.bytes, s.hits, s.misses, s.evictions) for s in states]


def memory_status(watch: MemoryWatch) -> answers.MemoryStatus:
    """Return the memory as of the last look."""
    return answers.MemoryStatus(watch.used, watch.limit.bytes, watch.limit.source, watch.level.name.lower())


def traffic_status(gate: Gate, metrics: Metrics) -> answers.TrafficStatus:
    """Return what became of HTTP requests so far."""
    tally = gate.tally
    return answers.TrafficStatus(
        in_flight=gate.in_flight,
        in_flight_max=gate.in_flight_lately(),
        in_time=tally.in_time,
        too_late=tally.too_late,
        client_gone=tally.client_gone,
        cut_off=tally.cut_off,
        refused=metrics.counts(metrics.refused),
        degraded=metrics.counts(metrics.degraded),
    )


def alert_status(record: AlertRecord) -> answers.AlertStatus:
    """Return an alert."""
    return answers.AlertStatus(
        record.name,
        record.severity,
        record.subject,
        record.detail,
        record.active,
        record.since,
        record.until or UNSET,
    )


def model_status(used: Iterable[InUse]) -> list[answers.ModelStatus]:
    """Return the models in use."""
    return [answers.ModelStatus(one.part, one.kind, one.name, one.url, one.note) for one in used]


def process_status(loop_lag_s_max: float) -> answers.ProcessStatus:
    """Return the front process's tasks, threads and the event loop's lag."""
    return answers.ProcessStatus(len(asyncio.all_tasks()), threading.active_count(), round(loop_lag_s_max * 1000, 3))
