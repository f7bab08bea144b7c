"""``KeyValueCache`` in this process's memory."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final

from penstock.kernel.context import Clock
from penstock.stores.key_value_cache import CacheState

#: What an entry takes up beside its key and value (227 bytes measured with ``tracemalloc``).
ENTRY_BYTES: Final = 256


class MemoryCache:
    """A :class:`penstock.stores.key_value_cache.KeyValueCache` in this process; no method of it ever waits.

    Args:
        name: Its name in metrics.
        entries_max: Entries at most, 0 for a cache that remembers nothing.
        bytes_max: What they may take up, keys and overhead included.
        clock: The loop's clock.
        ttl_s: Age of an entry at most; the older ones are dropped when asked for, or evicted in time.
    """

    def __init__(self, name: str, entries_max: int, bytes_max: int, clock: Clock, ttl_s: float = math.inf) -> None:
        self._name = name
        self._entries_max = entries_max
        self._bytes_max = bytes_max
        self._clock = clock
        self._ttl_s = ttl_s
        self._entries: OrderedDict[bytes, tuple[bytes, float]] = OrderedDict()
        self._bytes = 0
        self._hits = self._misses = self._evictions = 0

    def __repr__(self) -> str:
        return f"<MemoryCache {self._name} {len(self._entries)}/{self._entries_max}, {self._bytes} bytes>"

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the cached value of each key, ``None`` for a miss."""
        now_s = self._clock.now()
        found = [self._find(key, now_s) for key in keys]
        missed = found.count(None)
        self._misses += missed
        self._hits += len(found) - missed
        return found

    async def put(self, entries: Mapping[bytes, bytes]) -> None:
        """Store entries as the most recently used."""
        until_s = self._clock.now() + self._ttl_s
        for key, value in entries.items():
            self._drop(key)
            cost = _cost(key, value)
            if cost <= self._bytes_max:
                self._entries[key] = value, until_s
                self._bytes += cost
                self._evict(self._entries_max, self._bytes_max)

    def shrink(self, share: float) -> None:
        """Evict the least recently used until at most ``share`` is left."""
        self._evict(int(len(self._entries) * share), int(self._bytes * share))

    def state(self) -> CacheState:
        """Return the numbers."""
        return CacheState(self._name, len(self._entries), self._bytes, self._hits, self._misses, self._evictions)

    def _find(self, key: bytes, now_s: float) -> bytes | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        value, until_s = entry
        if now_s >= until_s:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return value

    def _drop(self, key: bytes) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= _cost(key, entry[0])

    def _evict(self, entries_max: int, bytes_max: int) -> None:
        while len(self._entries) > entries_max or self._bytes > bytes_max:
            self._drop(next(iter(self._entries)))
            self._evictions += 1


def _cost(key: bytes, value: bytes) -> int:
    return len(key) + len(value) + ENTRY_BYTES
