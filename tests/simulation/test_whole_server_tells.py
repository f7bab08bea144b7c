"""What the whole server tells of itself: alerts, metrics, status."""

from __future__ import annotations

import asyncio

from tests.clock import quiet, virtual
from tests.fakes.faults import Mood
from tests.simulation.world import CAPACITY, CROWD, World


@virtual
async def test_alerts_are_raised_published_listed_and_called_off():
    async with World() as world:
        world.disk.turn(Mood.DEAD)
        for _ in range(6):
            await world.search()
        await quiet()
        told = [(one.name, one.severity, one.subject, one.active) for one in world.told]
        assert told == [("breaker_open", "critical", "store", True)]
        [alert] = (await world.ask("GET", "/v1/alerts")).json["alerts"]
        assert (alert["name"], alert["active"], "until" in alert) == ("breaker_open", True, False)
        assert world.metric("alerts_active", severity="critical") == 1
        world.disk.turn(Mood.WELL)
        await asyncio.sleep(10)
        for _ in range(3):
            await world.search()
        await asyncio.sleep(12)
        assert [(one.name, one.active) for one in world.told] == [("breaker_open", True), ("breaker_open", False)]
        [alert] = (await world.ask("GET", "/v1/alerts")).json["alerts"]
        assert (alert["active"], "until" in alert) == (False, True)
        assert world.metric("alerts_active", severity="critical") == 0
        assert world.metric("alerts_raised_total", alert="breaker_open", severity="critical") == 1


@virtual
async def test_a_queue_that_fills_is_an_alert_and_its_burst_is_seen_at_the_next_scrape():
    async with World() as world:
        asked = [asyncio.create_task(world.search(client=CROWD[number % 20])) for number in range(60)]
        await asyncio.sleep(1.2)
        await asyncio.gather(*asked)
        await asyncio.sleep(3)
        assert world.metric("event_bus_buffer_used", topic="search.request") == 0
        assert world.metric("event_bus_buffer_used_max", topic="search.request") >= 0.9
        assert world.metric("http_concurrent_requests_max") >= 36
        assert world.metric("event_bus_level_reached_total", topic="search.request", level="critical") >= 1


@virtual
async def test_the_metrics_have_their_names_and_move():
    async with World() as world:
        asked = [asyncio.create_task(world.search(client=CROWD[number % 20])) for number in range(20)]
        await asyncio.sleep(0.03)
        assert world.metric("worker_pool_active", pool="search") == 4
        assert world.metric("worker_pool_active", pool="embed") == 2
        assert world.metric("worker_pool_queued", pool="search") == 16
        assert world.metric("event_bus_buffer_used", topic="search.request") == 16 / 40
        assert world.metric("http_concurrent_requests") == 20
        assert world.metric("circuit_breaker_state", dependency="store") == 0
        assert world.metric("task_count") >= 20
        assert world.metric("goroutine_count") == world.metric("task_count") + world.metric("thread_count")
        await asyncio.gather(*asked)
        text = (await world.ask("GET", "/metrics")).json
        for name in SPEC_METRICS:
            assert f"\n{name}{{" in text or f"\n{name} " in text, name
        assert world.metric("http_responses_total", in_time="true") == 20
        assert world.metric("cache_misses_total", cache="embed") == 20
        await world.search("alpha")
        await world.search("alpha")
        assert world.metric("cache_hits_total", cache="embed") >= 1
        world.books.check_at_rest()


#: SPEC §10, M1 to M6.
SPEC_METRICS = (
    "worker_pool_active",
    "worker_pool_queued",
    "event_bus_buffer_used",
    "goroutine_count",
    "task_count",
    "thread_count",
    "http_concurrent_requests",
    "circuit_breaker_state",
    "event_bus_wait_seconds_count",
    "event_bus_slack_seconds_count",
    "http_responses_total",
    "event_bus_messages_total",
    "degradation_level",
    "cache_hits_total",
    "search_stage_seconds_count",
    "event_loop_lag_seconds_count",
    "event_bus_buffer_used_max",
    "http_concurrent_requests_max",
)


@virtual
async def test_status_is_told_while_everything_fails():
    async with World() as world:
        for one in world.dependencies():
            one.turn(Mood.DEAD)
        await world.flood(CAPACITY, 1)
        for _ in range(5):
            await world.ask("GET", "/v1/collections")
        status = await world.ask("GET", "/v1/status")
        assert status.status == 200
        states = {one["dependency"]: one["state"] for one in status.json["breakers"]}
        assert states == {"store": "open", "embed": "open", "sparse": "open", "rerank": "closed"}
        assert any("no collections" in reason for reason in status.json["reasons"])
