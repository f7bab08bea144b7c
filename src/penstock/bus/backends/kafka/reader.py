"""Kafka reader of a channel: turns records into deliveries and settles each of them once."""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import count
from typing import Any, Final, NamedTuple

from aiokafka import TopicPartition

from penstock.bus.backends.kafka.cluster import Cluster, Headers
from penstock.bus.backends.kafka.record_source import RecordSource
from penstock.bus.broker import Channel, ChannelKind, Delivery, ReplyMessage
from penstock.kernel.errors import PenstockError

#: Headers of a record that was sent again: deliveries so far, its age then and how long to wait yet, both in
#: milliseconds, and the one group of readers it is meant for.
ATTEMPTS_HEADER: Final = "tried"
AGE_HEADER: Final = "age"
DELAY_HEADER: Final = "wait"
GROUP_HEADER: Final = "group"

#: A paused reader requeues so many at once, and checks so often whether there are other members.
REQUEUE_BATCH: Final = 16
REQUEUE_POLL_S: Final = 0.2


class DeliveryHandle(NamedTuple):
    """Origin of a delivery.

    Attributes:
        partition: Its partition.
        offset: Its place there.
        key: Kafka's key.
        polled_s: When it was taken, on the loop's clock.
    """

    partition: TopicPartition
    offset: int
    key: bytes | None
    polled_s: float


@dataclass(frozen=True, slots=True)
class ReaderOutput:
    """Callbacks through which a reader writes replies and dead letters.

    Attributes:
        reply: Sends a reply to a mailbox.
        dead_letter: Puts a delivery among the dead letters: channel, group, delivery, reason.
    """

    reply: Callable[[ReplyMessage], Any]
    dead_letter: Callable[[Channel, str, Delivery, str], Any]


