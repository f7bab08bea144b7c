"""LRU cache of values read from points, with one bound for all collections."""

from __future__ import annotations

import itertools
import sys
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeVar

import msgspec

from penstock.stores.data_model import ChunkPayload
from penstock.stores.key_value_cache import CacheState

#: What an entry takes up beside what is kept: its key, its place, the object's head (measured with ``tracemalloc``).
ENTRY_BYTES: Final = 500


#: Type of a point's id.
K = TypeVar("K", int, str)

#: What a payload takes up beside its texts and metadata, and what a byte of metadata as JSON becomes in memory at most:
#: a list of small numbers, four bytes each, is one of objects of forty.
PAYLOAD_BYTES: Final = 1000
METADATA_MEMORY_FACTOR: Final = 16


class PointCache:
    """Values by namespace and point; the least recently used are evicted first.

    A namespace holds one kind of value of one collection. To drop a whole namespace, a caller takes a new one: the
    entries left in the old one are never read again and are soon evicted.

    Args:
        bytes_max: What the entries may take up, overhead included; 0 for a cache that remembers nothing.

    Bounds: ``bytes_max``.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._entries: OrderedDict[tuple[int, int | str], tuple[Any, int]] = OrderedDict()
        self._namespaces = itertools.count()
        self._bytes = 0
        self._hits = self._misses = self._evictions = 0

    def __repr__(self) -> str:
        return f"<PointCache {len(self._entries)} entries, {self._bytes} of {self._bytes_max} bytes>"

    def new_namespace(self) -> int:
        """Return a namespace that no other caller has."""
        return next(self._namespaces)

    def get(self, namespace: int, points: Sequence[K]) -> dict[K, Any]:
        """Return the cached values by point; points without one are left out."""
        entries = self._entries
        found: dict[K, Any] = {}
        for point in points:
            key = (namespace, point)
            entry = entries.get(key)
            if entry is not None:
                entries.move_to_end(key)
                found[point] = entry[0]
        self._hits += len(found)
        self._misses += len(points) - len(found)
        return found

    def put(self, namespace: int, point: int | str, value: Any, size: int) -> None:
        """Keep a value that takes up ``size`` bytes; a value larger than the whole cache is not kept."""
        self._drop((namespace, point))
        cost = size + ENTRY_BYTES
        if cost <= self._bytes_max:
            self._entries[namespace, point] = value, cost
            self._bytes += cost
            self._evict(self._bytes_max)

    def drop(self, namespace: int, points: Iterable[int | str]) -> None:
        """Remove the entries of these points."""
        for point in points:
            self._drop((namespace, point))

    def shrink(self, share: float) -> None:
        """Evict the least recently used until at most ``share`` (0 to 1) of the bytes is left."""
        self._evict(int(self._bytes * share))

    def state(self) -> CacheState:
        """Return the numbers."""
        return CacheState("points", len(self._entries), self._bytes, self._hits, self._misses, self._evictions)

    def _drop(self, key: tuple[int, int | str]) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= entry[1]

    def _evict(self, bytes_max: int) -> None:
        while self._bytes > bytes_max:
            self._drop(next(iter(self._entries)))
            self._evictions += 1


def payload_memory_bytes(payload: ChunkPayload) -> int:
    """Return about how much memory a payload takes up, or more."""
    texts = sum(sys.getsizeof(text) for text in (payload.id, payload.path, payload.symbol, payload.text))
    metadata = METADATA_MEMORY_FACTOR * len(msgspec.json.encode(payload.metadata)) if payload.metadata else 0
    return PAYLOAD_BYTES + texts + metadata
