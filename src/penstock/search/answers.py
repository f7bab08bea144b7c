"""Remembered answers: what the ladder has left when no more work may be begun."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Final

import msgspec

from penstock.kernel.errors import UNREADABLE, PenstockError
from penstock.search.records import SearchRequest, SearchResult
from penstock.stores.cache import Cache

#: Collections whose removals are counted one by one; beyond that all answers are forgotten at once.
COLLECTIONS_MAX: Final = 10_000

KEY_BYTES: Final = 16

#: Bytes of hits that are packed before others have the event loop.
SLICE_BYTES: Final = 262_144


class AnswerCache:
    """Answers by request, none older than the cache's time to live.

    What was added since is missing from a remembered answer until then. What was removed in this process
    is not shown any more (:meth:`forget`); what another process removed may be, for the same time.

    Args:
        cache: Bounds the answers' number, size and age.

    Bounds: the cache's, and ``COLLECTIONS_MAX`` numbers.
    """

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._removals: dict[str, int] = {}
        self._epoch = 0

    def key(self, request: SearchRequest) -> bytes:
        """Return a request's key as of now; take it before the search, not after.

        Requests that differ in ``explain`` or ``strict`` only share one.
        """
        plain = msgspec.structs.replace(request, explain=False, strict=False)
        place = (self._epoch, self._removals.get(request.collection, 0), plain)
        return hashlib.blake2b(msgspec.msgpack.encode(place), digest_size=KEY_BYTES).digest()

    def forget(self, collection: str) -> None:
        """Forget every answer from a collection that lost something."""
        if len(self._removals) >= COLLECTIONS_MAX and collection not in self._removals:
            self._removals.clear()
            self._epoch += 1
        self._removals[collection] = self._removals.get(collection, 0) + 1

    async def keep(self, key: bytes, result: SearchResult) -> None:
        """Remember an answer, degraded or not: it says so itself. Explanations are left out."""
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

    async def recall(self, key: bytes) -> SearchResult | None:
        """Return a remembered answer; ``None`` if there is none, or the cache fails."""
        try:
            (data,) = await self._cache.get([key])
            return None if data is None else msgspec.msgpack.decode(data, type=SearchResult)
        except (PenstockError, *UNREADABLE):
            return None
