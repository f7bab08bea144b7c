"""Kafka as the bus's broker: maps channels and mailboxes to topics, groups and partitions."""

from __future__ import annotations

import asyncio
import logging
import uuid
import zlib
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Final

from aiokafka import TopicPartition

from penstock.bus.backends.kafka.broadcast_consumer import BroadcastConsumer, LocalSubscription
from penstock.bus.backends.kafka.client_config import (
    NAME,
    KafkaClientConfig,
    check_connection,
    throttle_loggers,
    translate_error,
    unavailable,
)
from penstock.bus.backends.kafka.cluster import Cluster, TopicSpec
from penstock.bus.backends.kafka.consumer_group import ConsumerGroup
from penstock.bus.backends.kafka.dead_letters import DeadLetterTopic
from penstock.bus.backends.kafka.reader import KafkaReader, RecordSource
from penstock.bus.broker import BROKER_TIMEOUT_S, STARTUP_CHECK_S, Channel, ChannelKind, DeadLetter
from penstock.bus.loops import cancel_all
from penstock.kernel.errors import Invalid, PenstockError, Rejected
from penstock.kernel.settings import BusSettings, KafkaSettings

log = logging.getLogger(__name__)

#: Handled records of queues are trimmed so often.
TRIM_INTERVAL_S: Final = 60.0
#: Broadcasts are in this partition of the mailboxes' topic; the others are mailboxes.
BROADCAST_PARTITION: Final = 0
#: Control messages read at once.
RECEIVE_MAX: Final = 1000
HOUR_MS: Final = "3600000"
#: A nearly full channel is looked at so often at most.
REFRESH_S: Final = 0.1
#: One that is less than half full is looked at so often at least.
REFRESH_IDLE_S: Final = 1.0


class BacklogLimiter:
    """Limiter of a channel's backlog: admits records while there is room.

    Kafka has no bound of its own, and every instance changes what is in it. So the bound is approximate: between two
    measurements this instance adds what it sends itself, and what others send comes on top.

    Bounds: ``capacity``, exceeded by what other instances send within ``REFRESH_S`` (``REFRESH_IDLE_S`` below half).
    """

    def __init__(self, capacity: int, measure_depth: Callable[[], Awaitable[int]]) -> None:
        self.capacity = capacity
        self._measure_depth = measure_depth
        self._measured = 0
        self._sent_since = 0
        self._sending = 0
        self._measured_s = -1e9
        self._refresh_task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<BacklogLimiter {self._measured}+{self._sent_since}+{self._sending}/{self.capacity}>"

    @property
    def _estimate(self) -> int:
        return self._measured + self._sent_since + self._sending

    async def acquire(self, within_s: float) -> bool:
        """Wait for room and take it; return whether there was some. The caller reports with :meth:`on_sent`.

        Raises:
            Unavailable: The broker cannot be asked.

        Cancellation: Nothing was taken.
        """
        loop = asyncio.get_running_loop()
        until_s = loop.time() + within_s
        if loop.time() - self._measured_s > (REFRESH_S if 2 * self._estimate > self.capacity else REFRESH_IDLE_S):
            await self._refresh()
        while not self._try_acquire():
            wait_s = max(0.0, self._measured_s + REFRESH_S - loop.time())
            if loop.time() + wait_s > until_s:
                # Measure once more at the end.
                await asyncio.sleep(max(0.0, until_s - loop.time()))
                await self._refresh()
                return self._try_acquire()
            await asyncio.sleep(wait_s)
            if loop.time() - self._measured_s >= REFRESH_S:
                await self._refresh()
        return True

    def on_sent(self) -> None:
        """Note that an admitted record is in the channel, or will never be."""
        self._sending -= 1
        self._sent_since += 1

    def _try_acquire(self) -> bool:
        if self._estimate >= self.capacity:
            return False
        self._sending += 1
        return True

    async def _refresh(self) -> None:
        """Measure at the broker; concurrent callers wait for the same measurement."""
        if self._refresh_task is None or self._refresh_task.done():
            self._refresh_task = asyncio.get_running_loop().create_task(self._measure())
        await asyncio.shield(self._refresh_task)

    async def _measure(self) -> None:
        before = self._sent_since
        self._measured = await self._measure_depth()
        # What is sent while the question is under way may be in the answer or not: better counted twice.
        self._sent_since -= before
        self._measured_s = asyncio.get_running_loop().time()


