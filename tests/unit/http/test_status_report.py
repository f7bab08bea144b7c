"""What ``/v1/status`` says of each part."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from msgspec import UNSET

from penstock.bus.counters import TopicCounters
from penstock.bus.management import TopicState
from penstock.http import responses, status_report
from penstock.kernel.settings import GuardSettings
from penstock.policies.alerts import ALERT_RULES, RaisedAlert, Timestamp
from penstock.policies.levels import Level
from penstock.pools.guard import Guard
from tests.clock import virtual
from tests.fakes.loop_clock import LoopClock
from tests.simulation.world import MEMORY_BYTES, World


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


@virtual
async def test_a_server_tells_its_ladder_memory_caches_and_process() -> None:
    async with World() as world:
        await world.search("alpha")
        await asyncio.sleep(1.5)
        told = status_report.server_status(world.core, [])
        assert told.ladder[0] == responses.RungStatus("interactive", "full", 0)
        used = int(world.memory_share * MEMORY_BYTES)
        assert told.memory == responses.MemoryStatus(used, MEMORY_BYTES, "setting", "calm")
        embed = next(one for one in told.caches if one.name == "embed")
        assert (embed.entries, embed.hits, embed.misses) == (1, 0, 1)
        assert told.process.tasks >= 1
        assert told.process.threads >= 1
        assert (told.traffic.in_flight, told.traffic.in_time) == (0, 1)


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