class KafkaReader:
    """See :class:`penstock.bus.broker.Reader`.

    Kafka knows neither a second try nor one that waits: a record that is to come again is sent again, at the end of
    its partition, with what Kafka does not remember in its headers, and then the old one is done. So no pending record
    holds up the commits of those behind it.

    Args:
        channel: The channel to read.
        group: The group that shares a pub/sub channel; empty for a queue and for a subscription of one's own.
        topic: Kafka's name for the channel.
        source: The source of the records.
        cluster: Writes the records that are sent again.
        output: Writes replies and dead letters.

    Bounds: What was asked for, and as many records that wait for their time as the source hands out.
    """

    def __init__(
        self, channel: Channel, group: str, topic: str, source: RecordSource, cluster: Cluster, output: ReaderOutput
    ) -> None:
        self.channel = channel
        self.group = group
        self.topic = topic
        self._exclusive = channel.kind is ChannelKind.PUBSUB and not group
        self._source = source
        self._cluster = cluster
        self._output = output
        self._fetched: deque[Any] = deque()
        self._delayed: list[tuple[float, int, Delivery]] = []
        self._numbers = count()
        self._fetch_task: asyncio.Task[None] | None = None
        self._requeue_task: asyncio.Task[None] | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<KafkaReader {self.topic} {len(self._fetched)} fetched>"

    async def wait_joined(self) -> None:
        """See :class:`penstock.bus.broker.Reader`."""
        await self._source.wait_joined()

    async def poll(self, count: int, wait_s: float) -> list[Delivery]:
        """See :class:`penstock.bus.broker.Reader`."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + wait_s
        while True:
            taken = self._due(count, loop.time())
            while self._fetched and len(taken) < count:
                delivery = self._accept(self._fetched.popleft(), loop.time())
                if delivery is not None:
                    taken.append(delivery)
            if taken or loop.time() >= until_s:
                return taken
            if self._fetch_task is None:
                self._fetch_task = loop.create_task(self._fetch(count), name=f"fetch {self.topic}")
            next_s = min(until_s, self._delayed[0][0] if self._delayed else until_s)
            await asyncio.wait({self._fetch_task}, timeout=max(0.0, next_s - loop.time()))
            if self._fetch_task.done():
                filled, self._fetch_task = self._fetch_task, None
                filled.result()

    async def _fetch(self, count: int) -> None:
        """Fetch. A task of its own, so that a cancelled ``poll`` loses nothing."""
        self._fetched += await self._source.fetch(self.topic, count)

    def discard_fetched(self, partitions: Collection[TopicPartition]) -> None:
        """Forget the records of these partitions that were fetched and not handed out."""
        if self._fetched:
            kept = [one for one in self._fetched if TopicPartition(one.topic, one.partition) not in partitions]
            self._fetched = deque(kept)

    def _due(self, count: int, now_s: float) -> list[Delivery]:
        due: list[Delivery] = []
        while self._delayed and self._delayed[0][0] <= now_s and len(due) < count:
            due.append(heapq.heappop(self._delayed)[2])
        return due

    def _accept(self, record: Any, now_s: float) -> Delivery | None:
        """Return a record's delivery, or ``None`` where it is not to be handed out now."""
        partition = TopicPartition(record.topic, record.partition)
        died = self._source.track(partition, record.offset)
        if died < 0:
            return None
        headers = dict(record.headers)
        if headers.get(GROUP_HEADER, self.group.encode()) != self.group.encode():
            self._source.mark_done(partition, record.offset)
            return None
        age_s = self._cluster.age_s(record.timestamp)
        delivery = Delivery(
            record=record.value or b"",
            attempts=_int_header(headers, ATTEMPTS_HEADER) + died + 1,
            age_s=age_s + _int_header(headers, AGE_HEADER) / 1000,
            handle=DeliveryHandle(partition, record.offset, record.key, now_s),
        )
        wait_s = _int_header(headers, DELAY_HEADER) / 1000 - age_s
        if wait_s > 0:
            self._delay(delivery, now_s + wait_s)
            return None
        return delivery

    def _delay(self, delivery: Delivery, due_s: float) -> None:
        heapq.heappush(self._delayed, (due_s, next(self._numbers), delivery))

    async def ack(self, delivery: Delivery, reply: ReplyMessage | None = None) -> None:
        """See :class:`penstock.bus.broker.Reader`. It is committed soon, when all before it are done."""
        if reply is not None:
            await self._output.reply(reply)
        self._mark_done(delivery)

    async def nack(self, delivery: Delivery, delay_s: float) -> None:
        """See :class:`penstock.bus.broker.Reader`."""
        if self._exclusive:
            delivery.attempts += 1
            self._delay(delivery, asyncio.get_running_loop().time() + delay_s)
        else:
            await self._resend(delivery, delivery.attempts, delay_s, delivery.handle.partition.partition)

    async def requeue(self, delivery: Delivery) -> None:
        """See :class:`penstock.bus.broker.Reader`. The attempt does not count."""
        if self._exclusive:
            self._delay(delivery, asyncio.get_running_loop().time())
        else:
            await self._resend(delivery, delivery.attempts - 1, 0.0, self._other_partition(delivery.handle))

    def _other_partition(self, held: DeliveryHandle) -> int:
        """Return a partition that another member reads; the same one where a key keeps the record in order."""
        others = [] if held.key else self._source.foreign_partitions(self.topic)
        return others[next(self._numbers) % len(others)] if others else held.partition.partition

    async def _resend(self, delivery: Delivery, tried: int, delay_s: float, number: int) -> None:
        """Send the record again, and mark the old one done."""
        held: DeliveryHandle = delivery.handle
        age_s = delivery.age_s + asyncio.get_running_loop().time() - held.polled_s
        headers: Headers = [
            (ATTEMPTS_HEADER, str(tried).encode()),
            (AGE_HEADER, str(int(age_s * 1000)).encode()),
            (DELAY_HEADER, str(int(delay_s * 1000 + 0.999)).encode()),
            *([(GROUP_HEADER, self.group.encode())] if self.group else []),
        ]
        await self._cluster.write(self.topic, delivery.record, lambda: number, held.key, headers)
        self._mark_done(delivery)

    async def dead_letter(self, delivery: Delivery, reason: str) -> None:
        """See :class:`penstock.bus.broker.Reader`."""
        await self._output.dead_letter(self.channel, self.group, delivery, reason)
        self._mark_done(delivery)

    def _mark_done(self, delivery: Delivery) -> None:
        held: DeliveryHandle = delivery.handle
        self._source.mark_done(held.partition, held.offset)

    async def pause(self) -> None:
        """See :class:`penstock.bus.broker.Reader`. Others get what comes to our partitions, which we still hold."""
        if self._requeue_task is None and not self._exclusive:
            self._requeue_task = asyncio.get_running_loop().create_task(
                self._requeue_loop(), name=f"pass on {self.topic}"
            )

    async def _requeue_loop(self) -> None:
        while True:
            if not self._source.foreign_partitions(self.topic):
                await asyncio.sleep(REQUEUE_POLL_S)  # there is no other member
                continue
            try:
                for delivery in await self.poll(REQUEUE_BATCH, REQUEUE_POLL_S):
                    if not delivery.handle.key:  # those wait for the member that takes our place
                        await self.requeue(delivery)
            except PenstockError:
                await asyncio.sleep(REQUEUE_POLL_S)

    async def close(self) -> None:
        """See :class:`penstock.bus.broker.Reader`."""
        if self._closed:
            return
        self._closed = True
        if self._requeue_task is not None:
            self._requeue_task.cancel()
            await asyncio.gather(self._requeue_task, return_exceptions=True)
        if self._fetch_task is not None:
            self._fetch_task.cancel()
            await asyncio.gather(self._fetch_task, return_exceptions=True)
        try:
            await self._source.leave(self.topic)
        except PenstockError:
            return


def _int_header(headers: dict[str, bytes], name: str) -> int:
    """Return a header's number; what another program wrote there counts as none."""
    text = headers.get(name, b"0")
    return int(text) if text.isdigit() else 0
