"""The connections to Redis for what is shared: few, quick to give up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from penstock.kernel.errors import Invalid, Unavailable
from penstock.kernel.redis_address import FIELD, checked
from penstock.kernel.settings import RedisSettings

T = TypeVar("T")

#: The name of the dependency: a bus on the same Redis has a breaker of its own.
SHARED: Final = "redis-shared"

#: Connections for what is shared, of those that Redis may have (L4); the bus gets the others.
CONNECTIONS_MAX: Final = 4

#: An exchange that takes longer is given up: what it would bring can be had in that time otherwise.
LIMIT_S: Final = 0.1


def connections(settings: RedisSettings) -> int:
    """Return how many connections what is shared may have."""
    return max(1, min(CONNECTIONS_MAX, settings.pool_size // 4))


class RedisLink:
    """A Redis and the connections to it.

    Args:
        settings: Where it is.

    Bounds: :func:`connections`; a call beyond waits for one, as long as an exchange may take.

    Raises:
        Invalid: The URL is none of Redis.
    """

    def __init__(self, settings: RedisSettings) -> None:
        url, field = (settings.shared_url, "REDIS_SHARED_URL") if settings.apart else (settings.url, FIELD)
        checked(url, field)
        try:
            pool = BlockingConnectionPool.from_url(
                url,
                max_connections=connections(settings),
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
        """How many connections are open."""
        pool = self._redis.connection_pool  # it has no name for them in public
        return sum(one.is_connected for one in (*pool._available_connections, *pool._in_use_connections))  # noqa: SLF001

    async def ask(self, exchange: Callable[[Redis], Awaitable[T]]) -> T:
        """Make an exchange and return what it gives.

        Raises:
            Unavailable: Redis does not answer in time, or refuses.

        Cancellation: The connection is closed; what was asked may still be done.
        """
        try:
            async with asyncio.timeout(LIMIT_S):
                return await exchange(self._redis)
        except (RedisError, OSError, TimeoutError) as error:
            words = " ".join(str(error).split())[:200] or "no answer in time"
            raise Unavailable(f"redis: {words}", dependency=SHARED) from error

    async def close(self) -> None:
        """Close every connection."""
        await self._redis.aclose(close_connection_pool=True)
