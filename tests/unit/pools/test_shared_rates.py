"""Leased tokens are fetched in the background; without their source each server decides alone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from penstock.kernel.errors import Unavailable
from penstock.kernel.settings import GuardSettings
from penstock.policies.breaker import BreakerState
from penstock.policies.bucket import RateSettings
from penstock.policies.token_leases import TokenGrant, TokenRequest
from penstock.pools.guard import Guard
from penstock.pools.shared_rates import PROBE_S, SharedRates
from tests.clock import virtual
from tests.fakes.loop_clock import LoopClock
from tests.unit.policies.test_token_leases import BURST, RATE, Buckets

SETTINGS = RateSettings(RATE, BURST)


class Source:
    """Shared buckets, a millisecond away."""

    def __init__(self) -> None:
        self.buckets = Buckets()
        self.gone = False
        self.exchanges = 0

    async def reserve(self, asks: Sequence[TokenRequest], rate: float, burst: float) -> list[TokenGrant]:
        assert (rate, burst) == (RATE, BURST)
        self.exchanges += 1
        await asyncio.sleep(0.001)
        if self.gone:
            raise Unavailable("gone", dependency="redis-shared")
        return self.buckets.reserve(asks, asyncio.get_running_loop().time())


def server(source: Source) -> tuple[SharedRates, Guard]:
    settings = GuardSettings(failures=2, timeout=1.0, successes=1)
    guard = Guard("redis-shared", settings, LoopClock(), patience_s=0.05, random=lambda: 0.5)
    return SharedRates(SETTINGS, source, guard, LoopClock()), guard


def now() -> float:
    return asyncio.get_running_loop().time()


@virtual
async def test_two_servers_hold_a_client_to_one_rate():
    source = Source()
    servers = [server(source)[0] for _ in range(2)]
    for one in servers:
        one.start()
    count, began_s = 0, now()
    while now() < began_s + 10:
        await asyncio.sleep(0.01)
        for one in servers:
            count += one.limiter.decide("a", now()).allowed
    for one in servers:
        await one.close()
    assert 0.9 * (BURST + RATE * 10) <= count <= BURST + RATE * 10 + 2 * BURST / 4


@virtual
async def test_nobody_is_asked_while_nobody_comes():
    source = Source()
    one, _ = server(source)
    one.start()
    await asyncio.sleep(60)
    assert source.exchanges == 0
    await one.close()


@virtual
async def test_a_source_that_is_gone_leaves_each_server_alone_and_is_taken_up_again():
    source = Source()
    one, guard = server(source)
    one.start()
    one.limiter.decide("a", now())
    source.gone = True
    for _ in range(30):
        one.limiter.decide("a", now())
    await asyncio.sleep(1)
    assert one.limiter.is_isolated
    assert sum(one.limiter.decide("b", now()).allowed for _ in range(100)) == BURST
    await asyncio.sleep(3 * PROBE_S)
    assert guard.state is not BreakerState.CLOSED
    source.gone = False
    await asyncio.sleep(15)
    assert guard.state is BreakerState.CLOSED
    assert not one.limiter.is_isolated
    await one.close()


@virtual
async def test_idle_tokens_go_back_when_the_heartbeat_looks():
    source = Source()
    one, _ = server(source)
    one.start()
    for _ in range(8):
        one.limiter.decide("a", now())
    await asyncio.sleep(2)
    one.sweep()
    await asyncio.sleep(6)
    for _ in range(3):
        one.sweep()
        await asyncio.sleep(1)
    assert len(one.limiter) == 0
    assert source.buckets.levels["a"][0] == BURST
    await one.close()


@virtual
async def test_closing_before_the_start_and_twice_is_harmless():
    one, _ = server(Source())
    await one.close()
    one.start()
    await one.close()
    await one.close()
