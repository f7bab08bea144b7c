"""Factories of the backends within this process: the bus and the caches."""

from __future__ import annotations

from penstock.app.external_backends import topic_capacities
from penstock.bus.broker import Broker
from penstock.bus.broker_breaker import BrokerBreaker
from penstock.bus.contract import Bus
from penstock.bus.counters import BusObserver
from penstock.bus.distributed import BrokerBus
from penstock.bus.local import LocalBus
from penstock.bus.record_codec import RecordCodec
from penstock.bus.rpc_client import BrokerTransport
from penstock.core.dependencies import MakeCache
from penstock.core.message_types import MESSAGE_TYPES
from penstock.kernel.context import Clock
from penstock.kernel.settings import Settings
from penstock.stores.backends.memory_cache import MemoryCache
from penstock.stores.key_value_cache import KeyValueCache


def build_bus(
    broker: Broker | None, settings: Settings, clock: Clock, observer: BusObserver, compatibility_keys: dict[str, str]
) -> Bus:
    """Return the bus: within this process alone, or over a broker to others.

    Args:
        broker: From :func:`penstock.app.external_backends.build_broker`.
        settings: Its buffers, limits and breaker.
        clock: The loop's clock.
        observer: Observer of waits, fills and losses.
        compatibility_keys: What instances must have in common to do each other's work, by topic.
    """
    if broker is None:
        return LocalBus(settings.bus, topic_capacities(settings), clock, observer)
    codec, breaker = RecordCodec(MESSAGE_TYPES, settings.bus.record_max), BrokerBreaker(broker.name, settings.breaker)
    return BrokerBus(
        BrokerTransport(broker, codec, breaker),
        settings.bus,
        topic_capacities(settings),
        clock,
        observer,
        compatibility_keys,
    )


def cache_factory(clock: Clock) -> MakeCache:
    """Return the factory of this process's own caches.

    Args:
        clock: The loop's clock, for their ages.
    """

    def make(name: str, entries_max: int, bytes_max: int, ttl_s: float) -> KeyValueCache:
        return MemoryCache(name, entries_max, bytes_max, clock, ttl_s)

    return make
