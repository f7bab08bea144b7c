"""Cached answers of searches."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Final

import msgspec

from penstock.kernel.errors import DECODE_ERRORS, PenstockError
from penstock.search.request import SearchRequest, SearchResult
from penstock.stores.key_value_cache import KeyValueCache

#: Collections whose removals are counted one by one; beyond that all answers are invalidated at once.
TRACKED_COLLECTIONS_MAX: Final = 10_000

KEY_BYTES: Final = 16

#: Bytes of hits that are encoded before the event loop is released.
SLICE_BYTES: Final = 262_144


class ResultCache:
    """Answers by request, none older than the cache's time to live.

    A cached answer does not contain chunks added since. Chunks that this process removed are not shown any more
    (:meth:`invalidate`). Chunks that another process removed may be shown until the entry expires.

    Bounds: the cache's, and ``TRACKED_COLLECTIONS_MAX`` numbers.
    """

    def __init__(self, cache: KeyValueCache) -> None:
        self._cache = cache
        self._removals: dict[str, int] = {}
        self._epoch = 0

    def key(self, request: SearchRequest) -> bytes:
        """Return a request's key as of now; take it before the search, not after.

        Requests that differ in ``explain`` or ``strict`` only share one.
        """
        plain = msgspec.structs.replace(request, explain=False, strict=False)
        removals = [self._removals.get(one, 0) for one in request.names]
        place = (self._epoch, removals, plain)
        return hashlib.blake2b(msgspec.msgpack.encode(place), digest_size=KEY_BYTES).digest()

    def invalidate(self, collection: str) -> None:
        """Invalidate every answer from a collection from which chunks were removed."""
        if len(self._removals) >= TRACKED_COLLECTIONS_MAX and collection not in self._removals:
            self._removals.clear()
            self._epoch += 1
        self._removals[collection] = self._removals.get(collection, 0) + 1

    async def put(self, key: bytes, result: SearchResult) -> None:
        """Store an answer without its explanations; a degraded one names its degradation itself."""
        hits, size = [], 0
        for hit in result.hits:
            hits.append(msgspec.Raw(msgspec.msgpack.encode(msgspec.structs.replace(hit, explain=msgspec.UNSET))))
            size += len(memoryview(hits[-1]))
            if size >= SLICE_BYTES:
                size = 0
                await asyncio.sleep(0)
        # A record's fields are not checked when it is made: bytes that are MessagePack already stand for any of them.
        data = msgspec.msgpack.encode(msgspec.structs.replace(result, hits=hits))
        try:
            await self._cache.put({key: data})
        except PenstockError:
            return

    async def get(self, key: bytes) -> SearchResult | None:
        """Return a cached answer; ``None`` if there is none, or the cache fails."""
        try:
            (data,) = await self._cache.get([key])
            return None if data is None else msgspec.msgpack.decode(data, type=SearchResult)
        except (PenstockError, *DECODE_ERRORS):
            return None
