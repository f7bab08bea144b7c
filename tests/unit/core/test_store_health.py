"""The store's pulse: a server that is away is known without anybody asking for anything."""

from __future__ import annotations

import asyncio

from penstock.core.guards import StoreHealthCheck
from penstock.kernel.context import Context
from penstock.kernel.errors import Unavailable
from penstock.kernel.settings import GuardSettings
from penstock.policies.breaker import BreakerState
from penstock.pools.guard import Guard
from tests.clock import virtual
from tests.fakes.loop_clock import LoopClock


class Store:
    """A server that is there, away, or silent."""

    def __init__(self) -> None:
        self.how = "there"
        self.asked = 0

    async def look(self, _ctx: Context) -> None:
        self.asked += 1
        if self.how == "away":
            raise Unavailable("nobody there", dependency="store")
        if self.how == "silent":
            await asyncio.sleep(3600)


def guard() -> Guard:
    settings = GuardSettings(failures=3, timeout=10.0, successes=2)
    return Guard("store", settings, LoopClock(), patience_s=2.0, random=lambda: 0.0)


async def felt(pulse: StoreHealthCheck, seconds: int) -> None:
    for _ in range(seconds):
        pulse.poll()
        await asyncio.sleep(1.0)


@virtual
async def test_a_store_that_is_away_opens_its_breaker_and_is_found_again():
    store, breaker = Store(), guard()
    pulse = StoreHealthCheck(store.look, breaker, LoopClock())
    await felt(pulse, 5)
    assert (store.asked, breaker.state) == (5, BreakerState.CLOSED)
    store.how = "away"
    await felt(pulse, 3)
    assert breaker.state is BreakerState.OPEN
    await felt(pulse, 5)
    assert store.asked == 8, "an open breaker keeps questions away too"
    store.how = "there"
    await felt(pulse, 12)
    assert breaker.state is BreakerState.CLOSED
    await pulse.close()


@virtual
async def test_a_store_that_is_silent_is_away_and_has_one_question_at_most():
    store, breaker = Store(), guard()
    store.how = "silent"
    pulse = StoreHealthCheck(store.look, breaker, LoopClock())
    await felt(pulse, 12)
    assert breaker.state is BreakerState.OPEN
    assert store.asked == 3
    await pulse.close()


@virtual
async def test_a_question_that_is_out_ends_with_the_pulse():
    store = Store()
    store.how = "silent"
    pulse = StoreHealthCheck(store.look, guard(), LoopClock())
    pulse.poll()
    await asyncio.sleep(0.1)
    await pulse.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}
