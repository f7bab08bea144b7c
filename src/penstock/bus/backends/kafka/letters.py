"""Dead letters: one compacted topic; a letter is dropped by a tombstone under its name."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any, Final

from aiokafka import TopicPartition, errors

from penstock.bus.backends.kafka.access import translate
from penstock.bus.backends.kafka.cluster import Cluster, Shape
from penstock.bus.backends.kafka.source import STAND_MS
from penstock.bus.broker import LETTER_BYTES_MAX, LETTERS_MAX, PATIENCE_S, Channel, Delivery, Kind, Letter
from penstock.kernel.errors import PenstockError

#: Letters read at once.
PAGE: Final = 500
#: How often the number of letters is looked at, in burials.
COUNT_EVERY: Final = 100


class Letters:
    """The dead letters of all instances.

    Args:
        cluster: Where they are.
        topic: Kafka's name for their topic.

    Bounds: ``LETTERS_MAX`` records, tombstones included, and as many as all instances bury before they count.
    """

    def __init__(self, cluster: Cluster, topic: str) -> None:
        self._cluster = cluster
        self._topic = topic
        self._place = TopicPartition(topic, 0)
        size = str(cluster.terms.message_bytes)
        self._shape = Shape(1, 1, {"cleanup.policy": "compact", "max.message.bytes": size, "segment.bytes": "16777216"})
        self._buried = 0

    async def bury(self, channel: Channel, group: str, delivery: Delivery, reason: str) -> None:
        """Write one.

        Raises:
            Unavailable: It may be there or not.
        """
        await self._cluster.ensure(self._topic, self._shape)
        size = len(delivery.record)
        kept = delivery.record[:LETTER_BYTES_MAX] if reason == "too_large" else delivery.record
        origin = delivery.handle.partition
        about = {
            "topic": channel.topic,
            "kind": channel.kind.value,
            "group": group,
            "reason": reason,
            "tries": delivery.attempts,
            "buried_ms": int(time.time() * 1000),
            "size": size,
            "origin": f"{origin.topic}/{origin.partition}/{delivery.handle.offset}",
        }
        headers = [(name, str(value).encode()) for name, value in about.items()]
        await self._cluster.write(self._topic, kept, lambda: 0, uuid.uuid4().hex.encode(), headers)
        self._buried += 1
        if self._buried % COUNT_EVERY == 1:
            await self._trim()

    async def _trim(self) -> None:
        try:
            ends = await self._cluster.ends([self._place])
            await self._cluster.trim({self._place: max(0, ends[self._place] - LETTERS_MAX)})
        except PenstockError:  # it is buried; the next who counts trims
            return

    async def read(self, count: int) -> list[Letter]:
        """Return up to ``count``, oldest first.

        Raises:
            Unavailable: The broker does not answer.
        """
        dropped = {record.key async for record in self._records() if record.value is None}
        found: list[Letter] = []
        async for record in self._records():
            if record.value is not None and record.key not in dropped:
                found.append(_letter(record))
                if len(found) == count:
                    break
        return found

    async def find(self, id: str) -> tuple[Letter, Channel] | None:
        """Return one, and where it was sent.

        Raises:
            Unavailable: The broker does not answer.
        """
        found: tuple[Letter, Channel] | None = None
        async for record in self._records():
            if record.key == id.encode():
                kind = dict(record.headers).get("kind", b"").decode()
                found = None if record.value is None else (_letter(record), Channel(_letter(record).topic, Kind(kind)))
        return found

    async def drop(self, id: str) -> None:
        """Delete one.

        Raises:
            Unavailable: It may still be there.
        """
        await self._cluster.write(self._topic, None, lambda: 0, id.encode())

    async def _records(self) -> AsyncIterator[Any]:
        """Read the topic from its beginning to what is now its end."""
        await self._cluster.ensure(self._topic, self._shape)
        end = (await self._cluster.ends([self._place]))[self._place]
        consumer = self._cluster.consumer(fetch_max_wait_ms=STAND_MS)
        try:
            await self._cluster.ask(consumer.start)
            consumer.assign([self._place])
            await self._cluster.ask(consumer.seek_to_beginning)
            at = 0
            while at < end:
                async with asyncio.timeout(PATIENCE_S):
                    records = await consumer.getmany(timeout_ms=int(PATIENCE_S * 1000), max_records=PAGE)
                    at = await consumer.position(self._place)
                for record in records.get(self._place, ()):
                    if record.offset < end:
                        yield record
        except (errors.KafkaError, TimeoutError) as error:
            raise translate(error, self._cluster.terms) from error
        finally:
            await self._cluster.stop(consumer)


def _letter(record: Any) -> Letter:
    about = {name: value.decode(errors="replace") for name, value in record.headers}
    return Letter(
        id=record.key.decode(errors="replace"),
        topic=about.get("topic", ""),
        group=about.get("group", ""),
        reason=about.get("reason", ""),
        attempts=int(about.get("tries", "0")),
        buried_at_s=int(about.get("buried_ms", "0")) / 1000,
        size=int(about.get("size", "0")),
        record=record.value,
    )
