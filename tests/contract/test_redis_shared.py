"""What several servers share by way of a real Redis: there, gone, frozen, counted."""

from __future__ import annotations

import asyncio
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.kernel.errors import Invalid, Unavailable
from penstock.kernel.settings import GuardSettings, RedisSettings
from penstock.policies.breaker import BreakerState
from penstock.policies.bucket import RateSettings
from penstock.policies.token_leases import TokenGrant, TokenRequest
from penstock.pools.guard import Guard
from penstock.pools.layered_cache import LayeredCache
from penstock.pools.shared_rates import SharedRates
from penstock.stores.backends.redis.client import EXCHANGE_TIMEOUT_S, pool_connections_max
from penstock.stores.backends.redis.shared import RedisSharedState
from penstock.stores.memory_cache import MemoryCache
from tests.fakes.loop_clock import LoopClock
from tests.rigs import redis


@pytest.fixture
def server(tmp_path: Path) -> Iterator[redis.Redis]:
    redis.needed()
    with redis.redis(tmp_path / "redis", persistent=False) as one:
        yield one


def shared(url: str, prefix: str = "", pool_size: int = 20) -> RedisSharedState:
    return RedisSharedState(RedisSettings(url=url, pool_size=pool_size), prefix or f"test-{uuid.uuid4().hex[:8]}")


def layered(one: RedisSharedState) -> tuple[LayeredCache, Guard]:
    guard = Guard(
        "redis-shared",
        GuardSettings(failures=3, timeout=0.3, successes=1),
        LoopClock(),
        patience_s=0.05,
        random=lambda: 0.5,
    )
    return LayeredCache(MemoryCache("near", 0, 1, LoopClock()), one.cache("embed"), guard), guard


def test_what_was_put_is_found_by_another_server_in_the_order_asked_for():
    async def scenario(url: str) -> None:
        ours, theirs = shared(url, "p"), shared(url, "p")
        odd = {b"\0\xff": b"", b"": b"\0", b"k" * 300: bytes(range(256))}
        await ours.cache("embed").put(odd)
        found = theirs.cache("embed")
        assert await found.get([*odd, b"absent"]) == [*odd.values(), None]
        assert await theirs.cache("sparse").get(list(odd)) == [None] * 3
        assert (found.state().hits, found.state().misses) == (3, 1)
        assert await found.get([]) == []
        await found.put({})
        await ours.cache("embed").put({b"": b"later"})
        assert await found.get([b""]) == [b"later"]
        await ours.close()
        await theirs.close()

    asyncio.run(scenario(redis.shared().url))


def test_what_is_shared_may_be_in_another_redis_than_the_bus():
    async def scenario(url: str) -> None:
        apart = RedisSharedState(RedisSettings(url="redis://127.0.0.1:1/0", shared_url=url, cache=True), "apart")
        await apart.cache("embed").put({b"k": b"v"})
        there = shared(url, "apart")
        assert await there.cache("embed").get([b"k"]) == [b"v"]
        await apart.close()
        await there.close()

    asyncio.run(scenario(redis.shared().url))


def test_an_address_of_it_that_is_none_names_its_own_setting():
    with pytest.raises(Invalid) as caught:
        RedisSharedState(RedisSettings(shared_url="http://redis:6379"), "p")
    assert caught.value.field == "REDIS_SHARED_URL"


def test_there_are_never_more_connections_than_its_share(server):
    async def scenario() -> int:
        one = shared(server.url, pool_size=20)
        cache = one.cache("embed")
        most = 0

        async def ask(n: int) -> None:
            nonlocal most
            try:
                await cache.put({str(n).encode(): bytes(2000)})
            except Unavailable:
                return
            most = max(most, await open_now())

        async def open_now() -> int:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"CLIENT LIST\r\n")
            length = int((await reader.readline())[1:])
            said = await reader.readexactly(length)
            writer.close()
            return said.count(b"name=penstock")

        await asyncio.gather(*(ask(n) for n in range(60)))
        await one.close()
        return most

    assert 1 <= asyncio.run(scenario()) <= pool_connections_max(RedisSettings(pool_size=20)) == 4


def test_a_redis_that_is_killed_costs_nobody_an_error_and_is_used_again_when_it_is_back(server):
    async def scenario() -> None:
        one = shared(server.url)
        cache, guard = layered(one)
        await cache.put({b"a": b"1"})
        assert await cache.get([b"a"]) == [b"1"]
        server.kill()
        for _ in range(5):
            assert await cache.get([b"a"]) == [None]
        assert guard.state is BreakerState.OPEN
        server.start()
        await until(lambda: guard.state is BreakerState.CLOSED, cache)
        await cache.put({b"a": b"2"})
        assert await cache.get([b"a"]) == [b"2"]
        await one.close()

    asyncio.run(scenario())


