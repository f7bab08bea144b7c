"""``SharedState`` in Redis: caches and token buckets that several servers use together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from penstock.kernel.settings import RedisSettings
from penstock.policies.token_leases import TokenGrant, TokenRequest
from penstock.stores.backends.redis.client import SharedRedisClient
from penstock.stores.key_value_cache import CacheState


class RedisCache:
    """See :class:`penstock.stores.key_value_cache.KeyValueCache`; one round trip for any number of keys.

    Args:
        name: Its name in metrics, and in its keys there.
        client: Redis.
        prefix: Begins all names there.

    Bounds: those of Redis (``maxmemory`` and its policy). No entry expires by itself.
    """

    def __init__(self, name: str, client: SharedRedisClient, prefix: str) -> None:
        self._name = name
        self._client = client
        self._key_prefix = f"{prefix}:cache:{name}:".encode()
        self._hits = self._misses = 0

    def __repr__(self) -> str:
        return f"<RedisCache {self._name} {self._hits} hits, {self._misses} misses>"

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the cached value of each key, ``None`` for a miss."""
        if not keys:
            return []
        named = [self._key_prefix + key for key in keys]
        found = cast("list[bytes | None]", await self._client.execute(lambda redis: redis.mget(named)))
        missed = found.count(None)
        self._misses += missed
        self._hits += len(found) - missed
        return found

    async def put(self, entries: Mapping[bytes, bytes]) -> None:
        """Store entries."""
        if entries:
            named = {self._key_prefix + key: value for key, value in entries.items()}
            await self._client.execute(lambda redis: redis.mset(named))

    def shrink(self, share: float) -> None:
        """Do nothing: the cache takes up no memory in this process."""

    def state(self) -> CacheState:
        """Return this process's own hits and misses; sizes are known to Redis only."""
        return CacheState(self._name, 0, 0, self._hits, self._misses, 0)


#: Charges what is owed, gives what is there of what is wanted, and tells the level left, for each bucket. A bucket that
#: is full is no key at all, so that only clients who are active now take up room.
RESERVE_SCRIPT: Final = """
local rate, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local answer = {}
for i, key in ipairs(KEYS) do
    local want, owed = tonumber(ARGV[2 * i + 1]), tonumber(ARGV[2 * i + 2])
    local kept = redis.call('HMGET', key, 'level', 'at')
    local level = burst
    if kept[1] then
        level = math.min(burst, tonumber(kept[1]) + rate * math.max(0, now - tonumber(kept[2])))
    end
    level = math.min(burst, level - owed)
    local grant = math.max(0, math.min(want, math.floor(level)))
    level = level - grant
    if level >= burst then
        redis.call('DEL', key)
    else
        redis.call('HSET', key, 'level', string.format('%.6f', level), 'at', string.format('%.6f', now))
        redis.call('PEXPIRE', key, math.ceil((burst - level) / rate * 1000) + 1000)
    end
    answer[2 * i - 1], answer[2 * i] = grant, string.format('%.6f', level)
end
return answer
"""


class RedisTokenBuckets:
    """See :class:`penstock.stores.store_service.SharedTokenBuckets`.

    Bounds: a key for each client whose bucket is not full; Redis forgets it when it is.
    """

    def __init__(self, client: SharedRedisClient, prefix: str) -> None:
        self._client = client
        self._key_prefix = f"{prefix}:rate:"

    async def reserve(self, asks: Sequence[TokenRequest], rate: float, burst: float) -> list[TokenGrant]:
        """Take tokens for several clients in one exchange."""
        keys = [self._key_prefix + ask.client for ask in asks]
        amounts = [amount for ask in asks for amount in (ask.wanted, ask.owed)]

        async def exchange(redis: Any) -> Any:
            return await redis.eval(RESERVE_SCRIPT, len(keys), *keys, rate, burst, *amounts)

        told = await self._client.execute(exchange)
        return [TokenGrant(int(told[n]), float(told[n + 1])) for n in range(0, len(told), 2)]


class RedisSharedState:
    """See :class:`penstock.stores.store_service.SharedState`. The first operation opens the first connection.

    Raises:
        Invalid: The URL is not one of Redis.
    """

    def __init__(self, settings: RedisSettings, prefix: str) -> None:
        self._client = SharedRedisClient(settings)
        self._prefix = prefix

    def cache(self, name: str) -> RedisCache:
        """Return the cache of a name."""
        return RedisCache(name, self._client, self._prefix)

    def token_buckets(self) -> RedisTokenBuckets:
        """Return the buckets of clients' rates."""
        return RedisTokenBuckets(self._client, self._prefix)

    @property
    def connections(self) -> int:
        """Number of open connections."""
        return self._client.connections

    async def close(self) -> None:
        """Close every connection."""
        await self._client.close()
