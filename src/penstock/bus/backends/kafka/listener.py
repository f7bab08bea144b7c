"""A consumer of one's own, in no group: it reads given partitions from the moment it is told to, each record once."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable
from typing import Any, Final

from aiokafka import TopicPartition, errors

from penstock.bus.backends.kafka.access import translate
from penstock.bus.backends.kafka.cluster import Cluster
from penstock.bus.backends.kafka.source import LOOK_MS, STAND_MS

log = logging.getLogger(__name__)

#: News fetched and not yet taken by a reader.
HEARD_MAX: Final = 10_000


class Listener:
    """Reads what is sent after it began to listen.

    Args:
        cluster: Whose.

    Attributes:
        fetching: Held by the one who fetches for all who share what comes.

    Bounds: One connection to each broker.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._consumer: Any = None
        self._heard: list[TopicPartition] = []
        self._changing = asyncio.Lock()
        self.fetching = asyncio.Lock()

    async def stop(self) -> None:
        """Disconnect."""
        if self._consumer is not None:
            await self._cluster.stop(self._consumer)

    async def hear(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Listen to these too, from now on; return where that is.

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
            now = await self._cluster.ends(new)
            self._assign(now | {one: await self._consumer.position(one) for one in self._heard})
        return now

    async def leave(self, topic: str) -> None:
        """Listen to a topic no more."""
        async with self._changing:
            kept = [one for one in self._heard if one.topic != topic]
            self._assign({one: await self._consumer.position(one) for one in kept})

    def _assign(self, where: dict[TopicPartition, int]) -> None:
        # Kafka's client forgets the places of what it goes on reading when the list changes.
        self._heard = list(where)
        self._consumer.assign(self._heard)
        for one, offset in where.items():
            self._consumer.seek(one, offset)

    async def fetch(self, topic: str, count: int, wait_ms: int) -> list[Any]:
        """Return up to ``count`` records of a topic; none after a while without any.

        Raises:
            Unavailable: The broker is in trouble.
        """
        partitions = [one for one in self._heard if one.topic == topic]
        try:
            batches = await self._consumer.getmany(*partitions, timeout_ms=wait_ms, max_records=count)
        except errors.KafkaError as error:
            raise translate(error, self._cluster.terms) from error
        return [record for records in batches.values() for record in records]


class Ear:
    """One reader's copy of a topic's news: what one of them fetches, all of this instance get.

    Args:
        listener: Who fetches.
        cluster: Who knows the topic's partitions.
        others: All ears at that topic here, to which this one is added.

    Bounds: ``HEARD_MAX`` records that its reader has not taken; of more, the oldest are dropped, and told of.
    """

    def __init__(self, listener: Listener, cluster: Cluster, others: list[Ear]) -> None:
        self._listener = listener
        self._cluster = cluster
        self._others = others
        self._since: dict[TopicPartition, int] = {}
        self._heard: deque[Any] = deque()

    async def join(self, topic: str) -> None:
        """Hear what is sent from now on.

        Raises:
            Unavailable: The broker does not answer.
        """
        self._since = await self._listener.hear(self._cluster.known(topic))
        self._others.append(self)

    async def joined(self) -> None:
        """See :class:`penstock.bus.backends.kafka.source.Source`."""

    async def fetch(self, topic: str, count: int) -> list[Any]:
        """See :class:`penstock.bus.backends.kafka.source.Source`."""
        if not self._heard:
            async with self._listener.fetching:
                if not self._heard:
                    found = await self._listener.fetch(topic, count, LOOK_MS)
                    for ear in self._others:
                        ear.hear(found)
        return [self._heard.popleft() for _ in range(min(count, len(self._heard)))]

    def hear(self, records: list[Any]) -> None:
        """Take copies of what was fetched."""
        for record in records:
            if record.offset >= self._since.get(TopicPartition(record.topic, record.partition), 0):
                self._heard.append(record)
        if len(self._heard) > HEARD_MAX:
            log.warning("a subscriber is too slow: %d events are dropped", len(self._heard) - HEARD_MAX)
            while len(self._heard) > HEARD_MAX:
                self._heard.popleft()

    def take(self, partition: TopicPartition, offset: int) -> int:
        """See :class:`penstock.bus.backends.kafka.source.Source`."""
        del partition, offset
        return 0

    def done(self, partition: TopicPartition, offset: int) -> None:
        """See :class:`penstock.bus.backends.kafka.source.Source`."""

    def elsewhere(self, topic: str) -> list[int]:
        """See :class:`penstock.bus.backends.kafka.source.Source`."""
        del topic
        return []

    async def leave(self, topic: str) -> None:
        """See :class:`penstock.bus.backends.kafka.source.Source`."""
        if self in self._others:
            self._others.remove(self)
            if not self._others:
                await self._listener.leave(topic)
