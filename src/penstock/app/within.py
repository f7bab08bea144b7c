"""The backends within this process: the bus, and what is remembered."""

from __future__ import annotations

from penstock.app.backends import capacities
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
from penstock.kernel.settings import Settings
from penstock.stores.backends.memory import MemoryCache
from penstock.stores.cache import Cache


def bus(carrier: Broker | None, settings: Settings, clock: Clock, observer: BusObserver, marks: dict[str, str]) -> Bus:
    """Return the bus: of this process alone, or over what carries it to others.

    Args:
        carrier: What :func:`penstock.app.backends.broker` gave.
        settings: Its buffers, limits and breaker.
        clock: The loop's clock.
        observer: Who is told of waits, fills and losses.
        marks: What instances must have in common to do each other's work, by topic.
    """
    if carrier is None:
        return MemoryBus(settings.bus, capacities(settings), clock, observer)
    wire, link = Wire(SHAPES, settings.bus.record_max), Link(carrier.name, settings.breaker)
    return BrokerBus(Transport(carrier, wire, link), settings.bus, capacities(settings), clock, observer, marks)


def caches(clock: Clock) -> MakeCache:
    """Return what makes this process's own caches.

    Args:
        clock: The loop's clock, for their ages.
    """

    def make(name: str, entries_max: int, bytes_max: int, ttl_s: float) -> Cache:
        return MemoryCache(name, entries_max, bytes_max, clock, ttl_s)

    return make
