"""The broker host: Redis, or three Kafka brokers, as the tests start them."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Protocol

from aiokafka.admin import AIOKafkaAdminClient

from bench.faults.hosts import Host, Missing
from tests.rigs import kafka, redis

PORT: Final = 6379
BROKERS: Final = 3
#: Outside of a host Redis lets in who comes from elsewhere only if told so.
OPTIONS: Final = ("--protected-mode", "no")


class Broker(Protocol):
    """What carries the bus, on a host of its own."""

    @property
    def settings(self) -> dict[str, str]:
        """What the others have to be told."""
        ...

    async def start(self) -> None:
        """Start it and wait until it works."""
        ...

    async def strike(self) -> str:
        """Kill what hurts most, as a crash would; return what that was."""
        ...

    async def mend(self) -> None:
        """Start what was struck."""
        ...

    async def roll(self) -> None:
        """Restart it, one process after the other."""
        ...

    def close(self) -> None:
        """End it."""
        ...


class Redis:
    """One Redis with an append-only file, written before a command is answered.

    Raises:
        Missing: There is no Redis.
    """

    def __init__(self, host: Host, directory: Path) -> None:
        if why := redis.available():
            raise Missing(why)
        directory.mkdir(parents=True)
        self._server = redis.Redis(PORT, directory, options=OPTIONS, host=host.address, within=host.within)

    @property
    def settings(self) -> dict[str, str]:
        """See :class:`Broker`."""
        return {"BUS_BACKEND": "redis", "REDIS_URL": self._server.url}

    async def start(self) -> None:
        """See :class:`Broker`."""
        self._server.start()  # some fifty milliseconds

    async def strike(self) -> str:
        """See :class:`Broker`."""
        self._server.kill()
        return "Redis"

    async def mend(self) -> None:
        """See :class:`Broker`."""
        await self.start()

    async def roll(self) -> None:
        """See :class:`Broker`."""
        self._server.kill()
        await self.start()

    def close(self) -> None:
        """See :class:`Broker`."""
        self._server.kill()


class Kafka:
    """Three brokers on one host, each topic on all of them.

    Raises:
        Missing: There is no Kafka.
    """

    def __init__(self, host: Host, directory: Path) -> None:
        if why := kafka.missing():
            raise Missing(why)
        self._host, self._directory = host, directory
        self._stack = ExitStack()
        self._cluster: kafka.Cluster | None = None
        self._down = 0

    @property
    def cluster(self) -> kafka.Cluster:
        """The brokers, once they have been started."""
        assert self._cluster is not None
        return self._cluster

    @property
    def settings(self) -> dict[str, str]:
        """See :class:`Broker`."""
        return {"BUS_BACKEND": "kafka", "KAFKA_BOOTSTRAP": self.cluster.bootstrap}

    async def start(self) -> None:
        """See :class:`Broker`."""
        made = kafka.kafka(self._directory, BROKERS, host=self._host.address, within=self._host.within)
        self._cluster = self._stack.enter_context(made)

    async def strike(self) -> str:
        """See :class:`Broker`."""
        self._down = await self._leader()
        self.cluster.brokers[self._down - 1].kill()
        return f"Kafka broker {self._down}, leader of most partitions"

    async def mend(self) -> None:
        """See :class:`Broker`."""
        self.cluster.launch(self._down)
        await asyncio.to_thread(self.cluster.await_start, self._down)

    async def roll(self) -> None:
        """See :class:`Broker`."""
        for broker in self.cluster.brokers:
            await asyncio.to_thread(broker.stop)
            self._down = broker.number
            await self.mend()

    def close(self) -> None:
        """See :class:`Broker`."""
        self._stack.close()

    async def _leader(self) -> int:
        """Return the broker that leads most partitions of the topics."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.cluster.bootstrap)
        await admin.start()
        try:
            topics = await admin.describe_topics([one for one in await admin.list_topics() if not one.startswith("_")])
        finally:
            await admin.close()
        leaders = Counter(partition["leader"] for topic in topics for partition in topic["partitions"])
        return int(leaders.most_common(1)[0][0])
