"""Kafka as the bus's broker: what becomes a topic, a group, a partition."""

from __future__ import annotations

import asyncio
import logging
import uuid
import zlib
from collections.abc import Collection, Mapping
from typing import Final

from aiokafka import TopicPartition

from penstock.bus.backends.kafka.access import CONNECTIONS_MAX, NAME, Terms, full, probe, translate, unavailable
from penstock.bus.backends.kafka.cluster import Cluster, Shape
from penstock.bus.backends.kafka.crew import Crew
from penstock.bus.backends.kafka.gauge import Gauge
from penstock.bus.backends.kafka.letters import Letters
from penstock.bus.backends.kafka.listener import Ear, Listener
from penstock.bus.backends.kafka.noise import hush
from penstock.bus.backends.kafka.reader import KafkaReader, Post
from penstock.bus.backends.kafka.source import Source
from penstock.bus.broker import CHECK_S, PATIENCE_S, Answer, Channel, Kind, Letter
from penstock.bus.contract import Features
from penstock.kernel.errors import Invalid, PenstockError
from penstock.kernel.settings_bus import BusSettings, KafkaSettings

log = logging.getLogger(__name__)

#: Handled work is trimmed so often.
TRIM_S: Final = 60.0
#: Which groups read some news is looked up so often.
GROUPS_S: Final = 5.0
#: Notes to all are in this partition of the mailboxes' topic; the others are mailboxes.
TO_ALL: Final = 0
#: Notes read at once.
NOTES: Final = 1000
#: Connections that an instance opens to one broker whatever it does: writing, asking, making topics, the mailbox,
#: news of its own; and those of each group that it is in.
CONNECTIONS: Final = 5
CONNECTIONS_CREW: Final = 2

HOUR_MS: Final = "3600000"


