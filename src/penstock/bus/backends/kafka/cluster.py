"""Kafka clients of this instance that read no records: a producer, an admin client and one for offsets."""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Final, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition, errors
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.structs import OffsetAndMetadata, RecordMetadata

from penstock.bus.backends.kafka.client_config import (
    BACKOFF_S,
    NAME,
    KafkaClientConfig,
    client_options,
    translate_error,
    unavailable,
)
from penstock.bus.broker import BROKER_TIMEOUT_S
from penstock.kernel.context import Deadline, enforce_deadline
from penstock.kernel.errors import Expired, Invalid

log = logging.getLogger(__name__)

T = TypeVar("T")
Headers = Sequence[tuple[str, bytes]]

#: How long one fetch request may wait at the broker. An answer for one partition ends the request for all, so
#: a newly wanted partition waits at most so long; shorter only costs idle readers more requests.
LONG_POLL_MS: Final = 100
#: How long a reader polls the same partitions before it checks which are its own.
POLL_MS: Final = 200
#: Where the library's clients keep their parts, and these their tasks. It has no name for either in public.
CLIENT_PARTS: Final = ("client", "_client", "_coordinator", "_fetcher", "_sender")
CLIENT_TASKS: Final = (
    "_coordination_task",
    "_heartbeat_task",
    "_commit_refresh_task",
    "_reset_committed_task",
    "_fetch_task",
    "_sender_task",
    "_sync_task",
)

#: How long cancelled tasks may take to end.
TASK_END_S: Final = 0.5
#: Copies of a topic, where the setting leaves it open and there are brokers enough.
REPLICATION_DEFAULT: Final = 3


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """Partitions and configuration wanted of a Kafka topic.

    Attributes:
        partitions: How many, if it has to be made.
        partitions_min: With fewer it cannot be used.
        config: Its configuration, if it has to be made.
    """

    partitions: int
    partitions_min: int
    config: Mapping[str, str]


