"""One suite over the contract of ``Cache``; what a backend cannot do, its features say.

Redis needs a real loop: ``test_redis_shared.py`` shows the same of it.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from penstock.kernel.settings import GuardSettings
from penstock.pools.guard import Guard
from penstock.pools.layered_cache import LayeredCache
from penstock.stores.key_value_cache import KeyValueCache
from penstock.stores.memory_cache import ENTRY_BYTES, MemoryCache
from tests.clock import virtual
from tests.fakes.loop_clock import LoopClock


@dataclass(frozen=True)
class Backend:
    """How to make a cache, and what it can do.

    Attributes:
        make: From entries, bytes and seconds at most.
        local: Whether it lives in this process: its bounds are its own, and it shrinks.
    """

    make: Callable[[int, int, float], KeyValueCache]
    local: bool = True

    def cache(self, entries: int = 100, size: int = 1_000_000, ttl_s: float = 60.0) -> KeyValueCache:
        return self.make(entries, size, ttl_s)


def layered(entries: int, size: int, ttl_s: float) -> LayeredCache:
    near, far = (MemoryCache("c", entries, size, LoopClock(), ttl_s) for _ in range(2))
    return LayeredCache(near, far, Guard("far", GuardSettings(), LoopClock(), patience_s=1.0, random=lambda: 0.5))


BACKENDS = {
    "layered": Backend(layered, local=False),
    "memory": Backend(lambda entries, size, ttl_s: MemoryCache("c", entries, size, LoopClock(), ttl_s)),
}


@pytest.fixture(params=BACKENDS.values(), ids=BACKENDS.keys())
def backend(request):
    return request.param


@pytest.fixture
def local(backend):
    if not backend.local:
        pytest.skip("its bounds are another process's")
    return backend


@virtual
async def test_what_was_put_is_found_in_the_order_asked_for(backend):
    cache = backend.cache()
    await cache.put({b"a": b"1", b"b": b"2"})
    assert await cache.get([b"b", b"x", b"a", b"b"]) == [b"2", None, b"1", b"2"]
    assert await cache.get([]) == []


@virtual
async def test_keys_and_values_are_any_bytes(backend):
    cache = backend.cache()
    odd = {b"\0\xff": b"", b"": b"\0", b"k" * 300: bytes(range(256))}
    await cache.put(odd)
    assert await cache.get(list(odd)) == list(odd.values())


@virtual
async def test_a_later_value_replaces_an_earlier_one(backend):
    cache = backend.cache()
    await cache.put({b"a": b"1"})
    await cache.put({b"a": b"22"})
    assert await cache.get([b"a"]) == [b"22"]


@virtual
async def test_an_entry_is_forgotten_at_its_age(backend):
    cache = backend.cache(ttl_s=60)
    await cache.put({b"a": b"1"})
    await asyncio.sleep(59.9)
    assert await cache.get([b"a"]) == [b"1"]
    await asyncio.sleep(0.1)
    assert await cache.get([b"a"]) == [None]


@virtual
async def test_putting_again_makes_an_entry_young(backend):
    cache = backend.cache(ttl_s=60)
    await cache.put({b"a": b"1"})
    await asyncio.sleep(40)
    await cache.put({b"a": b"1"})
    await asyncio.sleep(40)
    assert await cache.get([b"a"]) == [b"1"]


@virtual
async def test_hits_and_misses_are_counted(backend):
    cache = backend.cache()
    await cache.put({b"a": b"1"})
    await cache.get([b"a", b"x", b"a"])
    assert (cache.state().hits, cache.state().misses) == (2, 1)
    assert cache.state().name == "c"


@virtual
async def test_the_least_recently_used_entry_goes_first(local):
    cache = local.cache(entries=2)
    await cache.put({b"a": b"1", b"b": b"2"})
    await cache.get([b"a"])
    await cache.put({b"c": b"3"})
    assert await cache.get([b"a", b"b", b"c"]) == [b"1", None, b"3"]
    assert (cache.state().entries, cache.state().evictions) == (2, 1)


@virtual
async def test_bytes_are_bounded_too(local):
    cost = 1 + 100 + ENTRY_BYTES
    cache = local.cache(size=3 * cost)
    for key in (b"a", b"b", b"c", b"d"):
        await cache.put({key: bytes(100)})
    assert await cache.get([b"a"]) == [None]
    assert (cache.state().entries, cache.state().bytes) == (3, 3 * cost)


@virtual
async def test_what_is_larger_than_the_cache_is_not_taken_and_what_it_replaces_is_gone(local):
    cache = local.cache(size=1000)
    await cache.put({b"a": b"1", b"b": b"2"})
    await cache.put({b"a": bytes(1000)})
    assert await cache.get([b"a", b"b"]) == [None, b"2"]


@virtual
async def test_a_cache_of_no_entries_remembers_nothing(local):
    cache = local.cache(entries=0)
    await cache.put({b"a": b"1"})
    assert await cache.get([b"a"]) == [None]
    assert (cache.state().entries, cache.state().bytes) == (0, 0)


@virtual
async def test_shrinking_keeps_a_share_of_the_most_recently_used(local):
    cache = local.cache()
    await cache.put({bytes([n]): bytes(100) for n in range(100)})
    cache.shrink(0.25)
    assert await cache.get([bytes([74]), bytes([75])]) == [None, bytes(100)]
    assert cache.state().entries == 25
    cache.shrink(1.0)
    assert cache.state().entries == 25
    cache.shrink(0.0)
    assert (cache.state().entries, cache.state().bytes) == (0, 0)
    await cache.put({b"a": b"1"})
    assert await cache.get([b"a"]) == [b"1"]
