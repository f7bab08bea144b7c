"""What ``/v1/status`` says of each part."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from msgspec import UNSET

from penstock.bus.counters import TopicCounters
from penstock.bus.management import TopicState
from penstock.core import status_report
from penstock.http import responses
from penstock.kernel.context import Criticality, LoopClock
from penstock.kernel.settings import GuardSettings
from penstock.policies.alerts import ALERT_RULES, RaisedAlert, Timestamp
from penstock.policies.ladder import Rung
from penstock.policies.levels import Level
from penstock.pools.guard import Guard
from penstock.stores.backends.memory_cache import MemoryCache
from penstock.telemetry.memory_watch import MemoryLimit, MemoryWatch
from tests.clock import virtual


def test_a_topic_tells_its_books_and_both_ways_of_expiring_together() -> None:
    counts = TopicCounters(
        offered=10, answered=3, expired_waiting=1, expired_running=2, discarded=1, refused={"hopeless": 3}
    )
    told = status_report.topic_status(
        TopicState("t", 4, 10, 2, blocked=1, level=Level.HIGH, congested=True, counts=counts)
    )
    assert (told.waiting, told.capacity, told.running, told.blocked) == (4, 10, 2, 1)
    assert (told.level, told.congested, told.offered, told.expired, told.discarded) == ("high", True, 10, 3, 1)
    assert told.refused == {"hopeless": 3}
    assert told.refused is not counts.refused


@virtual
async def test_a_breaker_tells_its_state_in_words_and_when_to_come_back() -> None:
    guard = Guard("store", GuardSettings(failures=1, timeout=30), LoopClock(), patience_s=1, random=lambda: 0.0)

    async def fails() -> None:
        raise OSError

    async def hangs() -> None:
        await asyncio.Event().wait()

    assert status_report.breaker_status(guard) == responses.BreakerStatus("store", "closed", 0.0)
    await asyncio.gather(guard.call("ask", fails), return_exceptions=True)
    assert status_report.breaker_status(guard) == responses.BreakerStatus("store", "open", 30.0)
    await asyncio.sleep(31)
    probe = asyncio.create_task(guard.call("ask", hangs))
    await asyncio.sleep(0)
    assert status_report.breaker_status(guard).state == "half-open"
    probe.cancel()
    await asyncio.gather(probe, return_exceptions=True)


def test_the_ladder_tells_each_class_its_rung_in_words_and_as_a_number() -> None:
    told = status_report.ladder_status({Criticality.INTERACTIVE: Rung.FULL, Criticality.BULK: Rung.ONE_ARM})
    assert told == [responses.RungStatus("interactive", "full", 0), responses.RungStatus("bulk", "one_arm", 3)]


@virtual
async def test_caches_tell_their_numbers() -> None:
    cache = MemoryCache("embed", 10, 10_000, LoopClock())
    await cache.put({b"a": b"1"})
    await cache.get([b"a", b"b"])
    [told] = status_report.cache_status([cache])
    assert (told.name, told.entries, told.hits, told.misses, told.evictions) == ("embed", 1, 1, 1, 0)


def test_memory_tells_its_limit_and_where_that_comes_from() -> None:
    watch = MemoryWatch(MemoryLimit(1000, "cgroup"), used=lambda _: 850)
    watch.poll()
    assert status_report.memory_status(watch) == responses.MemoryStatus(850, 1000, "cgroup", "high")


def test_an_active_alert_has_no_end() -> None:
    (rule,) = (rule for rule in ALERT_RULES if rule.name == "breaker_open")
    alert = RaisedAlert(rule, "store", 2.0, Timestamp(0.0, 1_767_225_600.0))
    assert status_report.alert_status(alert) == responses.AlertStatus(
        *("breaker_open", "critical", "store", alert.detail),
        active=True,
        since="2026-01-01T00:00:00.000Z",
        until=UNSET,
    )
    ended = replace(alert, until=Timestamp(11.0, 1_767_225_611.0))
    told = status_report.alert_status(ended)
    assert (told.active, told.until) == (False, "2026-01-01T00:00:11.000Z")


@virtual
async def test_the_process_tells_its_tasks_and_the_loops_lag_in_milliseconds() -> None:
    told = status_report.process_status(0.0125)
    assert (told.tasks, told.loop_lag_ms_max) == (1, 12.5)
    assert told.threads >= 1
