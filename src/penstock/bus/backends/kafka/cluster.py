"""This instance's clients that read nothing: one writes, one asks how far things are, one makes topics."""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Final, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition, errors
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.structs import OffsetAndMetadata, RecordMetadata

from penstock.bus.backends.kafka.access import BACKOFF_S, NAME, Terms, options, too_few, translate, unavailable
from penstock.bus.backends.kafka.leftovers import connections, cut
from penstock.bus.broker import PATIENCE_S
from penstock.kernel.deadline import Deadline, limit
from penstock.kernel.errors import Expired

log = logging.getLogger(__name__)

T = TypeVar("T")
Headers = Sequence[tuple[str, bytes]]

#: Copies of a topic, where the setting leaves it open and there are brokers enough.
COPIES: Final = 3


@dataclass(frozen=True, slots=True)
class Shape:
    """What a topic of ours is to look like.

    Attributes:
        partitions: How many, if it has to be made.
        least: With fewer it cannot be used.
        config: Its configuration, if it has to be made.
    """

    partitions: int
    least: int
    config: Mapping[str, str]


class Cluster:
    """Writes, asks and makes topics; translates what goes wrong.

    Args:
        terms: What the settings say.
        client_id: What Kafka shall know this instance by.

    Attributes:
        terms: As given.
        options: What every client is made with.

    Bounds: Three connections to each broker.
    """

    def __init__(self, terms: Terms, client_id: str) -> None:
        self.terms = terms
        self.options = options(terms, client_id)
        self._producer: Any = None
        self._admin: Any = None
        self._lookout: Any = None
        self._clients: list[Any] = []
        self._connected = False
        self._partitions: dict[str, int] = {}
        self._making = asyncio.Lock()
        self._turn = count()
        self._coordinators: dict[str, int] = {}
        self._ahead_s: float | None = None

    # --- From start to end

    async def start(self) -> None:
        """Connect.

        Raises:
            KafkaError: It could not.
        """
        self._producer = AIOKafkaProducer(acks="all", max_request_size=self.terms.message_bytes, **self.options)
        self._clients.append(self._producer)
        await self._producer.start()
        self._admin = AIOKafkaAdminClient(**self.options)
        self._clients.append(self._admin)
        await self._admin.start()
        self._lookout = self.consumer()
        await self._lookout.start()
        self._connected = True

    async def close(self) -> None:
        """Disconnect. Whatever is still to be written has been waited for by who wrote it."""
        clients = (self._producer, self._lookout)
        ends = [client.stop() for client in clients if client is not None]
        if self._admin is not None:
            ends.append(self._admin.close())
        await asyncio.gather(*ends, return_exceptions=True)

    async def cut(self) -> None:
        """End every client that is still at work, whoever waits for an answer there."""
        await cut(self._clients)
        self._clients.clear()
        self._connected = False

    def consumer(self, **asked: Any) -> Any:
        """Return a new consumer, which its owner starts and gives to :meth:`stop`."""
        made = AIOKafkaConsumer(
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=1_048_576,
            max_poll_interval_ms=86_400_000,  # who takes nothing for a while is no less alive
            **self.options,
            **asked,
        )
        self._clients.append(made)
        return made

    async def stop(self, consumer: Any) -> None:
        """Stop a consumer and forget it.

        Cancellation: :meth:`cut` ends it.
        """
        await consumer.stop()
        if consumer in self._clients:
            self._clients.remove(consumer)

    def connections(self) -> Counter[str]:
        """Return how many connections are open, by broker (L5)."""
        return connections(self._clients)

    # --- The broker's clock

    def heard(self, timestamp_ms: int, sent_s: float, heard_s: float) -> None:
        """Learn from an answer what the broker's clock says: its stamp was set between two moments of ours."""
        self._ahead_s = timestamp_ms / 1000 - (sent_s + heard_s) / 2

    def age_s(self, timestamp_ms: int) -> float:
        """Return how long ago, by the broker's clock, it stamped a record; 0 while that is not known."""
        if self._ahead_s is None:
            return 0.0
        return max(0.0, asyncio.get_running_loop().time() + self._ahead_s - timestamp_ms / 1000)

    # --- Writing

    def _check(self) -> None:
        if not self._connected:
            raise unavailable(f"Kafka at {self.terms.kafka.where}: not connected")

    def place(self, topic: str, key: str) -> int:
        """Return the partition for a record: that of its key, else the next that has a leader."""
        cluster = self._producer.client.cluster
        everywhere = self._partitions[topic]
        if key:
            return zlib.crc32(key.encode()) % everywhere
        led: list[int] = sorted(cluster.available_partitions_for_topic(topic) or range(everywhere))
        return led[next(self._turn) % len(led)]

    async def write(
        self,
        topic: str,
        record: bytes | None,
        place: Callable[[], int],
        key: bytes | None,
        headers: Headers = (),
        within_s: float = PATIENCE_S,
    ) -> RecordMetadata:
        """Append a record; all copies that are well have it when this returns.

        Args:
            topic: A topic that :meth:`ensure` knows.
            record: The bytes; ``None`` is a tombstone.
            place: Says the partition, anew for each try.
            key: Kafka's key.
            headers: What stands beside it.
            within_s: How long to try.

        Raises:
            Unavailable: It may have been appended or not.
            Invalid: It is too large (``too_large``), or we may not.
        """
        self._check()
        loop = asyncio.get_running_loop()
        until_s = loop.time() + within_s
        while True:
            try:
                # On the wheel: a timer of the loop for each record would cost as much as handing it over.
                async with limit(Deadline(until_s, NAME)):
                    return await self._producer.send_and_wait(
                        topic, record, key=key, partition=place(), headers=list(headers)
                    )
            except errors.KafkaError as error:
                if not error.retriable or loop.time() >= until_s:
                    raise translate(error, self.terms) from error
            except (Expired, TimeoutError) as error:
                raise translate(TimeoutError(), self.terms) from error
            await asyncio.sleep(BACKOFF_S)

    # --- Topics

    async def ensure(self, topic: str, shape: Shape) -> int:
        """Return how many partitions a topic has; it is made if it is not there.

        Raises:
            Invalid: It has fewer than it must; or it cannot be made as asked.
            Unavailable: The broker does not answer.
        """
        found = self._partitions.get(topic)
        if found is not None:
            return found
        async with self._making:
            if topic not in self._partitions:
                found = await self.ask(lambda: self._ensure(topic, shape))
                if found < shape.least:
                    raise too_few(topic, found, shape.least)
                if found < shape.partitions:
                    log.warning(
                        "topic %s has %d of %d partitions: no more than %d workers can share it; add some with "
                        "kafka-topics.sh --alter --topic %s --partitions %d",
                        *(topic, found, shape.partitions, found, topic, shape.partitions),
                    )
                self._partitions[topic] = found
        return self._partitions[topic]

    async def _ensure(self, topic: str, shape: Shape) -> int:
        (described,) = await self._admin.describe_topics([topic])
        if described["error_code"] == errors.UnknownTopicOrPartitionError.errno:
            copies = self.terms.kafka.replication or min(COPIES, len(self._producer.client.cluster.brokers()))
            new = NewTopic(topic, shape.partitions, copies, topic_configs=dict(shape.config))
            response = await self._admin.create_topics([new])
            code = response.topic_errors[0][1]
            if code not in (0, errors.TopicAlreadyExistsError.errno):
                raise errors.for_code(code)(topic)
        elif described["error_code"]:
            raise errors.for_code(described["error_code"])(topic)
        return len(await self._producer.partitions_for(topic))

    def known(self, topic: str) -> list[TopicPartition]:
        """Return the partitions of a topic that :meth:`ensure` knows."""
        return [TopicPartition(topic, number) for number in range(self._partitions[topic])]

    # --- How far things are

    async def marks(self, group: str, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, OffsetAndMetadata]:
        """Return what a group has committed; -1 where nothing.

        Raises:
            Unavailable: The broker does not answer.
        """
        return await self.ask(lambda: self._marks(group, list(partitions)))

    async def _marks(self, group: str, partitions: list[TopicPartition]) -> dict[TopicPartition, OffsetAndMetadata]:
        while True:
            try:
                if group not in self._coordinators:
                    self._coordinators[group] = await self._admin.find_coordinator(group)
                marks: dict[TopicPartition, OffsetAndMetadata] = await self._admin.list_consumer_group_offsets(
                    group, self._coordinators[group], partitions
                )
                return marks
            except (errors.KafkaError, AttributeError) as error:
                # The library stumbles with an AttributeError over an answer that tells of an error.
                self._coordinators.pop(group, None)
                if isinstance(error, errors.KafkaError) and not error.retriable:
                    raise
            await asyncio.sleep(BACKOFF_S)

    async def ends(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Return where each partition ends.

        Raises:
            Unavailable: The broker does not answer.
        """
        asked = list(partitions)
        return await self.ask(lambda: self._lookout.end_offsets(asked))

    async def backlog(self, topic: str, group: str) -> int:
        """Return how many records of a topic a group is not done with.

        Raises:
            Unavailable: The broker does not answer.
        """
        partitions = self.known(topic)
        ends, marks = await asyncio.gather(self.ends(partitions), self.marks(group, partitions))
        begun = {one: mark.offset for one, mark in marks.items() if mark.offset >= 0}
        fresh = [one for one in partitions if one not in begun]
        if fresh:
            begun |= await self.ask(lambda: self._lookout.beginning_offsets(fresh))
        return sum(max(0, ends[one] - begun[one]) for one in partitions)

    async def groups(self, prefix: str) -> list[str]:
        """Return the groups whose names begin so.

        Raises:
            Unavailable: The broker does not answer.
        """
        found = await self.ask(self._admin.list_consumer_groups)
        return sorted({group for group, *_ in found if group.startswith(prefix)})

    async def trim(self, before: Mapping[TopicPartition, int]) -> None:
        """Let Kafka forget what is done.

        Raises:
            Unavailable: The broker does not answer.
            Invalid: We may not.
        """
        asked = {one: RecordsToDelete(offset) for one, offset in before.items()}
        if asked:
            await self.ask(lambda: self._admin.delete_records(asked))

    async def ask(self, question: Callable[[], Awaitable[T]]) -> T:
        """Return the answer, within the patience: one broker that is gone is no reason not to ask another.

        Raises:
            Unavailable: None answers.
            Invalid: We may not ask, or a setting is wrong.
        """
        self._check()
        failed: BaseException | None = None
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    try:
                        return await question()
                    except errors.KafkaError as error:
                        if not error.retriable:
                            raise
                        failed = error
                    await asyncio.sleep(BACKOFF_S)
        except (errors.KafkaError, TimeoutError, OSError) as error:
            raise translate(failed if failed and isinstance(error, TimeoutError) else error, self.terms) from error
