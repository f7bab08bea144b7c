"""What the core shows to a scrape (SPEC §10); names, kinds and labels are in the catalogue."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Final

from penstock.bus.contract import Bus, TopicState
from penstock.bus.link import Link
from penstock.kernel.messages import Topic
from penstock.pools.guard import Guard
from penstock.pools.house import Pools
from penstock.pools.remote import Remote
from penstock.search.rungs import Rungs
from penstock.stores.cache import CacheState, Remembering
from penstock.stores.records import Upkeep
from penstock.telemetry.memory import MemoryWatch
from penstock.telemetry.metrics import Reading, Sample, single

#: The topic that waits for each pool.
TOPIC_OF: Final = {
    "embed": Topic.ML_EMBED,
    "sparse": Topic.ML_SPARSE,
    "rerank": Topic.ML_RERANK,
    "search": Topic.SEARCH_REQUEST,
    "index": Topic.INDEX_REQUEST,
    "chunk": Topic.INDEX_CHUNK,
}

#: The ends of a message, as :class:`penstock.bus.books.Counts` counts them.
OUTCOMES: Final = ("answered", "failed", "expired_waiting", "expired_running", "discarded", "left", "lost")


def pool_readings(pools: Pools, bus: Bus) -> list[Reading]:
    """Return the pools' permits and what waits for them (M1)."""

    def queued() -> Iterable[Sample]:
        waiting = {state.name: state.waiting for state in bus.state()}
        return [((pool,), float(waiting.get(topic, 0))) for pool, topic in TOPIC_OF.items()]

    return [
        ("worker_pool_active", lambda: [((one.name,), float(one.active)) for one in pools.all()]),
        ("worker_pool_limit", lambda: [((one.name,), float(one.limit)) for one in pools.all()]),
        ("worker_pool_queued", queued),
    ]


def topic_readings(bus: Bus) -> list[Reading]:
    """Return the topics' fill (M2) and what became of every message (M6)."""

    def each(value: Callable[[TopicState], float]) -> Callable[[], list[Sample]]:
        return lambda: [((state.name,), float(value(state))) for state in bus.state()]

    def messages() -> list[Sample]:
        return [((s.name, end), float(getattr(s.counts, end))) for s in bus.state() for end in OUTCOMES]

    def refused() -> list[Sample]:
        return [((s.name, why), float(count)) for s in bus.state() for why, count in s.counts.refused.items()]

    return [
        ("event_bus_buffer_used", each(lambda state: state.used)),
        ("event_bus_messages_total", messages),
        ("event_bus_refused_total", refused),
        ("event_bus_late_replies_total", each(lambda state: state.counts.late)),
        ("event_bus_handler_errors_total", each(lambda state: state.counts.raised)),
    ]


def guard_readings(guards: Iterable[Guard | Link]) -> list[Reading]:
    """Return the breakers' states (M5)."""
    every = tuple(guards)
    return [("circuit_breaker_state", lambda: [((one.dependency,), float(one.state)) for one in every])]


def remote_readings(remotes: Mapping[str, Remote]) -> list[Reading]:
    """Return what became of calls to other servers."""

    def calls() -> list[Sample]:
        return [((name, what), float(n)) for name, one in remotes.items() for what, n in asdict(one.counts).items()]

    return [("dependency_calls_total", calls)]


def connection_readings(connections: Callable[[], Mapping[str, int]]) -> list[Reading]:
    """Return how many connections are open to each server elsewhere (L3–L5)."""
    return [("dependency_connections", lambda: [((name,), float(n)) for name, n in connections().items()])]


def ladder_readings(rungs: Rungs) -> list[Reading]:
    """Return where the ladder stands and how it got there."""

    def level() -> list[Sample]:
        return [((one.name.lower(),), float(rung)) for one, rung in rungs.state().items()]

    def moves() -> list[Sample]:
        return [((one.name.lower(), rung.name.lower()), float(n)) for (one, rung), n in rungs.moves.items()]

    return [("degradation_level", level), ("degradation_moves_total", moves)]


def cache_readings(caches: Sequence[Remembering]) -> list[Reading]:
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


def memory_readings(watch: MemoryWatch) -> list[Reading]:
    """Return memory as of the last look, and its limit."""
    return [
        single("memory_used_bytes", lambda: float(watch.used)),
        single("memory_limit_bytes", lambda: float(watch.limit.bytes)),
        single("memory_level", lambda: float(watch.level)),
    ]


def upkeep_readings(upkeep: Callable[[], list[Upkeep]]) -> list[Reading]:
    """Return what becomes of the store's generations."""

    def ended() -> list[Sample]:
        every = upkeep()
        return [
            (("made",), float(sum(one.made for one in every))),
            (("given_up",), float(sum(one.given_up for one in every))),
        ]

    return [
        single("store_generations_making", lambda: float(sum(one.stage != "" for one in upkeep()))),
        ("store_generations_total", ended),
    ]
