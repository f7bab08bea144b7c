"""The wiring itself; what it does under load is in ``tests/simulation``."""

from __future__ import annotations

import asyncio

from penstock.core.announcing import ANNOUNCEMENTS_MAX
from penstock.core.guards import patience
from penstock.kernel.messages import Topic
from penstock.kernel.settings import TimeoutSettings
from penstock.pools.permits import Permits
from penstock.telemetry.alarms import AlertRecord
from tests.clock import quiet, virtual
from tests.simulation.world import World, changed

RECORD = AlertRecord("many_tasks", "warning", "", "too many", active=True, since="now", until=None)


def test_a_dependency_that_hangs_is_found_out_by_searches_too() -> None:
    told = patience(TimeoutSettings(search=10, embed=30, store=60, rerank=8))
    assert told == {"store": 5, "embed": 5, "sparse": 5, "rerank": 4}
    assert patience(TimeoutSettings(search=100, store=10))["store"] == 5


@virtual
async def test_reasons_are_its_own_and_those_of_its_parts() -> None:
    async with World() as world:
        assert world.core.reasons() == []
        world.reasons.append("the store process is not running")
        assert world.core.reasons() == ["the store process is not running"]
        world.core.gate.draining = True
        assert world.core.reasons() == ["the server is shutting down", "the store process is not running"]
        assert (await world.ask("GET", "/readyz")).status == 503


@virtual
async def test_announcements_are_published_and_forgotten() -> None:
    async with World() as world:
        world.core.announcements.publish(RECORD)
        await quiet()
        assert [(one.name, one.detail, one.active) for one in world.told] == [("many_tasks", "too many", True)]
        assert len(world.core.announcements) == 0


@virtual
async def test_announcements_that_find_no_room_are_bounded_and_end_with_the_bus() -> None:
    never = asyncio.Event()
    async with World(settings=changed(bus={"buffer_size": 4, "publish_timeout": 60.0})) as world:

        async def deaf(_alert: object, _work: object) -> None:
            await never.wait()

        world.core.bus.subscribe(Topic.ALERT_TRIGGERED, deaf, Permits("deaf", 1))
        for _ in range(ANNOUNCEMENTS_MAX + 50):
            world.core.announcements.publish(RECORD)
            await asyncio.sleep(0)
        assert len(world.core.announcements) == ANNOUNCEMENTS_MAX
    assert len(world.core.announcements) == 0


@virtual
async def test_its_repr_is_a_status_line() -> None:
    async with World() as world:
        assert "in flight" in repr(world.core)
        assert "interactive full" in repr(world.core)
