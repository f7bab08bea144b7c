"""Which backend the settings name: the bus, its broker, the points, what is shared, what is remembered.

The only module that imports backends.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from penstock.bus.backends.memory import MemoryBus
from penstock.bus.books import BusObserver
from penstock.bus.broker import Broker
from penstock.bus.contract import Bus
from penstock.bus.desk import Transport
from penstock.bus.distributed import BrokerBus
from penstock.bus.link import Link
from penstock.bus.wire import Wire
from penstock.core.parts import MakeCache
from penstock.core.shapes import SHAPES
from penstock.kernel.clock import Clock
from penstock.kernel.messages import Topic
from penstock.kernel.settings import Settings
from penstock.stores.backends.edge.fleet import EdgeFleet
from penstock.stores.backends.memory import MemoryCache
from penstock.stores.cache import Cache
from penstock.stores.service import Shared, StoreService


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
    # The clients take a while to import, which who does not use them need not wait for.
    if settings.bus.backend == "redis":
        from penstock.bus.backends.redis.broker import RedisBroker  # noqa: PLC0415

        if settings.redis.shared:
            from penstock.stores.backends.redis.link import connections  # noqa: PLC0415

            left = max(1, settings.redis.pool_size - connections(settings.redis))
            settings = replace(settings, redis=replace(settings.redis, pool_size=left))
        return RedisBroker(settings.bus, settings.redis, capacities(settings), clock)
    if settings.bus.backend == "kafka":
        from penstock.bus.backends.kafka.broker import KafkaBroker  # noqa: PLC0415

        return KafkaBroker(settings.bus, settings.kafka, capacities(settings))
    return None


def bus(carrier: Broker | None, settings: Settings, clock: Clock, observer: BusObserver, marks: dict[str, str]) -> Bus:
    """Return the bus: of this process alone, or over what carries it to others.

    Args:
        carrier: What :func:`broker` gave.
        settings: Its buffers, limits and breaker.
        clock: The loop's clock.
        observer: Who is told of waits, fills and losses.
        marks: What instances must have in common to do each other's work, by topic.
    """
    if carrier is None:
        return MemoryBus(settings.bus, capacities(settings), clock, observer)
    wire, link = Wire(SHAPES, settings.bus.record_max), Link(carrier.name, settings.breaker)
    return BrokerBus(Transport(carrier, wire, link), settings.bus, capacities(settings), clock, observer, marks)


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
        # Its client takes a second and a half to import, which who does not use it need not wait for.
        from penstock.stores.backends.qdrant.server import QdrantServer  # noqa: PLC0415

        return QdrantServer(settings.qdrant, settings.timeouts, clock)
    return EdgeFleet(data_dir, settings.timeouts, clock, settings.store)


def shared(settings: Settings) -> Shared | None:
    """Return what is shared with other servers; ``None`` where nothing is.

    Raises:
        Invalid: The settings cannot be used.
    """
    if not settings.redis.shared:
        return None
    from penstock.stores.backends.redis.shared import RedisShared  # noqa: PLC0415

    return RedisShared(settings.redis, settings.bus.prefix)


def caches(clock: Clock) -> MakeCache:
    """Return what makes this process's own caches.

    Args:
        clock: The loop's clock, for their ages.
    """

    def make(name: str, entries_max: int, bytes_max: int, ttl_s: float) -> Cache:
        return MemoryCache(name, entries_max, bytes_max, clock, ttl_s)

    return make
