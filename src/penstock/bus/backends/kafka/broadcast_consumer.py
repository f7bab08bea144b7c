"""Consumer outside any group: reads given partitions from the moment they are added, each record once."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable
from typing import Any, Final

from aiokafka import TopicPartition

from penstock.bus.backends.kafka.cluster import LONG_POLL_MS, POLL_MS, Cluster
from penstock.bus.backends.kafka.reader import RecordSource

log = logging.getLogger(__name__)

#: Events fetched and not yet taken by a reader.
BUFFERED_MAX: Final = 10_000


class BroadcastConsumer:
    """Consumer of the records sent after it has added their partition.

    Attributes:
        fetch_lock: Held by the reader that fetches for all who share the records.

    Bounds: One connection to each broker.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._consumer: Any = None
        self._assigned: list[TopicPartition] = []
        self._assign_lock = asyncio.Lock()
        self.fetch_lock = asyncio.Lock()

    async def stop(self) -> None:
        """Disconnect."""
        if self._consumer is not None:
            await self._cluster.stop(self._consumer)

    async def add_partitions(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Read these partitions too, from now on; return the offsets at which that begins.

        Raises:
            Unavailable: The broker does not answer.
        """
        new = list(partitions)
        async with self._assign_lock:
            if self._consumer is None:
                made = self._cluster.consumer(fetch_max_wait_ms=LONG_POLL_MS)
                try:
                    await self._cluster.call(made.start)
                except BaseException:
                    await self._cluster.stop(made)
                    raise
                self._consumer = made
            now = await self._cluster.end_offsets(new)
            self._assign(now | {one: await self._consumer.position(one) for one in self._assigned})
        return now

    async def leave(self, topic: str) -> None:
        """Stop reading a topic."""
        async with self._assign_lock:
            kept = [one for one in self._assigned if one.topic != topic]
            self._assign({one: await self._consumer.position(one) for one in kept})

    def _assign(self, where: dict[TopicPartition, int]) -> None:
        # Kafka's client forgets its positions in the partitions it keeps when the list changes.
        self._assigned = list(where)
        self._consumer.assign(self._assigned)
        for one, offset in where.items():
            self._consumer.seek(one, offset)

    async def fetch(self, topic: str, count: int, wait_ms: int) -> list[Any]:
        """Return up to ``count`` records of a topic; none after a while without any.

        Raises:
            Unavailable: The broker is in trouble.
        """
        partitions = [one for one in self._assigned if one.topic == topic]
        return await self._cluster.poll(self._consumer, *partitions, wait_ms=wait_ms, count=count)


class LocalSubscription(RecordSource):
    """Subscription of one local reader to a pub/sub topic; a record fetched for one reader goes to all of them.

    Args:
        listener: The consumer that fetches.
        cluster: Knows the topic's partitions.
        subscriptions: All subscriptions of this instance to that topic, to which this one is added.

    Bounds: ``BUFFERED_MAX`` records that its reader has not taken; of more, the oldest are dropped and logged.
    """

    def __init__(self, listener: BroadcastConsumer, cluster: Cluster, subscriptions: list[LocalSubscription]) -> None:
        self._listener = listener
        self._cluster = cluster
        self._subscriptions = subscriptions
        self._start_offsets: dict[TopicPartition, int] = {}
        self._buffer: deque[Any] = deque()

    async def join(self, topic: str) -> None:
        """Subscribe to what is sent from now on.

        Raises:
            Unavailable: The broker does not answer.
        """
        self._start_offsets = await self._listener.add_partitions(self._cluster.partitions(topic))
        self._subscriptions.append(self)

    async def fetch(self, topic: str, count: int) -> list[Any]:
        """See :class:`penstock.bus.backends.kafka.reader.RecordSource`."""
        if not self._buffer:
            async with self._listener.fetch_lock:
                if not self._buffer:
                    found = await self._listener.fetch(topic, count, POLL_MS)
                    for ear in self._subscriptions:
                        ear.deliver(found)
        return [self._buffer.popleft() for _ in range(min(count, len(self._buffer)))]

    def deliver(self, records: list[Any]) -> None:
        """Buffer the fetched records."""
        for record in records:
            if record.offset >= self._start_offsets.get(TopicPartition(record.topic, record.partition), 0):
                self._buffer.append(record)
        if len(self._buffer) > BUFFERED_MAX:
            log.warning("a subscriber is too slow: %d events are dropped", len(self._buffer) - BUFFERED_MAX)
            while len(self._buffer) > BUFFERED_MAX:
                self._buffer.popleft()

    async def leave(self, topic: str) -> None:
        """See :class:`penstock.bus.backends.kafka.reader.RecordSource`."""
        if self in self._subscriptions:
            self._subscriptions.remove(self)
            if not self._subscriptions:
                await self._listener.leave(topic)
