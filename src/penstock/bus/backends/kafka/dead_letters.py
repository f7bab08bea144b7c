"""Dead letters in one compacted Kafka topic; a tombstone under its id deletes a dead letter."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any, Final

from aiokafka import TopicPartition, errors

from penstock.bus.backends.kafka.client_config import translate_error
from penstock.bus.backends.kafka.cluster import LONG_POLL_MS, Cluster, TopicSpec
from penstock.bus.broker import (
    BROKER_TIMEOUT_S,
    DEAD_LETTERS_MAX,
    Channel,
    ChannelKind,
    DeadLetter,
    Delivery,
)
from penstock.kernel.errors import PenstockError

#: Dead letters read at once.
READ_BATCH: Final = 500
#: The topic is trimmed at every so many appends.
TRIM_EVERY: Final = 100


class DeadLetterTopic:
    """Kafka topic with the dead letters of all instances.

    Bounds: ``DEAD_LETTERS_MAX`` records, tombstones included, and as many as all instances append before they trim.
    """

    def __init__(self, cluster: Cluster, topic: str) -> None:
        self._cluster = cluster
        self._topic = topic
        self._partition = TopicPartition(topic, 0)
        size = str(cluster.config.message_bytes)
        self._spec = TopicSpec(
            1, 1, {"cleanup.policy": "compact", "max.message.bytes": size, "segment.bytes": "16777216"}
        )
        self._appended = 0

    async def append(self, channel: Channel, delivery: Delivery, reason: str) -> None:
        """Append a dead letter.

        Raises:
            Unavailable: It may be there or not.
        """
        await self._cluster.ensure_topic(self._topic, self._spec)
        letter, origin = DeadLetter.of(uuid.uuid4().hex, channel, "", delivery, reason), delivery.handle.partition
        about = {
            "topic": letter.topic,
            "kind": channel.kind.value,
            "group": letter.group,
            "reason": reason,
            "tries": letter.attempts,
            "buried_ms": int(letter.dead_lettered_at_s * 1000),
            "size": letter.size,
            "origin": f"{origin.topic}/{origin.partition}/{delivery.handle.offset}",
        }
        headers = [(name, str(value).encode()) for name, value in about.items()]
        await self._cluster.write(self._topic, letter.record, lambda: 0, letter.id.encode(), headers)
        self._appended += 1
        if self._appended % TRIM_EVERY == 1:
            await self._trim()

    async def _trim(self) -> None:
        try:
            ends = await self._cluster.end_offsets([self._partition])
            await self._cluster.delete_before({self._partition: max(0, ends[self._partition] - DEAD_LETTERS_MAX)})
        except PenstockError:  # the dead letter is there; the next trim makes up for this one
            return

    async def read(self, count: int) -> list[DeadLetter]:
        """Return up to ``count`` dead letters, oldest first.

        Raises:
            Unavailable: The broker does not answer.
        """
        dropped = {record.key async for record in self._records() if record.value is None}
        found: list[DeadLetter] = []
        async for record in self._records():
            if record.value is not None and record.key not in dropped:
                found.append(_to_dead_letter(record))
                if len(found) == count:
                    break
        return found

    async def find(self, id: str) -> DeadLetter | None:
        """Return a dead letter; ``None`` where there is none.

        Raises:
            Unavailable: The broker does not answer.
        """
        found: DeadLetter | None = None
        async for record in self._records():
            if record.key == id.encode():
                found = None if record.value is None else _to_dead_letter(record)
        return found

    async def delete(self, id: str) -> None:
        """Delete a dead letter.

        Raises:
            Unavailable: It may still be there.
        """
        await self._cluster.write(self._topic, None, lambda: 0, id.encode())

    async def _records(self) -> AsyncIterator[Any]:
        """Read the topic from its beginning to what is now its end."""
        await self._cluster.ensure_topic(self._topic, self._spec)
        end = (await self._cluster.end_offsets([self._partition]))[self._partition]
        consumer = self._cluster.consumer(fetch_max_wait_ms=LONG_POLL_MS)
        try:
            await self._cluster.call(consumer.start)
            consumer.assign([self._partition])
            await self._cluster.call(consumer.seek_to_beginning)
            at = 0
            while at < end:
                async with asyncio.timeout(BROKER_TIMEOUT_S):
                    records = await consumer.getmany(timeout_ms=int(BROKER_TIMEOUT_S * 1000), max_records=READ_BATCH)
                    at = await consumer.position(self._partition)
                for record in records.get(self._partition, ()):
                    if record.offset < end:
                        yield record
        except (errors.KafkaError, TimeoutError) as error:
            raise translate_error(error, self._cluster.config) from error
        finally:
            await self._cluster.stop(consumer)


def _to_dead_letter(record: Any) -> DeadLetter:
    about = {name: value.decode(errors="replace") for name, value in record.headers}
    kind = ChannelKind.PUBSUB if about.get("kind") == ChannelKind.PUBSUB else ChannelKind.QUEUE
    return DeadLetter(
        id=record.key.decode(errors="replace"),
        channel=Channel(about.get("topic", ""), kind),
        group=about.get("group", ""),
        reason=about.get("reason", ""),
        attempts=int(about.get("tries", "0")),
        dead_lettered_at_s=int(about.get("buried_ms", "0")) / 1000,
        size=int(about.get("size", "0")),
        record=record.value,
    )
