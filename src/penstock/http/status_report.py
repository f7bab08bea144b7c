"""Status report: the core's state in the records of ``/v1/status``."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime

from msgspec import UNSET

from penstock import __version__
from penstock.bus.management import BreakerView, TopicState
from penstock.core.core import Core
from penstock.http import responses
from penstock.policies.alerts import RaisedAlert, Timestamp
from penstock.stores.data_model import CollectionInfo


def server_status(core: Core, collections: list[CollectionInfo]) -> responses.ServerStatus:
    """Return the status of a server, whose collections are given."""
    deps, reasons, watch = core.deps, core.unready_reasons(), core.memory_watch
    return responses.ServerStatus(
        version=__version__,
        uptime_s=round(deps.clock.now() - core.started_at_s, 1),
        ready=not reasons,
        reasons=reasons,
        data_dir=str(deps.data_dir),
        model=deps.models.model,
        dim=deps.models.dim,
        in_flight=core.traffic.in_flight,
        collections=collections,
        topics=[topic_status(topic) for topic in core.bus.state()],
        pools=[responses.PoolStatus(pool.name, pool.active, pool.limit) for pool in core.pools.all()],
        breakers=[breaker_status(one) for one in core.breakers],
        ladder=[
            responses.RungStatus(one.name.lower(), rung.name.lower(), int(rung))
            for one, rung in core.ladder.state().items()
        ],
        caches=[cache.state() for cache in core.all_caches],
        memory=responses.MemoryStatus(watch.used, watch.limit.bytes, watch.limit.source, watch.level.name.lower()),
        traffic=traffic_status(core),
        process=responses.ProcessStatus(
            len(asyncio.all_tasks()), threading.active_count(), round(core.heartbeat.lag_s_max() * 1000, 3)
        ),
        alerts=[alert_status(alert) for alert in core.alert_monitor.alerts() if alert.active],
        models=list(deps.models.infos),
        warnings=deps.warnings(),
    )


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


def traffic_status(core: Core) -> responses.TrafficStatus:
    """Return the counts of HTTP requests so far."""
    traffic, metrics = core.traffic, core.metrics
    return responses.TrafficStatus(
        in_flight=traffic.in_flight,
        in_flight_max=traffic.in_flight_max(),
        in_time=traffic.in_time,
        too_late=traffic.too_late,
        client_gone=traffic.client_gone,
        cut_off=traffic.cut_off,
        refused=metrics.counts_by_label(metrics.refused),
        degraded=metrics.counts_by_label(metrics.degraded),
    )


def alert_status(alert: RaisedAlert) -> responses.AlertStatus:
    """Return an alert."""
    rule, since, until = alert.rule, _moment(alert.since), _moment(alert.until) if alert.until else UNSET
    severity = rule.severity.value
    return responses.AlertStatus(rule.name, severity, alert.subject, alert.detail, alert.active, since, until)


def rfc3339(time: datetime) -> str:
    """Return a time in UTC as the API writes it."""
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _moment(moment: Timestamp) -> str:
    return rfc3339(datetime.fromtimestamp(moment.wall_s, UTC))
