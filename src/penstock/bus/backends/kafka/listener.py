"""A consumer of one's own, in no group: it reads given partitions from the moment it is told to, each record once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from aiokafka import TopicPartition, errors

from penstock.bus.backends.kafka.access import translate
from penstock.bus.backends.kafka.cluster import Cluster
from penstock.bus.backends.kafka.source import LOOK_MS, STAND_MS


class Listener:
    """Reads what is sent after it began to listen.

    Args:
        cluster: Whose.

    Bounds: One connection to each broker.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._consumer: Any = None
        self._heard: list[TopicPartition] = []
        self._changing = asyncio.Lock()

    async def stop(self) -> None:
        """Disconnect."""
        if self._consumer is not None:
            await self._cluster.stop(self._consumer)

    async def hear(self, partitions: Iterable[TopicPartition]) -> None:
        """Listen to these too, from now on.

        Raises:
            Unavailable: The broker does not answer.
        """
        new = list(partitions)
        async with self._changing:
            if self._consumer is None:
                made = self._cluster.consumer(fetch_max_wait_ms=STAND_MS)
                try:
                    await self._cluster.ask(made.start)
                except BaseException:
                    await self._cluster.stop(made)
                    raise
                self._consumer = made
            where = await self._cluster.ends(new)
            where |= {one: await self._consumer.position(one) for one in self._heard}
            self._assign(where)

    async def leave(self, topic: str) -> None:
        """See :class:`penstock.bus.backends.kafka.source.Source`."""
        async with self._changing:
            kept = [one for one in self._heard if one.topic != topic]
            self._assign({one: await self._consumer.position(one) for one in kept})

    def _assign(self, where: dict[TopicPartition, int]) -> None:
        # Kafka's client forgets the places of what it goes on reading when the list changes.
        self._heard = list(where)
        self._consumer.assign(self._heard)
        for one, offset in where.items():
            self._consumer.seek(one, offset)

    def reads(self, topic: str) -> bool:
        """See :class:`penstock.bus.backends.kafka.source.Source`."""
        return any(one.topic == topic for one in self._heard)

    async def fetch(self, topic: str, count: int, wait_ms: int = LOOK_MS) -> list[Any]:
        """See :class:`penstock.bus.backends.kafka.source.Source`."""
        partitions = [one for one in self._heard if one.topic == topic]
        try:
            batches = await self._consumer.getmany(*partitions, timeout_ms=wait_ms, max_records=count)
        except errors.KafkaError as error:
            raise translate(error, self._cluster.terms) from error
        return [record for records in batches.values() for record in records]

    def take(self, partition: TopicPartition, offset: int) -> int:
        """See :class:`penstock.bus.backends.kafka.source.Source`."""
        del partition, offset
        return 0

    def done(self, partition: TopicPartition, offset: int) -> None:
        """See :class:`penstock.bus.backends.kafka.source.Source`."""
