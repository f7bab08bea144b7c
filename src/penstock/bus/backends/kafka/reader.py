"""Kafka reader of a channel: turns records into deliveries, and settles each of them once."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Collection
from itertools import count
from typing import Any, Final, NamedTuple

from aiokafka import TopicPartition

from penstock.bus.backends.kafka.cluster import Cluster, Headers
from penstock.bus.backends.kafka.dead_letters import DeadLetterTopic
from penstock.bus.broker import Channel, ChannelKind, Delivery, ReplyMessage
from penstock.bus.loops import cancel_all
from penstock.kernel.errors import PenstockError

#: Headers of a record that was sent again: deliveries so far, and its age then in milliseconds.
ATTEMPTS_HEADER: Final = "tried"
AGE_HEADER: Final = "age"

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


class RecordSource:
    """Source of a reader's records, which keeps track of what became of them.

    A group's member has a share of a topic. The defaults are those of a subscription: it has all of the topic, and
    nothing is acknowledged.
    """

    async def wait_joined(self) -> None:
        """Wait until the partitions are assigned."""

    async def fetch(self, topic: str, count: int) -> list[Any]:
        """Return up to about ``count`` records, oldest first in each partition; none after a while without any.

        Raises:
            Unavailable: The broker is in trouble.
            Invalid: Not authorised.
        """
        raise NotImplementedError

    def track(self, partition: TopicPartition, offset: int) -> int:  # noqa: ARG002
        """Note that a record is handed out; return how many owners died over it, -1 if it is not to be handed out."""
        return 0

    def mark_done(self, partition: TopicPartition, offset: int) -> None:
        """Note that a record is done with."""

    def foreign_partitions(self, topic: str) -> list[int]:  # noqa: ARG002
        """Return the partitions of a topic that other members read, or soon will."""
        return []

    async def leave(self, topic: str) -> None:
        """Stop reading this topic."""
        raise NotImplementedError


class KafkaReader:
    """See :class:`penstock.bus.broker.Reader`.

    Kafka knows no second try: a record that is to come again is sent again, at the end of its partition, with what
    Kafka does not remember in its headers, and then the old one is done. So no pending record holds up the commits of
    those behind it.

    Bounds: What was asked for.
    """

    def __init__(
        self,
        channel: Channel,
        topic: str,
        source: RecordSource,
        cluster: Cluster,
        reply: Callable[[str, bytes], Awaitable[None]],
        dead_letters: DeadLetterTopic,
    ) -> None:
        self.channel = channel
        self.topic = topic
        self._source = source
        self._cluster = cluster
        self._reply = reply
        self._dead_letters = dead_letters
        self._fetched: deque[Any] = deque()
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
            taken: list[Delivery] = []
            while self._fetched and len(taken) < count:
                delivery = self._accept(self._fetched.popleft(), loop.time())
                if delivery is not None:
                    taken.append(delivery)
            if taken or loop.time() >= until_s:
                return taken
            if self._fetch_task is None:
                self._fetch_task = loop.create_task(self._fetch(count), name=f"fetch {self.topic}")
            await asyncio.wait({self._fetch_task}, timeout=max(0.0, until_s - loop.time()))
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

    def _accept(self, record: Any, now_s: float) -> Delivery | None:
        """Return a record's delivery, or ``None`` where it is not to be handed out now."""
        partition = TopicPartition(record.topic, record.partition)
        died = self._source.track(partition, record.offset)
        if died < 0:
            return None
        headers = dict(record.headers)
        return Delivery(
            record=record.value or b"",
            attempts=_int_header(headers, ATTEMPTS_HEADER) + died + 1,
            age_s=self._cluster.age_s(record.timestamp) + _int_header(headers, AGE_HEADER) / 1000,
            handle=DeliveryHandle(partition, record.offset, record.key, now_s),
        )

    async def ack(self, delivery: Delivery, reply: ReplyMessage | None = None) -> None:
        """See :class:`penstock.bus.broker.Reader`. It is committed soon, when all before it are done."""
        if reply is not None:
            await self._reply(reply.address, reply.record)
        self._mark_done(delivery)

    async def requeue(self, delivery: Delivery) -> None:
        """See :class:`penstock.bus.broker.Reader`. The attempt does not count."""
        held: DeliveryHandle = delivery.handle
        # A partition that another member reads; the same one where a key keeps the record in order.
        others = [] if held.key else self._source.foreign_partitions(self.topic)
        number = others[next(self._numbers) % len(others)] if others else held.partition.partition
        age_s = delivery.age_s + asyncio.get_running_loop().time() - held.polled_s
        headers: Headers = [
            (ATTEMPTS_HEADER, str(delivery.attempts - 1).encode()),
            (AGE_HEADER, str(int(age_s * 1000)).encode()),
        ]
        await self._cluster.write(self.topic, delivery.record, lambda: number, held.key, headers)
        self._mark_done(delivery)

    async def dead_letter(self, delivery: Delivery, reason: str) -> None:
        """See :class:`penstock.bus.broker.Reader`."""
        await self._dead_letters.append(self.channel, delivery, reason)
        self._mark_done(delivery)

    def _mark_done(self, delivery: Delivery) -> None:
        held: DeliveryHandle = delivery.handle
        self._source.mark_done(held.partition, held.offset)

    async def pause(self) -> None:
        """See :class:`penstock.bus.broker.Reader`. Others get what comes to our partitions, which we still hold."""
        if self._requeue_task is None and self.channel.kind is ChannelKind.QUEUE:
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
        await cancel_all(self._requeue_task, self._fetch_task)
        with contextlib.suppress(PenstockError):
            await self._source.leave(self.topic)


def _int_header(headers: dict[str, bytes], name: str) -> int:
    """Return a header's number; what another program wrote there counts as none."""
    text = headers.get(name, b"0")
    return int(text) if text.isdigit() else 0
