"""Factories of the backends outside of this process that the settings name: broker, store, shared state.

Each is imported only when it is chosen, since the import of its client takes a while. No other module imports one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.bus.broker import Broker
from penstock.kernel.context import Clock
from penstock.kernel.errors import Invalid
from penstock.kernel.messages import Topic
from penstock.kernel.settings import Settings
from penstock.stores.key_store import KEYS_FILE, KeyFile, KeyStore

if TYPE_CHECKING:
    from penstock.stores.store_service import SharedState, StoreService

log = logging.getLogger(__name__)


@contextmanager
def _extra(name: str, package: str, setting: str) -> Iterator[None]:
    """Import a backend whose client is an optional dependency.

    Raises:
        Invalid: The client is not installed. The message says what to install.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != package:
            raise
        cure = f"pip install 'penstock[{name}]'"
        raise Invalid(f"{setting} needs {package}, which is not installed: {cure}", field=setting) from None


def topic_capacities(settings: Settings) -> dict[str, int]:
    """Return the buffers that differ from ``bus.buffer_size``, by topic."""
    return {
        Topic.SEARCH_REQUEST: settings.search.queue_size,
        Topic.INDEX_REQUEST: settings.index.queue_size,
        Topic.INDEX_CHUNK: settings.index.queue_size,
    }


def build_broker(settings: Settings) -> Broker | None:
    """Return the broker that carries the bus between processes, not started yet. ``None`` where all is in one.

    Raises:
        Invalid: The settings cannot be used.
    """
    if settings.bus.backend == "redis":
        with _extra("redis", "redis", "bus.backend"):
            from penstock.bus.backends.redis.broker import RedisBroker  # noqa: PLC0415

        if settings.redis.uses_shared_redis and not settings.redis.has_own_shared_redis:
            if settings.redis.cache:
                log.warning(
                    "REDIS_CACHE fills the Redis of the bus, which must not evict anything: "
                    "set REDIS_SHARED_URL to another Redis, with a maxmemory-policy of allkeys-lru"
                )
            from penstock.stores.backends.redis.client import pool_connections_max  # noqa: PLC0415

            left = max(1, settings.redis.pool_size - pool_connections_max(settings.redis))
            settings = replace(settings, redis=replace(settings.redis, pool_size=left))
        return RedisBroker(settings.bus, settings.redis, topic_capacities(settings))
    if settings.bus.backend == "kafka":
        with _extra("kafka", "aiokafka", "bus.backend"):
            from penstock.bus.backends.kafka.broker import KafkaBroker  # noqa: PLC0415

        return KafkaBroker(settings.bus, settings.kafka, topic_capacities(settings))
    return None


def build_store_service(settings: Settings, data_dir: Path, clock: Clock, backend: str = "") -> StoreService:
    """Return the store's service, not started yet.

    Args:
        settings: The backend, and its options or address.
        data_dir: The data directory, for the embedded engine.
        clock: The loop's clock.
        backend: ``edge`` or ``qdrant``; empty for what the settings say.

    Raises:
        Invalid: The settings cannot be used.
    """
    if (backend or settings.store.backend) == "qdrant":
        with _extra("qdrant", "qdrant_client", "store.backend"):
            from penstock.stores.backends.qdrant.server import QdrantServer  # noqa: PLC0415

        return QdrantServer(settings.qdrant, settings.timeouts, clock, cache_bytes=settings.store.cache_bytes)
    from penstock.stores.backends.edge.process_group import EdgeProcessGroup  # noqa: PLC0415

    return EdgeProcessGroup(data_dir, settings.timeouts, clock, settings.store)


async def probe_qdrant(settings: Settings, clock: Clock) -> None:
    """Probe the Qdrant server before its client is imported, which takes more than a second.

    Raises:
        PenstockError: It is unreachable, or cannot be used. The message names the setting.
    """
    from penstock.stores.backends.qdrant.probe import probe  # noqa: PLC0415

    await probe(settings.qdrant, clock)


def build_key_store(settings: Settings, data_dir: Path) -> KeyStore:
    """Return the store of the keys that people make: Redis for several servers, else the data directory.

    Raises:
        Invalid: The settings cannot be used.
    """
    if not settings.redis.keys:
        return KeyFile(data_dir / KEYS_FILE)
    with _extra("redis", "redis", "redis.keys"):
        from penstock.stores.backends.redis.keys import SharedKeys  # noqa: PLC0415

    return SharedKeys(settings.redis, settings.bus.prefix)


def build_shared(settings: Settings) -> SharedState | None:
    """Return the state shared with other servers, ``None`` where there is none.

    Raises:
        Invalid: The settings cannot be used.
    """
    if not settings.redis.uses_shared_redis:
        return None
    with _extra("redis", "redis", "redis.url"):
        from penstock.stores.backends.redis.shared import RedisSharedState  # noqa: PLC0415

    return RedisSharedState(settings.redis, settings.bus.prefix)
