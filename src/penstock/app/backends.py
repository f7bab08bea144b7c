"""Which backend outside of this process the settings name: the broker, the points, what is shared.

Each is imported where it is chosen: their clients take a while, which who does not use them need not wait for. Those
within the process are in :mod:`penstock.app.within`; nobody else imports a backend.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.bus.broker import Broker
from penstock.kernel.clock import Clock
from penstock.kernel.messages import Topic
from penstock.kernel.settings import Settings

if TYPE_CHECKING:
    from penstock.stores.service import Shared, StoreService

log = logging.getLogger(__name__)


def capacities(settings: Settings) -> dict[str, int]:
    """Return the buffers that differ from ``bus.buffer_size``, by topic."""
    return {
        Topic.SEARCH_REQUEST: settings.search.queue_size,
        Topic.INDEX_REQUEST: settings.index.queue_size,
        Topic.INDEX_CHUNK: settings.index.queue_size,
    }


def broker(settings: Settings, clock: Clock) -> Broker | None:
    """Return what carries the bus between processes, not started yet; ``None`` where all is in one.

    Args:
        settings: Which it is, and where.
        clock: The loop's clock.

    Raises:
        Invalid: The settings cannot be used.
    """
    if settings.bus.backend == "redis":
        from penstock.bus.backends.redis.broker import RedisBroker  # noqa: PLC0415

        if settings.redis.shared and not settings.redis.apart:
            if settings.redis.cache:
                log.warning(
                    "REDIS_CACHE fills the Redis of the bus, which must not forget anything: "
                    "set REDIS_SHARED_URL to another Redis, with a maxmemory-policy of allkeys-lru"
                )
            from penstock.stores.backends.redis.link import connections  # noqa: PLC0415

            left = max(1, settings.redis.pool_size - connections(settings.redis))
            settings = replace(settings, redis=replace(settings.redis, pool_size=left))
        return RedisBroker(settings.bus, settings.redis, capacities(settings), clock)
    if settings.bus.backend == "kafka":
        from penstock.bus.backends.kafka.broker import KafkaBroker  # noqa: PLC0415

        return KafkaBroker(settings.bus, settings.kafka, capacities(settings))
    return None


def points(settings: Settings, data_dir: Path, clock: Clock, backend: str = "") -> StoreService:
    """Return what keeps the points, not started yet.

    Args:
        settings: Which it is, and how it is run or where it is.
        data_dir: The data directory, for the embedded engine.
        clock: The loop's clock.
        backend: ``edge`` or ``qdrant``; empty for what the settings say.

    Raises:
        Invalid: The settings cannot be used.
    """
    if (backend or settings.store.backend) == "qdrant":
        from penstock.stores.backends.qdrant.server import QdrantServer  # noqa: PLC0415

        return QdrantServer(settings.qdrant, settings.timeouts, clock)
    from penstock.stores.backends.edge.fleet import EdgeFleet  # noqa: PLC0415

    return EdgeFleet(data_dir, settings.timeouts, clock, settings.store)


async def seen(settings: Settings, clock: Clock) -> None:
    """Ask the Qdrant server whether it is there, before its client is imported: that takes more than a second.

    Raises:
        PenstockError: It is not, or it is wrong; the message names the setting.
    """
    from penstock.stores.backends.qdrant.look import look  # noqa: PLC0415

    await look(settings.qdrant, clock)


def shared(settings: Settings) -> Shared | None:
    """Return what is shared with other servers; ``None`` where nothing is.

    Raises:
        Invalid: The settings cannot be used.
    """
    if not settings.redis.shared:
        return None
    from penstock.stores.backends.redis.shared import RedisShared  # noqa: PLC0415

    return RedisShared(settings.redis, settings.bus.prefix)
