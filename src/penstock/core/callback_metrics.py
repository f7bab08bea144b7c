"""Metrics of the core that are read at scrape time (SPEC §10). The catalogue holds names, kinds and labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Final

from penstock.bus.management import BreakerView, BusManagement, TopicState
from penstock.kernel.messages import Topic
from penstock.pools.permits import PoolRegistry
from penstock.pools.remote_dependency import RemoteDependency
from penstock.search.degradation import LadderController
from penstock.stores.data_model import IndexBuildStatus
from penstock.stores.key_value_cache import CacheState, ShrinkableCache
from penstock.tasks.queue import TaskQueue
from penstock.tasks.records import TaskStatus
from penstock.telemetry.memory_watch import MemoryWatch
from penstock.telemetry.metrics import CallbackMetric, Sample, unlabelled

#: The topic that queues the work of each pool.
TOPIC_BY_POOL: Final = {
    "embed": Topic.ML_EMBED,
    "sparse": Topic.ML_SPARSE,
    "rerank": Topic.ML_RERANK,
    "search": Topic.SEARCH_REQUEST,
    "index": Topic.INDEX_REQUEST,
    "chunk": Topic.INDEX_CHUNK,
}

#: The outcomes of a message, as :class:`penstock.bus.counters.TopicCounters` counts them.
MESSAGE_OUTCOMES: Final = ("answered", "failed", "expired_waiting", "expired_running", "discarded", "left", "lost")


def pool_metrics(pools: PoolRegistry, bus: BusManagement) -> list[CallbackMetric]:
    """Return the pools' permits and queued messages (M1)."""

    def queued() -> Iterable[Sample]:
        waiting = {state.name: state.waiting for state in bus.state()}
        return [((pool,), float(waiting.get(topic, 0))) for pool, topic in TOPIC_BY_POOL.items()]

    return [
        ("worker_pool_active", lambda: [((one.name,), float(one.active)) for one in pools.all()]),
        ("worker_pool_limit", lambda: [((one.name,), float(one.limit)) for one in pools.all()]),
        ("worker_pool_queued", queued),
    ]


def task_metrics(queue: TaskQueue) -> list[CallbackMetric]:
    """Return the tasks by status, and the bytes of those that have not ended."""

    def by_status() -> Iterable[Sample]:
        counts = queue.counts()
        return [((status.value,), float(counts.get(status, 0))) for status in TaskStatus]

    return [("spool_tasks", by_status), unlabelled("spool_bytes", lambda: queue.spooled_bytes)]


def topic_metrics(bus: BusManagement) -> list[CallbackMetric]:
    """Return the topics' fill (M2) and the outcomes of their messages (M6)."""

    def each(value: Callable[[TopicState], float]) -> Callable[[], list[Sample]]:
        return lambda: [((state.name,), float(value(state))) for state in bus.state()]

    def messages() -> list[Sample]:
        return [((s.name, end), float(getattr(s.counts, end))) for s in bus.state() for end in MESSAGE_OUTCOMES]

    def refused() -> list[Sample]:
        return [((s.name, why), float(count)) for s in bus.state() for why, count in s.counts.refused.items()]

    return [
        ("event_bus_buffer_used", each(lambda state: state.fill_ratio)),
        ("event_bus_messages_total", messages),
        ("event_bus_refused_total", refused),
        ("event_bus_late_replies_total", each(lambda state: state.counts.late_replies)),
        ("event_bus_handler_errors_total", each(lambda state: state.counts.handler_errors)),
    ]


def dependency_metrics(
    breakers: Sequence[BreakerView],
    remotes: Mapping[str, RemoteDependency],
    connections: Callable[[], Mapping[str, int]],
) -> list[CallbackMetric]:
    """Return the breakers' states (M5), the outcomes of calls to other servers, and the connections to them (L3–L5)."""

    def calls() -> list[Sample]:
        return [((name, what), float(n)) for name, one in remotes.items() for what, n in asdict(one.counts).items()]

    return [
        ("circuit_breaker_state", lambda: [((one.dependency,), float(one.state)) for one in breakers]),
        ("dependency_calls_total", calls),
        ("dependency_connections", lambda: [((name,), float(n)) for name, n in connections().items()]),
    ]


def ladder_metrics(rungs: LadderController) -> list[CallbackMetric]:
    """Return the ladder's rungs, and how often it moved to each."""

    def level() -> list[Sample]:
        return [((one.name.lower(),), float(rung)) for one, rung in rungs.state().items()]

    def moves() -> list[Sample]:
        return [((one.name.lower(), rung.name.lower()), float(n)) for (one, rung), n in rungs.transitions.items()]

    return [("degradation_level", level), ("degradation_moves_total", moves)]


def cache_metrics(caches: Sequence[ShrinkableCache]) -> list[CallbackMetric]:
    """Return the caches' sizes and hits."""

    def each(value: Callable[[CacheState], int]) -> Callable[[], list[Sample]]:
        return lambda: [((state.name,), float(value(state))) for state in (cache.state() for cache in caches)]

    return [
        ("cache_entries", each(lambda state: state.entries)),
        ("cache_bytes", each(lambda state: state.bytes)),
        ("cache_hits_total", each(lambda state: state.hits)),
        ("cache_misses_total", each(lambda state: state.misses)),
        ("cache_evictions_total", each(lambda state: state.evictions)),
    ]


def memory_metrics(watch: MemoryWatch) -> list[CallbackMetric]:
    """Return memory as of the last poll, and its limit."""
    return [
        unlabelled("memory_used_bytes", lambda: float(watch.used)),
        unlabelled("memory_limit_bytes", lambda: float(watch.limit.bytes)),
        unlabelled("memory_level", lambda: float(watch.level)),
    ]


def index_build_metrics(upkeep: Callable[[], list[IndexBuildStatus]]) -> list[CallbackMetric]:
    """Return the index builds that run in the store, and the outcomes of past ones."""

    def ended() -> list[Sample]:
        every = upkeep()
        return [
            (("made",), float(sum(one.made for one in every))),
            (("given_up",), float(sum(one.given_up for one in every))),
        ]

    return [
        unlabelled("store_index_builds_in_progress", lambda: float(sum(one.stage != "" for one in upkeep()))),
        ("store_index_builds_total", ended),
    ]
