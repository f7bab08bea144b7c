"""Redis client for shared state: few connections and short timeouts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from penstock.kernel.errors import Invalid, Unavailable
from penstock.kernel.redis_url import REDIS_URL_FIELD, check_redis_url
from penstock.kernel.settings import RedisSettings

T = TypeVar("T")

#: The name of the dependency: a bus on the same Redis has a breaker of its own.
DEPENDENCY: Final = "redis-shared"

#: Connections for shared state, of those that Redis may have (L4); the bus gets the others.
CONNECTIONS_MAX: Final = 4

#: A longer exchange is given up: within that time its result can be had without Redis.
EXCHANGE_TIMEOUT_S: Final = 0.1


def pool_connections_max(settings: RedisSettings) -> int:
    """Return how many connections shared state may use."""
    return max(1, min(CONNECTIONS_MAX, settings.pool_size // 4))


class SharedRedisClient:
    """A Redis and the connections to it.

    Bounds: :func:`pool_connections_max`; a call beyond waits for one, as long as an exchange may take.

    Raises:
        Invalid: The URL is not one of Redis.
    """

    def __init__(self, settings: RedisSettings) -> None:
        url, field = (
            (settings.shared_url, "REDIS_SHARED_URL")
            if settings.has_own_shared_redis
            else (settings.url, REDIS_URL_FIELD)
        )
        check_redis_url(url, field)
        try:
            pool = BlockingConnectionPool.from_url(
                url,
                max_connections=pool_connections_max(settings),
                timeout=None,
                protocol=2,
                # One limit around the whole exchange: ``wait_for`` inside the client may swallow a cancellation (3.11).
                socket_timeout=None,
                socket_connect_timeout=None,
                retry=Retry(NoBackoff(), 0),
                client_name="penstock",
            )
        except ValueError:
            # The client's own words may repeat a part of the password.
            raise Invalid("no address of a Redis", field=field) from None
        self._redis = Redis(connection_pool=pool)

    @property
    def connections(self) -> int:
        """Number of open connections."""
        pool = self._redis.connection_pool  # it has no name for them in public
        return sum(one.is_connected for one in (*pool._available_connections, *pool._in_use_connections))  # noqa: SLF001

    async def execute(self, exchange: Callable[[Redis], Awaitable[T]]) -> T:
        """Run one exchange with Redis and return its result.

        Raises:
            Unavailable: Redis does not answer in time, or refuses.

        Cancellation: The connection is closed; what was asked may still be done.
        """
        try:
            async with asyncio.timeout(EXCHANGE_TIMEOUT_S):
                return await exchange(self._redis)
        except (RedisError, OSError, TimeoutError) as error:
            words = " ".join(str(error).split())[:200] or "no answer in time"
            raise Unavailable(f"redis: {words}", dependency=DEPENDENCY) from error

    async def close(self) -> None:
        """Close every connection."""
        await self._redis.aclose(close_connection_pool=True)
