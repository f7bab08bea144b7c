"""A near cache before a far one that others share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from penstock.kernel.errors import Unavailable
from penstock.kernel.settings import GuardSettings
from penstock.policies.breaker import BreakerState
from penstock.pools.guard import Guard
from penstock.pools.layered_cache import LayeredCache
from penstock.stores.memory_cache import MemoryCache
from tests.clock import virtual
from tests.fakes.loop_clock import LoopClock


class Far(MemoryCache):
    """A far cache that may be gone."""

    def __init__(self) -> None:
        super().__init__("far", 100, 10**6, LoopClock())
        self.gone = False
        self.asked: list[list[bytes]] = []

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        self.asked.append(list(keys))
        self._check()
        return await super().get(keys)

    async def put(self, entries: Mapping[bytes, bytes]) -> None:
        self._check()
        await super().put(entries)

    def _check(self) -> None:
        if self.gone:
            raise Unavailable("gone", dependency="far")


def layers(far: Far) -> tuple[LayeredCache, MemoryCache, Guard]:
    near = MemoryCache("near", 100, 10**6, LoopClock())
    settings = GuardSettings(failures=2, timeout=5.0, successes=1)
    guard = Guard("far", settings, LoopClock(), patience_s=0.05, random=lambda: 0.5)
    return LayeredCache(near, far, guard), near, guard


@virtual
async def test_what_one_server_has_put_another_finds_and_keeps():
    far = Far()
    ours, _, _ = layers(far)
    theirs, near, _ = layers(far)
    await ours.put({b"a": b"1", b"b": b"2"})
    assert await theirs.get([b"b", b"x", b"a"]) == [b"2", None, b"1"]
    assert await near.get([b"a", b"b"]) == [b"1", b"2"]


@virtual
async def test_only_what_is_missing_is_asked_for():
    far = Far()
    cache, _, _ = layers(far)
    await cache.put({b"a": b"1"})
    assert await cache.get([b"a"]) == [b"1"]
    assert far.asked == []
    assert await cache.get([b"a", b"x"]) == [b"1", None]
    assert far.asked == [[b"x"]]


@virtual
async def test_a_far_cache_that_is_gone_has_forgotten_everything_and_is_left_alone():
    far = Far()
    cache, _, guard = layers(far)
    far.gone = True
    await cache.put({b"a": b"1"})
    assert await cache.get([b"a", b"x"]) == [b"1", None]
    assert guard.state is BreakerState.OPEN
    asked = len(far.asked)
    assert await cache.get([b"x"]) == [None]
    assert len(far.asked) == asked


@virtual
async def test_it_is_asked_again_when_it_is_back():
    import asyncio

    far = Far()
    cache, _, guard = layers(far)
    far.gone = True
    for _ in range(3):
        await cache.get([b"x"])
    far.gone = False
    await far.put({b"x": b"9"})
    await asyncio.sleep(10)
    assert await cache.get([b"x"]) == [b"9"]
    assert guard.state is BreakerState.CLOSED


@virtual
async def test_shrinking_is_the_near_one_s_affair():
    far = Far()
    cache, near, _ = layers(far)
    await cache.put({b"a": b"1"})
    cache.shrink(0.0)
    assert (near.state().entries, far.state().entries) == (0, 1)
    assert cache.state().name == "near"