class KafkaBroker:
    """See :class:`penstock.bus.broker.Broker`.

    - Work: one topic for each channel, shared by one group of all workers. A key picks the partition, else they take
      turns.
    - News: one topic with one partition for each channel, so all is in order. Readers of their own read from its end;
      readers with a group's name are a group.
    - Mailboxes: the partitions of one topic. An instance picks one and reads only notes with its name; two that picked
      the same one read past each other's. So nothing has to be made or cleaned up for an instance that comes or goes.
      Notes to all are in a partition that everybody reads.

    Args:
        bus: Bounds and names that hold for all brokers.
        kafka: Where Kafka is, and how topics are made.
        capacities: Records a channel holds at most where that is not ``bus.buffer_size``, by topic.

    Bounds: ``CONNECTIONS`` and, for each group, ``CONNECTIONS_CREW`` connections to a broker, never more than
        ``CONNECTIONS_MAX`` (L5). The capacity of a channel is kept about
        (:class:`penstock.bus.backends.kafka.gauge.Gauge`), and not for news without groups, which Kafka forgets after
        an hour.
    """

    def __init__(self, bus: BusSettings, kafka: KafkaSettings, capacities: Mapping[str, int]) -> None:
        terms = Terms.of(bus, kafka)
        self._terms = terms
        self._capacities = capacities
        self._capacity = bus.buffer_size
        self._name = uuid.uuid4().hex
        self._mailbox = TopicPartition(f"{terms.prefix}-notes", 1 + zlib.crc32(self._name.encode()) % kafka.mailboxes)
        hush("aiokafka")
        self._cluster = Cluster(terms, f"{terms.prefix}-{self._name[:8]}")
        self._letters = Letters(self._cluster, f"{terms.prefix}-dead")
        self._ears: dict[str, Listener] = {}
        self._shared: dict[str, list[Ear]] = {}
        self._crews: dict[str, Crew] = {}
        self._readers: list[KafkaReader] = []
        self._ways: dict[Channel, tuple[str, Gauge]] = {}
        self._groups: dict[str, tuple[float, list[str]]] = {}
        self._joining = asyncio.Lock()
        self._beating: asyncio.Task[None] | None = None
        self._trimming: asyncio.Task[None] | None = None
        self._trimmed_s = 0.0
        self._closed = False
        size = str(terms.message_bytes)
        # The broker's stamps, not the senders': ages are measured by one clock.
        stamped = {"message.timestamp.type": "LogAppendTime", "max.message.bytes": size}
        self._notes = Shape(1 + kafka.mailboxes, 2, {**stamped, "retention.ms": HOUR_MS, "segment.ms": HOUR_MS})
        # Work is kept until it is done, and trimmed then; a segment goes when all of it is.
        self._work = Shape(kafka.partitions, 1, {**stamped, "retention.ms": "-1", "segment.bytes": "67108864"})
        self._news = Shape(1, 1, {**stamped, "retention.ms": HOUR_MS, "segment.ms": HOUR_MS})

    def __repr__(self) -> str:
        return f"<KafkaBroker {self._terms.kafka.where} {self.connections} connections>"

    @property
    def name(self) -> str:
        """See :class:`penstock.bus.broker.Broker`."""
        return NAME

    @property
    def features(self) -> Features:
        """Order holds over all where there is one partition, else for records of one key."""
        return Features(ordered=self._terms.kafka.partitions == 1, persistent=True, redelivers=True, blocks=False)

    @property
    def address(self) -> str:
        """See :class:`penstock.bus.broker.Broker`."""
        return f"{self._mailbox.partition}.{self._name}"

    @property
    def connections(self) -> int:
        """How many connections are open to the broker that has most (L5)."""
        return max(self._cluster.connections().values(), default=0)

    # --- From start to end

    async def start(self) -> None:
        """See :class:`penstock.bus.broker.Broker`. Where it fails, :meth:`beat` tries again."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                async with asyncio.timeout(CHECK_S):
                    await probe(self._terms, self._cluster.options)
                await self._cluster.start()
                await self._cluster.ensure(self._mailbox.topic, self._notes)
                ears = Listener(self._cluster)
                await ears.hear([self._mailbox, TopicPartition(self._mailbox.topic, TO_ALL)])
                self._ears["notes"] = ears
                await self._say_so()
        except BaseException as error:
            self._ears.clear()
            await self._cluster.cut()
            if isinstance(error, Exception):
                raise translate(error, self._terms) from error
            raise

    async def close(self) -> None:
        """See :class:`penstock.bus.broker.Broker`."""
        self._closed = True
        own = [task for task in (self._beating, self._trimming) if task is not None]
        for task in own:
            task.cancel()
        await asyncio.gather(*own, return_exceptions=True)
        steps = [
            [reader.close() for reader in self._readers],
            [*(crew.stop() for crew in self._crews.values()), *(ears.stop() for ears in self._ears.values())],
            [self._cluster.close()],
        ]
        self._readers, self._crews, self._ears = [], {}, {}
        loop = asyncio.get_running_loop()
        until_s = loop.time() + PATIENCE_S
        for step in steps:
            tasks = [loop.create_task(end) for end in step]
            if not tasks:
                continue
            _, late = await asyncio.wait(tasks, timeout=max(0.1, until_s - loop.time()))
            for task in late:  # the library waits for a broker that is gone
                task.cancel()
        await self._cluster.cut()

    async def beat(self) -> None:
        """See :class:`penstock.bus.broker.Broker`. A note to oneself: it also tells the broker's clock."""
        if self._beating is None or self._beating.done():
            self._beating = asyncio.get_running_loop().create_task(self._beat(), name="beat kafka")
        await asyncio.shield(self._beating)

    async def _beat(self) -> None:
        if self._closed:
            raise unavailable("closed")
        if "notes" not in self._ears:
            try:
                await self.start()
            except Invalid as error:
                raise unavailable(error.detail) from error
        await self._say_so()

    async def _say_so(self) -> None:
        loop = asyncio.get_running_loop()
        sent_s = loop.time()
        place = self._mailbox.partition
        stamped = await self._cluster.write(self._mailbox.topic, b"", lambda: place, self._name.encode())
        self._cluster.heard(stamped.timestamp, sent_s, loop.time())
        if loop.time() - self._trimmed_s > TRIM_S:
            self._trimmed_s = loop.time()
            self._trimming = loop.create_task(self._trim(), name="trim kafka")

    async def _trim(self) -> None:
        """Let Kafka forget the work that is done, of the channels that are read here."""
        for reader in [one for one in self._readers if one.channel.kind is Kind.WORK]:
            try:
                marks = await self._cluster.marks(
                    self._crew_name(reader.channel, ""), self._cluster.known(reader.topic)
                )
                await self._cluster.trim({one: mark.offset for one, mark in marks.items() if mark.offset > 0})
            except PenstockError as error:
                log.warning("what is done of %s stays in Kafka: %s", reader.topic, error)

    # --- Channels

    def _topic(self, channel: Channel) -> str:
        return f"{self._terms.prefix}.{channel.kind}.{channel.topic}"

    def _crew_name(self, channel: Channel, group: str) -> str:
        workers = f"{self._terms.prefix}-workers"
        return workers if channel.kind is Kind.WORK else f"{self._readers_of(channel)}{group}"

    def _readers_of(self, channel: Channel) -> str:
        return f"{self._terms.prefix}-news-{channel.topic}-"

    async def _ensure(self, channel: Channel) -> str:
        topic = self._topic(channel)
        await self._cluster.ensure(topic, self._work if channel.kind is Kind.WORK else self._news)
        return topic

    async def join(self, channel: Channel, group: str = "") -> KafkaReader:
        """See :class:`penstock.bus.broker.Broker`.

        Raises:
            Invalid: Too many groups: there would be more connections than ``CONNECTIONS_MAX``.
            Unavailable: The broker does not answer.
        """
        topic = await self._ensure(channel)
        if channel.kind is Kind.NEWS and not group:
            source: Source = await self._listen_to(topic)
        else:
            crew = await self._sign_on(self._crew_name(channel, group))
            await crew.join(topic)
            source = crew
        post = Post(self._answer, self._letters.bury)
        reader = KafkaReader(channel, group, topic, source, self._cluster, post)
        self._readers.append(reader)
        return reader

    async def _listen_to(self, topic: str) -> Ear:
        listener = self._ears.setdefault("news", Listener(self._cluster))
        ear = Ear(listener, self._cluster, self._shared.setdefault(topic, []))
        await ear.join(topic)
        return ear

    async def _sign_on(self, group: str) -> Crew:
        async with self._joining:
            crew = self._crews.get(group)
            if crew is None:
                if CONNECTIONS + CONNECTIONS_CREW * (1 + len(self._crews)) > CONNECTIONS_MAX:
                    detail = f"no group {group}: it would take more than {CONNECTIONS_MAX} connections to a broker (L5)"
                    raise Invalid(detail)
                crew = Crew(self._cluster, group, self._purge)
                await crew.start()
                self._crews[group] = crew
        return crew

    def _purge(self, partitions: Collection[TopicPartition]) -> None:
        for reader in self._readers:
            reader.purge(partitions)

    async def send(self, channel: Channel, record: bytes, key: str, within_s: float) -> None:
        """See :class:`penstock.bus.broker.Broker`.

        Raises:
            Rejected: ``queue_full``.
            Unavailable: Whether it was appended is not known.
            Invalid: ``too_large``.
        """
        loop = asyncio.get_running_loop()
        until_s = loop.time() + within_s + PATIENCE_S
        way = self._ways.get(channel)
        topic, gauge = way or await self._open(channel)
        if not await gauge.enter(within_s):
            raise full(channel.topic)
        cluster, kafka_key = self._cluster, key.encode() or None
        left_s = max(0.0, until_s - loop.time())
        try:
            await cluster.write(topic, record, lambda: cluster.place(topic, key), kafka_key, within_s=left_s)
        finally:
            gauge.sent()

    async def _open(self, channel: Channel) -> tuple[str, Gauge]:
        """Return a channel's topic, made if it was not there, and how full it is."""
        topic = await self._ensure(channel)
        capacity = self._capacities.get(channel.topic, self._capacity)
        return self._ways.setdefault(channel, (topic, Gauge(capacity, lambda: self.depth(channel))))

    async def depth(self, channel: Channel) -> int:
        """See :class:`penstock.bus.broker.Broker`. What is done counts until all before it is, and a moment more."""
        topic = await self._ensure(channel)
        if channel.kind is Kind.WORK:
            return await self._cluster.backlog(topic, self._crew_name(channel, ""))
        groups = await self._news_groups(channel)
        return max([await self._cluster.backlog(topic, group) for group in groups], default=0)

    async def _news_groups(self, channel: Channel) -> list[str]:
        prefix, now_s = self._readers_of(channel), asyncio.get_running_loop().time()
        asked_s, groups = self._groups.get(prefix, (-GROUPS_S, []))
        if now_s - asked_s >= GROUPS_S:
            groups = await self._cluster.groups(prefix)
            self._groups[prefix] = (now_s, groups)
        return groups

    # --- Mailboxes

    async def reply(self, address: str, record: bytes) -> None:
        """See :class:`penstock.bus.broker.Broker`."""
        number, _, name = address.partition(".")
        if not number.isdigit() or not TO_ALL < int(number) <= self._terms.kafka.mailboxes:
            return  # nobody's
        place = int(number)
        await self._cluster.write(self._mailbox.topic, record, lambda: place, name.encode())

    async def _answer(self, answer: Answer) -> None:
        await self.reply(answer.address, answer.record)

    async def tell(self, record: bytes) -> None:
        """See :class:`penstock.bus.broker.Broker`."""
        await self._cluster.write(self._mailbox.topic, record, lambda: TO_ALL, None)

    async def listen(self, wait_s: float) -> list[bytes]:
        """See :class:`penstock.bus.broker.Broker`."""
        name = self._name.encode()
        ears = self._ears.get("notes")
        if ears is None:
            raise unavailable(f"Kafka at {self._terms.kafka.where}: not connected yet")
        loop = asyncio.get_running_loop()
        until_s = loop.time() + wait_s
        while True:
            wait_ms = max(0, int((until_s - loop.time()) * 1000))
            found = await ears.fetch(self._mailbox.topic, NOTES, wait_ms)
            notes = [
                record.value for record in found if record.value and (record.partition == TO_ALL or record.key == name)
            ]
            if notes or loop.time() >= until_s:
                return notes

    # --- Dead letters

    async def letters(self, count: int) -> list[Letter]:
        """See :class:`penstock.bus.broker.Broker`."""
        return await self._letters.read(count)

    async def revive(self, letter: str) -> bool:
        """See :class:`penstock.bus.broker.Broker`."""
        found = await self._letters.find(letter)
        if found is None or len(found[0].record) < found[0].size:
            return False
        await self.send(found[1], found[0].record, "", 0.0)
        await self._letters.drop(letter)
        return True

    async def drop(self, letter: str) -> bool:
        """See :class:`penstock.bus.broker.Broker`."""
        if await self._letters.find(letter) is None:
            return False
        await self._letters.drop(letter)
        return True
