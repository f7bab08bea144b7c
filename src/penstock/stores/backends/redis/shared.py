"""What several servers share by way of one Redis."""

from __future__ import annotations

from penstock.kernel.settings import RedisSettings
from penstock.stores.backends.redis.cache import RedisCache
from penstock.stores.backends.redis.link import RedisLink
from penstock.stores.backends.redis.rates import RedisTokens


class RedisShared:
    """See :class:`penstock.stores.service.Shared`. Nothing is connected before it is asked.

    Args:
        settings: Where Redis is.
        prefix: Begins all names there.

    Raises:
        Invalid: The URL is none of Redis.
    """

    def __init__(self, settings: RedisSettings, prefix: str) -> None:
        self._link = RedisLink(settings)
        self._prefix = prefix

    def cache(self, name: str) -> RedisCache:
        """Return the cache of a name."""
        return RedisCache(name, self._link, self._prefix)

    def rates(self) -> RedisTokens:
        """Return the buckets of clients' rates."""
        return RedisTokens(self._link, self._prefix)

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return self._link.connections

    async def close(self) -> None:
        """Close every connection."""
        await self._link.close()
