from penstock.stores.memory_cache import MemoryCache
from tests.clock import virtual
from tests.fakes.loop_clock import LoopClock


@virtual
async def test_its_repr_is_a_status_line():
    cache = MemoryCache("embed", 10, 1000, LoopClock())
    await cache.put({b"a": b"1"})
    assert repr(cache) == "<MemoryCache embed 1/10, 258 bytes>"
