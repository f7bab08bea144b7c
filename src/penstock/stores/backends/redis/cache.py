"""``Cache`` in Redis: what one server has encoded, no other has to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from penstock.stores.backends.redis.link import RedisLink
from penstock.stores.cache import CacheState


class RedisCache:
    """See :class:`penstock.stores.cache.Cache`; one round trip for any number of keys.

    Args:
        name: Its name in metrics, and in its keys there.
        link: Redis.
        prefix: Begins all names there.

    Bounds: what Redis is told to keep (``maxmemory`` and its policy): nothing here expires by itself.
    """

    def __init__(self, name: str, link: RedisLink, prefix: str) -> None:
        self._name = name
        self._link = link
        self._root = f"{prefix}:cache:{name}:".encode()
        self._hits = self._misses = 0

    def __repr__(self) -> str:
        return f"<RedisCache {self._name} {self._hits} hits, {self._misses} misses>"

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return what is remembered for each key."""
        if not keys:
            return []
        named = [self._root + key for key in keys]
        found = cast("list[bytes | None]", await self._link.ask(lambda redis: redis.mget(named)))
        missed = found.count(None)
        self._misses += missed
        self._hits += len(found) - missed
        return found

    async def put(self, entries: Mapping[bytes, bytes]) -> None:
        """Remember these."""
        if entries:
            named = {self._root + key: value for key, value in entries.items()}
            await self._link.ask(lambda redis: redis.mset(named))

    def shrink(self, share: float) -> None:
        """Do nothing: it takes up no memory here."""

    def state(self) -> CacheState:
        """Return this process's own numbers; what is held there, Redis knows."""
        return CacheState(self._name, 0, 0, self._hits, self._misses, 0)