def test_a_redis_that_answers_nothing_is_given_up_in_milliseconds_then_left_alone(server):
    async def scenario() -> None:
        one = shared(server.url)
        cache, guard = layered(one)
        await cache.put({b"a": b"1"})
        server.freeze()
        began_s = time.monotonic()
        for _ in range(3):
            assert await cache.get([b"a"]) == [None]
        assert time.monotonic() - began_s < 3 * EXCHANGE_TIMEOUT_S + 1.0
        assert guard.state is BreakerState.OPEN
        server.thaw()
        await until(lambda: guard.state is BreakerState.CLOSED, cache)
        assert await cache.get([b"a"]) == [b"1"]
        await one.close()

    asyncio.run(scenario())


async def until(true: Any, cache: LayeredCache) -> None:
    """Ask the cache now and then until something has come true."""
    end_s = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end_s
        await cache.get([b"probe"])
        await asyncio.sleep(0.02)


def test_another_program_and_nobody_at_the_address_are_unavailable():
    async def scenario(url: str) -> None:
        one = shared(url)
        with pytest.raises(Unavailable):
            await one.cache("c").get([b"a"])
        await one.close()

    with socket.create_server(("127.0.0.1", 0)) as silent:
        asyncio.run(scenario(f"redis://127.0.0.1:{silent.getsockname()[1]}"))
    asyncio.run(scenario("redis://127.0.0.1:9"))


def test_an_address_that_is_none_of_redis_is_refused():
    with pytest.raises(Invalid, match="no address of a Redis"):
        shared("http://redis:6379")


# Rates


RATES = RateSettings(20.0, 40.0)


async def reserve(one: RedisSharedState, *asks: TokenRequest) -> list[TokenGrant]:
    return await one.token_buckets().reserve(asks, RATES.rate, RATES.burst)


def test_a_bucket_gives_what_it_has_charges_what_is_owed_and_fills_by_redis_s_own_clock():
    async def scenario(url: str) -> None:
        one, other = shared(url, "r1"), shared(url, "r1")
        assert await reserve(one) == []
        [first] = await reserve(one, TokenRequest("a", 10, 10.0))
        assert (first.tokens, first.level) == (10, 20.0)
        [second] = await reserve(other, TokenRequest("a", 30, 0.0))
        assert second.tokens == pytest.approx(20, abs=2)
        [debt] = await reserve(one, TokenRequest("a", 10, 15.0))
        assert debt.tokens == 0
        assert debt.level == pytest.approx(-15, abs=2)
        await asyncio.sleep(0.2)
        [later] = await reserve(one, TokenRequest("a", 0, 0.0))
        assert later.level > debt.level + 3
        a, b = await reserve(one, TokenRequest("a", 0, -100.0), TokenRequest("b", 5, 0.0))
        assert (a.level, b.tokens, b.level) == (40.0, 5, 35.0)
        for each in (one, other):
            await each.close()

    asyncio.run(scenario(redis.shared().url))


def test_a_full_bucket_is_no_key_and_another_is_forgotten_in_time(server):
    async def scenario() -> None:
        one = shared(server.url, "r2")
        await reserve(one, TokenRequest("a", 4, 0.0), TokenRequest("b", 0, 0.0))

        async def look(link: Any) -> Any:
            return await link.keys("*"), await link.pttl("r2:rate:a")

        keys, left_ms = await one._client.execute(look)
        assert keys == [b"r2:rate:a"]
        assert 0 < left_ms <= 1201
        await one.close()

    asyncio.run(scenario())


def test_servers_hold_a_client_to_one_rate_and_go_on_alone_without_redis(server):
    async def scenario() -> None:
        parts = [shared(server.url, "r3") for _ in range(3)]
        guards = [
            Guard(
                "redis-shared",
                GuardSettings(failures=2, timeout=0.2, successes=1),
                LoopClock(),
                patience_s=0.05,
                random=lambda: 0.5,
            )
            for _ in parts
        ]
        servers = [
            SharedRates(RATES, one.token_buckets(), guard, LoopClock())
            for one, guard in zip(parts, guards, strict=True)
        ]
        for one in servers:
            one.start()
        loop = asyncio.get_running_loop()
        began_s, count = loop.time(), 0
        while loop.time() < began_s + 2.0:
            await asyncio.sleep(0.002)
            count += sum(one.limiter.decide("a", loop.time()).allowed for one in servers)
        took_s = loop.time() - began_s
        assert count <= RATES.burst + RATES.rate * took_s + 3 * RATES.burst / 4
        assert count >= 0.7 * (RATES.burst + RATES.rate * took_s)
        server.kill()
        end_s = loop.time() + 20
        while not all(one.limiter.is_isolated for one in servers):
            assert loop.time() < end_s
            for number, one in enumerate(servers):
                for _ in range(10):
                    one.limiter.decide(f"{number}", loop.time())
            await asyncio.sleep(0.01)
        assert [sum(one.limiter.decide("z", loop.time()).allowed for _ in range(99)) for one in servers] == [40] * 3
        server.start()
        while any(one.limiter.is_isolated for one in servers):
            assert loop.time() < end_s + 20
            await asyncio.sleep(0.05)
        for one in (*servers, *parts):
            await one.close()

    asyncio.run(scenario())