class KafkaBroker:
    """See :class:`penstock.bus.broker.Broker`.

    - Queue: one topic for each channel, shared by one group of all workers. A key picks the partition, else they take
      turns.
    - Pub/sub: one topic with one partition for each channel, so all is in order. Readers read from its end.
    - Mailboxes: the partitions of one topic. An instance picks one and reads only records with its name. Instances
      that share a partition skip each other's. So nothing has to be made or cleaned up for an instance that comes or
      goes. Broadcasts are in a partition that every instance reads.

    Args:
        bus: Bounds and names that hold for all brokers.
        kafka: Address and credentials of Kafka, and the layout of new topics.
        capacities: Records a channel holds at most where that is not ``bus.buffer_size``, by topic.

    Bounds: Seven connections to a broker (L5): producer, metadata, admin, mailbox, subscriptions, and two of the group.
        The capacity of a queue is approximate (:class:`BacklogLimiter`).
        Pub/sub has none: Kafka deletes its records after an hour.
    """

    name = NAME

    def __init__(self, bus: BusSettings, kafka: KafkaSettings, capacities: Mapping[str, int]) -> None:
        terms = KafkaClientConfig(kafka, bus.prefix, bus.record_max)
        self._config = terms
        self._capacities = capacities
        self._capacity = bus.buffer_size
        self._name = uuid.uuid4().hex
        self._group = f"{terms.prefix}-workers"
        self._mailbox = TopicPartition(f"{terms.prefix}-notes", 1 + zlib.crc32(self._name.encode()) % kafka.mailboxes)
        self.address = f"{self._mailbox.partition}.{self._name}"
        throttle_loggers("aiokafka")
        self._cluster = Cluster(terms, f"{terms.prefix}-{self._name[:8]}")
        self._dead_letters = DeadLetterTopic(self._cluster, f"{terms.prefix}-dead")
        self._consumers: dict[str, BroadcastConsumer] = {}
        self._subscriptions: dict[str, list[LocalSubscription]] = {}
        self._workers: ConsumerGroup | None = None
        self._readers: list[KafkaReader] = []
        self._routes: dict[Channel, tuple[str, BacklogLimiter]] = {}
        self._joining = asyncio.Lock()
        self._heartbeat_task: asyncio.Task[None] | None = None
        self._trim_task: asyncio.Task[None] | None = None
        self._trimmed_s = 0.0
        self._closed = False
        size = str(terms.message_bytes)
        # The broker's stamps, not the senders': ages are measured by one clock.
        stamped = {"message.timestamp.type": "LogAppendTime", "max.message.bytes": size}
        self._mailbox_spec = TopicSpec(
            1 + kafka.mailboxes, 2, {**stamped, "retention.ms": HOUR_MS, "segment.ms": HOUR_MS}
        )
        # Queue records are kept until they are done, and trimmed then; a segment goes when all of it is.
        self._queue_spec = TopicSpec(
            kafka.partitions, 1, {**stamped, "retention.ms": "-1", "segment.bytes": "67108864"}
        )
        self._pubsub_spec = TopicSpec(1, 1, {**stamped, "retention.ms": HOUR_MS, "segment.ms": HOUR_MS})

    def __repr__(self) -> str:
        return f"<KafkaBroker {self._config.kafka.display_address} {self.connections} connections>"

    @property
    def connections(self) -> int:
        """Number of connections to the broker that has most of them (L5)."""
        return max(self._cluster.connections().values(), default=0)

    # --- From start to end

    async def start(self) -> None:
        """See :class:`penstock.bus.broker.Broker`. Where it fails, :meth:`heartbeat` tries again."""
        try:
            async with asyncio.timeout(BROKER_TIMEOUT_S):
                async with asyncio.timeout(STARTUP_CHECK_S):
                    await check_connection(self._config, self._cluster.options)
                await self._cluster.start()
                await self._cluster.ensure_topic(self._mailbox.topic, self._mailbox_spec)
                consumer = BroadcastConsumer(self._cluster)
                await consumer.add_partitions([self._mailbox, TopicPartition(self._mailbox.topic, BROADCAST_PARTITION)])
                self._consumers["notes"] = consumer
                await self._write_heartbeat()
        except BaseException as error:
            self._consumers.clear()
            await self._cluster.abort()
            if isinstance(error, Exception):
                raise translate_error(error, self._config) from error
            raise

    async def close(self) -> None:
        """See :class:`penstock.bus.broker.Broker`."""
        self._closed = True
        await cancel_all(self._heartbeat_task, self._trim_task)
        steps = [
            [reader.close() for reader in self._readers],
            [one.stop() for one in (self._workers, *self._consumers.values()) if one is not None],
            [self._cluster.close()],
        ]
        self._readers, self._workers, self._consumers = [], None, {}
        loop = asyncio.get_running_loop()
        until_s = loop.time() + BROKER_TIMEOUT_S
        for step in steps:
            tasks = [loop.create_task(end) for end in step]
            if not tasks:
                continue
            _, late = await asyncio.wait(tasks, timeout=max(0.1, until_s - loop.time()))
            for task in late:  # the library waits for a broker that is gone
                task.cancel()
        await self._cluster.abort()

    async def heartbeat(self) -> None:
        """See :class:`penstock.bus.broker.Broker`. It writes to our own mailbox, which shows the broker's clock."""
        if self._heartbeat_task is None or self._heartbeat_task.done():
            self._heartbeat_task = asyncio.get_running_loop().create_task(self._heartbeat(), name="beat kafka")
        await asyncio.shield(self._heartbeat_task)

    async def _heartbeat(self) -> None:
        if self._closed:
            raise unavailable("closed")
        if "notes" not in self._consumers:
            try:
                await self.start()
            except Invalid as error:
                raise unavailable(error.detail) from error
        await self._write_heartbeat()

    async def _write_heartbeat(self) -> None:
        loop = asyncio.get_running_loop()
        sent_s = loop.time()
        place = self._mailbox.partition
        stamped = await self._cluster.write(self._mailbox.topic, b"", lambda: place, self._name.encode())
        self._cluster.observe_clock(stamped.timestamp, sent_s, loop.time())
        if loop.time() - self._trimmed_s > TRIM_INTERVAL_S:
            self._trimmed_s = loop.time()
            self._trim_task = loop.create_task(self._trim(), name="trim kafka")

    async def _trim(self) -> None:
        """Delete the handled records of the queues that are read here."""
        for reader in [one for one in self._readers if one.channel.kind is ChannelKind.QUEUE]:
            try:
                marks = await self._cluster.committed_offsets(self._group, self._cluster.partitions(reader.topic))
                await self._cluster.delete_before({one: mark.offset for one, mark in marks.items() if mark.offset > 0})
            except PenstockError as error:
                log.warning("the handled records of %s could not be deleted and stay in Kafka: %s", reader.topic, error)

    # --- Channels

    async def _ensure(self, channel: Channel) -> str:
        topic = f"{self._config.prefix}.{channel.kind}.{channel.topic}"
        await self._cluster.ensure_topic(
            topic, self._queue_spec if channel.kind is ChannelKind.QUEUE else self._pubsub_spec
        )
        return topic

    async def join(self, channel: Channel) -> KafkaReader:
        """See :class:`penstock.bus.broker.Broker`."""
        topic = await self._ensure(channel)
        source: RecordSource
        if channel.kind is ChannelKind.QUEUE:
            source = workers = await self._join_workers()
            await workers.join(topic)
        else:
            listener = self._consumers.setdefault("news", BroadcastConsumer(self._cluster))
            source = ear = LocalSubscription(listener, self._cluster, self._subscriptions.setdefault(topic, []))
            await ear.join(topic)
        reader = KafkaReader(channel, topic, source, self._cluster, self.reply, self._dead_letters)
        self._readers.append(reader)
        return reader

    async def _join_workers(self) -> ConsumerGroup:
        async with self._joining:
            if self._workers is None:
                member = ConsumerGroup(self._cluster, self._group, self._discard_fetched)
                await member.start()
                self._workers = member
            return self._workers

    def _discard_fetched(self, partitions: Collection[TopicPartition]) -> None:
        for reader in self._readers:
            reader.discard_fetched(partitions)

    async def send(self, channel: Channel, record: bytes, key: str, within_s: float) -> None:
        """See :class:`penstock.bus.broker.Broker`.

        Raises:
            Rejected: ``topic_full``.
            Unavailable: Whether it was appended is not known.
            Invalid: ``too_large``.
        """
        loop = asyncio.get_running_loop()
        until_s = loop.time() + within_s + BROKER_TIMEOUT_S
        way = self._routes.get(channel)
        topic, gauge = way or await self._open(channel)
        if not await gauge.acquire(within_s):
            raise Rejected(f"{channel.topic} is full", code="topic_full")
        cluster, kafka_key = self._cluster, key.encode() or None
        left_s = max(0.0, until_s - loop.time())
        try:
            await cluster.write(topic, record, lambda: cluster.partition_for(topic, key), kafka_key, within_s=left_s)
        finally:
            gauge.on_sent()

    async def _open(self, channel: Channel) -> tuple[str, BacklogLimiter]:
        """Return a channel's topic, created if missing, and its backlog limiter."""
        topic = await self._ensure(channel)
        capacity = self._capacities.get(channel.topic, self._capacity)
        return self._routes.setdefault(channel, (topic, BacklogLimiter(capacity, lambda: self.depth(channel))))

    async def depth(self, channel: Channel) -> int:
        """See :class:`penstock.bus.broker.Broker`. A done record counts until all before it are committed."""
        topic = await self._ensure(channel)
        return await self._cluster.backlog(topic, self._group) if channel.kind is ChannelKind.QUEUE else 0

    # --- Mailboxes

    async def reply(self, address: str, record: bytes) -> None:
        """See :class:`penstock.bus.broker.Broker`."""
        number, _, name = address.partition(".")
        if not number.isdigit() or not BROADCAST_PARTITION < int(number) <= self._config.kafka.mailboxes:
            return  # no mailbox
        place = int(number)
        await self._cluster.write(self._mailbox.topic, record, lambda: place, name.encode())

    async def broadcast(self, record: bytes) -> None:
        """See :class:`penstock.bus.broker.Broker`."""
        await self._cluster.write(self._mailbox.topic, record, lambda: BROADCAST_PARTITION, None)

    async def receive(self, wait_s: float) -> list[bytes]:
        """See :class:`penstock.bus.broker.Broker`."""
        name = self._name.encode()
        consumer = self._consumers.get("notes")
        if consumer is None:
            raise unavailable(f"Kafka at {self._config.kafka.display_address}: not connected yet")
        loop = asyncio.get_running_loop()
        until_s = loop.time() + wait_s
        while True:
            wait_ms = max(0, int((until_s - loop.time()) * 1000))
            found = await consumer.fetch(self._mailbox.topic, RECEIVE_MAX, wait_ms)
            records = [
                record.value
                for record in found
                if record.value and (record.partition == BROADCAST_PARTITION or record.key == name)
            ]
            if records or loop.time() >= until_s:
                return records

    # --- Dead letters

    async def dead_letters(self, count: int) -> list[DeadLetter]:
        """See :class:`penstock.bus.broker.Broker`."""
        return await self._dead_letters.read(count)

    async def requeue_dead_letter(self, letter_id: str) -> bool:
        """See :class:`penstock.bus.broker.Broker`."""
        found = await self._dead_letters.find(letter_id)
        if found is None or not found.whole:
            return False
        await self.send(found.channel, found.record, "", 0.0)
        await self._dead_letters.delete(letter_id)
        return True

    async def delete_dead_letter(self, letter_id: str) -> bool:
        """See :class:`penstock.bus.broker.Broker`."""
        if await self._dead_letters.find(letter_id) is None:
            return False
        await self._dead_letters.delete(letter_id)
        return True
