"""The wiring itself, and alerts on their way to the bus; what it does under load is in ``tests/simulation``."""

from __future__ import annotations

import asyncio

from penstock.core.core import ALERTS_IN_FLIGHT_MAX
from penstock.kernel.messages import Topic
from penstock.policies.alerts import ALERT_RULES, RaisedAlert, Timestamp
from penstock.pools.permits import Permits
from tests.clock import quiet, virtual
from tests.simulation.world import World, changed

(RULE,) = (rule for rule in ALERT_RULES if rule.name == "many_tasks")
ALERT = RaisedAlert(RULE, "", 20_000.0, Timestamp(0.0, 0.0))


@virtual
async def test_reasons_are_its_own_and_those_of_its_parts() -> None:
    async with World() as world:
        assert world.core.unready_reasons() == []
        world.reasons.append("the store process is not running")
        assert world.core.unready_reasons() == ["the store process is not running"]
        world.gate.traffic.draining = True
        assert world.core.unready_reasons() == ["the server is shutting down", "the store process is not running"]
        assert (await world.ask("GET", "/readyz")).status == 503


@virtual
async def test_its_repr_is_a_status_line() -> None:
    async with World() as world:
        assert "in flight" in repr(world.core)
        assert "interactive full" in repr(world.core)


@virtual
async def test_announcements_are_published_and_forgotten() -> None:
    async with World() as world:
        world.core.alert_publisher.publish(ALERT)
        await quiet()
        assert [(one.name, one.detail, one.active) for one in world.told] == [("many_tasks", ALERT.detail, True)]
        assert len(world.core.alert_publisher) == 0


@virtual
async def test_announcements_that_find_no_room_are_bounded_and_end_with_the_bus() -> None:
    never = asyncio.Event()
    async with World(settings=changed(bus={"buffer_size": 4, "publish_timeout": 60.0})) as world:

        async def deaf(_alert: object, _ctx: object) -> None:
            await never.wait()

        world.core.bus.subscribe(Topic.ALERT_TRIGGERED, deaf, Permits("deaf", 1))
        for _ in range(ALERTS_IN_FLIGHT_MAX + 50):
            world.core.alert_publisher.publish(ALERT)
            await asyncio.sleep(0)
        assert len(world.core.alert_publisher) == ALERTS_IN_FLIGHT_MAX
    assert len(world.core.alert_publisher) == 0
