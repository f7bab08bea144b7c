"""What scrapes are shown: names that the catalogue has, values that move."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from penstock.bus.local import LocalBus
from penstock.core import callback_metrics
from penstock.kernel.context import Context, Criticality
from penstock.kernel.errors import Invalid
from penstock.kernel.messages import REQUEST_TOPICS, Topic
from penstock.kernel.settings import BusSettings, DegradationSettings, GuardSettings, Settings
from penstock.policies.ladder import Rung
from penstock.pools.guard import Guard
from penstock.pools.permits import PoolRegistry
from penstock.search.degradation import LadderController
from penstock.stores.memory_cache import MemoryCache
from penstock.telemetry.catalogue import metric_definition
from penstock.telemetry.memory_watch import MemoryLimit, MemoryWatch
from penstock.telemetry.metrics import CallbackMetric
from tests.clock import virtual
from tests.fakes.loop_clock import LoopClock

Values = dict[str, dict[tuple[str, ...], float]]


def read(table: Iterable[CallbackMetric]) -> Values:
    """Return every reading's samples, held against the catalogue."""
    values: Values = {}
    for name, samples in table:
        values[name] = dict(samples())
        assert all(len(labels) == len(metric_definition(name).labels) for labels in values[name]), name
    return values


def test_each_pool_has_a_topic_that_waits_for_it() -> None:
    assert set(callback_metrics.TOPIC_BY_POOL) == {pool.name for pool in PoolRegistry(Settings()).all()}
    assert set(callback_metrics.TOPIC_BY_POOL.values()) == set(REQUEST_TOPICS)


@virtual
async def test_pools_tell_their_permits_and_what_waits_for_them() -> None:
    pools, bus, release = PoolRegistry(Settings()), LocalBus(BusSettings(), {}, LoopClock()), asyncio.Event()

    async def handle(_message: int, _ctx: Context) -> None:
        await release.wait()

    bus.subscribe(Topic.ML_RERANK, handle, pools.rerank)
    asked = [asyncio.create_task(bus.request(Topic.ML_RERANK, n, Context.background())) for n in range(5)]
    await asyncio.sleep(0.01)
    values = read(callback_metrics.pool_metrics(pools, bus))
    assert (values["worker_pool_active"]["rerank",], values["worker_pool_limit"]["rerank",]) == (2, 2)
    assert (values["worker_pool_queued"]["rerank",], values["worker_pool_queued"]["embed",]) == (3, 0)
    release.set()
    await asyncio.gather(*asked)
    values = read(callback_metrics.pool_metrics(pools, bus))
    assert values["worker_pool_active"]["rerank",] == values["worker_pool_queued"]["rerank",] == 0
    await bus.close()


@virtual
async def test_topics_tell_what_became_of_every_message() -> None:
    bus, pools = LocalBus(BusSettings(), {}, LoopClock()), PoolRegistry(Settings())

    async def handle(message: int, _ctx: Context) -> int:
        if message == 1:
            raise Invalid("not this one")
        if message == 2:
            raise ZeroDivisionError
        if message == 3:
            await asyncio.sleep(60)
        return message

    bus.subscribe(Topic.ML_EMBED, handle, pools.embed)
    hurried = Context.background().within(0.1, "embed", asyncio.get_running_loop().time())
    asked = [bus.request(Topic.ML_EMBED, n, hurried) for n in range(4)]
    await asyncio.gather(*asked, return_exceptions=True)
    await bus.close()
    values = read(callback_metrics.topic_metrics(bus))
    counted = {
        end: values["event_bus_messages_total"][Topic.ML_EMBED, end] for end in callback_metrics.MESSAGE_OUTCOMES
    }
    nothing = dict.fromkeys(callback_metrics.MESSAGE_OUTCOMES, 0.0)
    assert counted == {**nothing, "answered": 1, "failed": 2, "expired_running": 1}
    assert values["event_bus_handler_errors_total"][Topic.ML_EMBED,] == 1
    assert values["event_bus_buffer_used"][Topic.ML_EMBED,] == 0
    assert values["event_bus_refused_total"] == {}


@virtual
async def test_a_breaker_is_told_as_a_number() -> None:
    guard = Guard("store", GuardSettings(failures=1), LoopClock(), patience_s=1, random=lambda: 0.0)
    metrics = callback_metrics.dependency_metrics([guard], {}, dict)
    assert read(metrics)["circuit_breaker_state"] == {("store",): 0.0}

    async def fails() -> None:
        raise OSError

    await asyncio.gather(guard.call("ask", fails), return_exceptions=True)
    assert read(metrics)["circuit_breaker_state"]["store",] == 2


@virtual
async def test_the_ladder_tells_where_it_stands_and_how_it_got_there() -> None:
    def pressure(one: Criticality) -> float:
        return 100.0 if one is Criticality.BULK else 0.0

    rungs = LadderController(DegradationSettings(), pressure, float, LoopClock())
    for _ in range(4):
        rungs.observe_all()
        await asyncio.sleep(0.1)
    values = read(callback_metrics.ladder_metrics(rungs))
    assert values["degradation_level"] == {("interactive",): 0, ("standard",): 0, ("bulk",): 1}
    assert values["degradation_moves_total"] == {("bulk", Rung.FEWER_CANDIDATES.name.lower()): 1}


@virtual
async def test_caches_tell_their_sizes_and_hits() -> None:
    cache = MemoryCache("embed", 1, 10_000, LoopClock())
    await cache.put({b"a": b"1"})
    await cache.put({b"b": b"2"})
    await cache.get([b"a", b"b"])
    values = read(callback_metrics.cache_metrics([cache]))
    assert values["cache_entries"] == {("embed",): 1}
    assert values["cache_bytes"]["embed",] > 0
    told = (values["cache_hits_total"], values["cache_misses_total"], values["cache_evictions_total"])
    assert told == ({("embed",): 1}, {("embed",): 1}, {("embed",): 1})


def test_memory_is_told_as_of_the_last_look() -> None:
    watch = MemoryWatch(MemoryLimit(1000, "setting"), used=lambda _: 950)
    assert read(callback_metrics.memory_metrics(watch))["memory_used_bytes"] == {(): 0}
    watch.poll()
    values = read(callback_metrics.memory_metrics(watch))
    assert values == {"memory_used_bytes": {(): 950}, "memory_limit_bytes": {(): 1000}, "memory_level": {(): 2}}