class Cluster:
    """Producer, admin client and offset client of one instance; their errors are translated.

    Bounds: Three connections to each broker.
    """

    def __init__(self, config: KafkaClientConfig, client_id: str) -> None:
        self.config = config
        self.options = client_options(config, client_id)
        self._producer: Any = None
        self._admin: Any = None
        self._metadata_consumer: Any = None
        self._clients: list[Any] = []
        self._connected = False
        self._partitions: dict[str, int] = {}
        self._creating_topic = asyncio.Lock()
        self._round_robin = count()
        self._coordinators: dict[str, int] = {}
        self._clock_offset_s: float | None = None

    # --- From start to end

    async def start(self) -> None:
        """Connect.

        Raises:
            KafkaError: It could not.
        """
        self._producer = AIOKafkaProducer(acks="all", max_request_size=self.config.message_bytes, **self.options)
        self._clients.append(self._producer)
        await self._producer.start()
        self._admin = AIOKafkaAdminClient(**self.options)
        self._clients.append(self._admin)
        await self._admin.start()
        self._metadata_consumer = self.consumer()
        await self._metadata_consumer.start()
        self._connected = True

    async def close(self) -> None:
        """Disconnect. Every writer has waited for its own records."""
        clients = (self._producer, self._metadata_consumer)
        ends = [client.stop() for client in clients if client is not None]
        if self._admin is not None:
            ends.append(self._admin.close())
        await asyncio.gather(*ends, return_exceptions=True)

    async def abort(self) -> None:
        """Abort every client that still runs, without notice to the broker, even if callers wait for an answer.

        Cancellation: Some may go on.
        """
        ended, self._clients, self._connected = self._clients, [], False
        _close_connections(ended)  # tasks that wait for an answer fail now, and can end
        tasks = [task for client in ended for task in _iter_tasks(client)]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=TASK_END_S)
        _close_connections(ended)  # what a task has made before it ended
        for client in ended:
            client._closed = True  # noqa: SLF001 - else it complains of not having been stopped

    def consumer(self, **asked: Any) -> Any:
        """Return a new consumer, which its owner starts and gives to :meth:`stop`."""
        made = AIOKafkaConsumer(
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=1_048_576,
            max_poll_interval_ms=86_400_000,  # a member that takes nothing for a while is still alive
            **self.options,
            **asked,
        )
        self._clients.append(made)
        return made

    async def poll(self, consumer: Any, *partitions: TopicPartition, wait_ms: int, count: int) -> list[Any]:
        """Return up to ``count`` records of a consumer's partitions; none after ``wait_ms`` without any.

        Raises:
            Unavailable: The broker is in trouble.
            Invalid: Not authorised.
        """
        try:
            batches = await consumer.getmany(*partitions, timeout_ms=wait_ms, max_records=count)
        except errors.KafkaError as error:
            raise translate_error(error, self.config) from error
        return [record for records in batches.values() for record in records]

    async def stop(self, consumer: Any) -> None:
        """Stop a consumer and forget it.

        Cancellation: :meth:`abort` ends it.
        """
        await consumer.stop()
        if consumer in self._clients:
            self._clients.remove(consumer)

    def connections(self) -> Counter[str]:
        """Return how many connections are open, by broker (L5)."""
        every = (one for client in self._clients for one in _iter_connections(client))
        return Counter(f"{one.host}:{one.port}" for one in every if one.connected())

    # --- The broker's clock

    def observe_clock(self, timestamp_ms: int, sent_s: float, heard_s: float) -> None:
        """Learn the broker's clock from an answer: its stamp was set between two moments of ours."""
        self._clock_offset_s = timestamp_ms / 1000 - (sent_s + heard_s) / 2

    def age_s(self, timestamp_ms: int) -> float:
        """Return how long ago, by the broker's clock, it stamped a record; 0 while that is not known."""
        if self._clock_offset_s is None:
            return 0.0
        return max(0.0, asyncio.get_running_loop().time() + self._clock_offset_s - timestamp_ms / 1000)

    # --- Writing

    def _check_connected(self) -> None:
        if not self._connected:
            raise unavailable(f"Kafka at {self.config.kafka.display_address}: not connected")

    def partition_for(self, topic: str, key: str) -> int:
        """Return the partition for a record: that of its key, else the next that has a leader."""
        cluster = self._producer.client.cluster
        everywhere = self._partitions[topic]
        if key:
            return zlib.crc32(key.encode()) % everywhere
        led: list[int] = sorted(cluster.available_partitions_for_topic(topic) or range(everywhere))
        return led[next(self._round_robin) % len(led)]

    async def write(
        self,
        topic: str,
        record: bytes | None,
        choose_partition: Callable[[], int],
        key: bytes | None,
        headers: Headers = (),
        within_s: float = BROKER_TIMEOUT_S,
    ) -> RecordMetadata:
        """Append a record; all copies that are well have it when this returns.

        Args:
            topic: A topic that :meth:`ensure_topic` knows.
            record: The bytes; ``None`` is a tombstone.
            choose_partition: Returns the partition; called again for each try.
            key: Kafka's key.
            headers: The record's headers.
            within_s: How long to try.

        Raises:
            Unavailable: It may have been appended or not.
            Invalid: It is too large (``too_large``), or not authorised.
        """
        self._check_connected()
        loop = asyncio.get_running_loop()
        until_s = loop.time() + within_s
        while True:
            try:
                # On the wheel: a timer of the loop for each record would cost as much as handing it over.
                async with enforce_deadline(Deadline(until_s, NAME)):
                    return await self._producer.send_and_wait(
                        topic, record, key=key, partition=choose_partition(), headers=list(headers)
                    )
            except errors.KafkaError as error:
                if not error.retriable or loop.time() >= until_s:
                    raise translate_error(error, self.config) from error
            except (Expired, TimeoutError) as error:
                raise translate_error(TimeoutError(), self.config) from error
            await asyncio.sleep(BACKOFF_S)

    # --- Topics

    async def ensure_topic(self, topic: str, spec: TopicSpec) -> int:
        """Return how many partitions a topic has; it is created if missing.

        Raises:
            Invalid: It has fewer than it must; or it cannot be made as asked.
            Unavailable: The broker does not answer.
        """
        found = self._partitions.get(topic)
        if found is not None:
            return found
        async with self._creating_topic:
            if topic not in self._partitions:
                found = await self.call(lambda: self._ensure_topic(topic, spec))
                if found < spec.partitions_min:
                    detail = f"topic {topic} has {found} partitions and needs {spec.partitions_min} at least"
                    raise Invalid(f"{detail}: add some, or recreate it", field="kafka.partitions")
                if found < spec.partitions:
                    log.warning(
                        "topic %s has %d of %d partitions: no more than %d workers can share it; add some with "
                        "kafka-topics.sh --alter --topic %s --partitions %d",
                        *(topic, found, spec.partitions, found, topic, spec.partitions),
                    )
                self._partitions[topic] = found
        return self._partitions[topic]

    async def _ensure_topic(self, topic: str, spec: TopicSpec) -> int:
        (described,) = await self._admin.describe_topics([topic])
        if described["error_code"] == errors.UnknownTopicOrPartitionError.errno:
            copies = self.config.kafka.replication or min(
                REPLICATION_DEFAULT, len(self._producer.client.cluster.brokers())
            )
            new = NewTopic(topic, spec.partitions, copies, topic_configs=dict(spec.config))
            response = await self._admin.create_topics([new])
            code = response.topic_errors[0][1]
            if code not in (0, errors.TopicAlreadyExistsError.errno):
                raise errors.for_code(code)(topic)
        elif described["error_code"]:
            raise errors.for_code(described["error_code"])(topic)
        return len(await self._producer.partitions_for(topic))

    def partitions(self, topic: str) -> list[TopicPartition]:
        """Return the partitions of a topic that :meth:`ensure_topic` knows."""
        return [TopicPartition(topic, number) for number in range(self._partitions[topic])]

    # --- Offsets

    async def committed_offsets(
        self, group: str, partitions: Iterable[TopicPartition]
    ) -> dict[TopicPartition, OffsetAndMetadata]:
        """Return the offsets that a group has committed; -1 where none.

        Raises:
            Unavailable: The broker does not answer.
        """
        return await self.call(lambda: self._committed_offsets(group, list(partitions)))

    async def _committed_offsets(
        self, group: str, partitions: list[TopicPartition]
    ) -> dict[TopicPartition, OffsetAndMetadata]:
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

    async def end_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the end offset of each partition.

        Raises:
            Unavailable: The broker does not answer.
        """
        asked = list(partitions)
        return await self.call(lambda: self._metadata_consumer.end_offsets(asked))

    async def backlog(self, topic: str, group: str) -> int:
        """Return how many records of a topic a group is not done with.

        Raises:
            Unavailable: The broker does not answer.
        """
        partitions = self.partitions(topic)
        ends, marks = await asyncio.gather(self.end_offsets(partitions), self.committed_offsets(group, partitions))
        begun = {one: mark.offset for one, mark in marks.items() if mark.offset >= 0}
        fresh = [one for one in partitions if one not in begun]
        if fresh:
            begun |= await self.call(lambda: self._metadata_consumer.beginning_offsets(fresh))
        return sum(max(0, ends[one] - begun[one]) for one in partitions)

    async def delete_before(self, before: Mapping[TopicPartition, int]) -> None:
        """Delete the records before the given offsets.

        Raises:
            Unavailable: The broker does not answer.
            Invalid: Not authorised.
        """
        asked = {one: RecordsToDelete(offset) for one, offset in before.items()}
        if asked:
            await self.call(lambda: self._admin.delete_records(asked))

    async def call(self, question: Callable[[], Awaitable[T]]) -> T:
        """Return the answer, within ``BROKER_TIMEOUT_S``; one broker that is gone is no reason not to ask another.

        Raises:
            Unavailable: None answers.
            Invalid: Not authorised, or a setting is wrong.
        """
        self._check_connected()
        failed: BaseException | None = None
        try:
            async with asyncio.timeout(BROKER_TIMEOUT_S):
                while True:
                    try:
                        return await question()
                    except errors.KafkaError as error:
                        if not error.retriable:
                            raise
                        failed = error
                    await asyncio.sleep(BACKOFF_S)
        except (errors.KafkaError, TimeoutError, OSError) as error:
            raise translate_error(
                failed if failed and isinstance(error, TimeoutError) else error, self.config
            ) from error


# --- Workarounds: aiokafka has no public way to its connections and tasks


def _close_connections(clients: Iterable[Any]) -> None:
    for client in clients:
        for connection in _iter_connections(client):
            connection.close()


def _iter_parts(client: Any) -> Iterator[Any]:
    yield client
    for name in CLIENT_PARTS:
        part = getattr(client, name, None)
        if part is not None:
            yield part


def _iter_tasks(client: Any) -> Iterator[asyncio.Task[Any]]:
    for part in _iter_parts(client):
        named = [getattr(part, name, None) for name in CLIENT_TASKS]
        for task in (*named, *getattr(part, "_pending_tasks", ())):
            if task is not None and not task.done():
                yield task


def _iter_connections(client: Any) -> Iterator[Any]:
    for part in _iter_parts(client):
        yield from list(getattr(part, "_conns", {}).values())
