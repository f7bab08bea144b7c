"""Penstock's bus, as ``penstock serve`` and ``penstock worker`` make it: the default settings, all accounting on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from bench.distributed.system import LIMIT_S, Handler, Place
from penstock.bus.broker import Broker
from penstock.bus.broker_breaker import BrokerBreaker
from penstock.bus.distributed import BrokerBus
from penstock.bus.local import LocalBus
from penstock.bus.record_codec import RecordCodec
from penstock.bus.rpc_client import BrokerTransport
from penstock.kernel.context import Context, Criticality, Deadline, MonotonicClock
from penstock.kernel.messages import Topic
from penstock.kernel.settings import BusSettings, GuardSettings, KafkaSettings, RedisSettings
from penstock.pools.permits import Permits
from penstock.telemetry.bus_metrics import BusMetrics

#: One of the program's own topics of requests; here it carries what MessagePack can say.
TOPIC: Final = Topic.SEARCH_REQUEST


async def over(place: Place) -> BrokerBus:
    """Return a bus over a broker, connected, made as :mod:`penstock.app` makes it."""
    clock, settings = MonotonicClock(), BusSettings(backend=place.carrier, prefix=place.name)
    carrier: Broker
    # Each client takes a while to import, which the other's process need not wait for.
    if place.carrier == "redis":
        from penstock.bus.backends.redis.broker import RedisBroker  # noqa: PLC0415

        carrier = RedisBroker(settings, RedisSettings(url=place.address), {})
    else:
        from penstock.bus.backends.kafka.broker import KafkaBroker  # noqa: PLC0415

        carrier = KafkaBroker(settings, KafkaSettings(bootstrap=place.address), {})
    await carrier.start()
    transport = BrokerTransport(
        carrier, RecordCodec({}, settings.record_max), BrokerBreaker(carrier.name, GuardSettings())
    )
    return BrokerBus(transport, settings, {}, clock, BusMetrics(clock))


#: Each caller is a client.
CLIENTS: Final = [f"client {caller}" for caller in range(1000)]


def label(caller: int) -> Context:
    """Return a request's label: a deadline of its own, a client for each caller."""
    deadline = Deadline(asyncio.get_running_loop().time() + LIMIT_S, "bench")
    return Context(deadline, Criticality.INTERACTIVE, CLIENTS[caller], "id")


def handled(handler: Handler) -> Callable[[Any, Context], Any]:
    """Return the handler as the bus calls it."""

    async def handle(message: Any, _ctx: Context) -> Any:
        return await handler(message)

    return handle


class Asker:
    """Asks a topic that other processes serve."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._bus: BrokerBus

    async def start(self) -> None:
        """See :class:`bench.distributed.system.Asker`."""
        self._bus = await over(self._place)
        await self._bus.wait_joined()

    async def ready(self, answerers: int) -> bool:
        """See :class:`bench.distributed.system.Asker`."""
        return self._bus.instance_counts().get(TOPIC, 0) == answerers

    async def ask(self, message: Any, caller: int) -> Any:
        """See :class:`bench.distributed.system.Asker`."""
        return await self._bus.request(TOPIC, message, label(caller))

    async def close(self) -> None:
        """See :class:`bench.distributed.system.Asker`."""
        await self._bus.close()


class Answerer:
    """Serves a topic that other processes ask."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._bus: BrokerBus

    async def start(self, handler: Handler) -> None:
        """See :class:`bench.distributed.system.Answerer`."""
        self._bus = await over(self._place)
        self._bus.subscribe(TOPIC, handled(handler), Permits("bench", self._place.slots))
        await self._bus.wait_joined()

    async def close(self) -> None:
        """See :class:`bench.distributed.system.Answerer`."""
        await self._bus.drain()
        await self._bus.close()


class Within:
    """Asks and answers in one process: the bus in memory."""

    def __init__(self, place: Place) -> None:
        clock = MonotonicClock()
        self._slots = place.slots
        self._bus = LocalBus(BusSettings(), {}, clock, BusMetrics(clock))

    async def start(self) -> None:
        """See :class:`bench.distributed.system.Asker`."""

        async def echo(message: Any, _ctx: Context) -> Any:
            return message

        self._bus.subscribe(TOPIC, echo, Permits("bench", self._slots))

    async def ready(self, answerers: int) -> bool:
        """See :class:`bench.distributed.system.Asker`."""
        return not answerers

    async def ask(self, message: Any, caller: int) -> Any:
        """See :class:`bench.distributed.system.Asker`."""
        return await self._bus.request(TOPIC, message, label(caller))

    async def close(self) -> None:
        """See :class:`bench.distributed.system.Asker`."""
        await self._bus.close()
