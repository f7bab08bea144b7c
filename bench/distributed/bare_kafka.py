"""aiokafka alone: a topic for requests, a topic for replies.

What it has of what the bus gives: a group of readers, all copies have a record before it counts as sent, offsets are
committed after the reply is there, a limit for each reply. What it has not: bounds, classes and shares, deadlines at
the answering side, withdrawal, retries of single records, dead letters, errors as errors, a breaker.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from bench.distributed.system import Handler, Place, Waiters

WAIT_MS: Final = 1000
#: Partitions for requests, as many as the bus makes; replies have one.
PARTITIONS: Final = 8
#: Replies read at once.
REPLIES_MAX: Final = 1000
#: Offsets are committed so often at most, as the bus commits them.
COMMIT_S: Final = 0.05
#: How long a question for records stands at the broker, as the bus's do.
STAND_MS: Final = 100

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


async def _made(place: Place) -> tuple[str, str]:
    """Return the topics of requests and of replies, made if they were not there."""
    requests, replies = f"{place.name}.requests", f"{place.name}.replies"
    admin = AIOKafkaAdminClient(bootstrap_servers=place.address)
    await admin.start()
    await admin.create_topics([NewTopic(requests, PARTITIONS, 1), NewTopic(replies, 1, 1)])
    await admin.close()
    return requests, replies


class Asker:
    """Sends each request as it comes, to the partitions in turn, and reads the one partition of replies."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._waiters = Waiters()
        self._turn = 0
        self._producer: Any
        self._consumer: Any
        self._requests = ""
        self._listening: asyncio.Task[None]

    async def start(self) -> None:
        """See :class:`bench.distributed.system.Asker`."""
        self._requests, replies = await _made(self._place)
        self._producer = AIOKafkaProducer(bootstrap_servers=self._place.address, acks="all")
        self._consumer = AIOKafkaConsumer(bootstrap_servers=self._place.address, fetch_max_wait_ms=STAND_MS)
        await asyncio.gather(self._producer.start(), self._consumer.start())
        self._consumer.assign([TopicPartition(replies, 0)])
        await self._consumer.seek_to_end()
        self._listening = asyncio.create_task(self._listen())

    async def ready(self, answerers: int) -> bool:
        """See :class:`bench.distributed.system.Asker`."""
        await self.ask({"limit": 0}, answerers)
        return True

    async def ask(self, message: Any, caller: int) -> Any:  # noqa: ARG002 - it knows no clients
        """See :class:`bench.distributed.system.Asker`."""
        self._turn = (self._turn + 1) % PARTITIONS
        return await self._waiters.wait(
            lambda number: self._producer.send_and_wait(
                self._requests, _encode((number, message)), partition=self._turn
            )
        )

    async def close(self) -> None:
        """See :class:`bench.distributed.system.Asker`."""
        self._listening.cancel()
        await asyncio.gather(self._listening, return_exceptions=True)
        await asyncio.gather(self._producer.stop(), self._consumer.stop())

    async def _listen(self) -> None:
        while True:
            for records in (await self._consumer.getmany(timeout_ms=WAIT_MS, max_records=REPLIES_MAX)).values():
                for record in records:
                    self._waiters.settle(*_decode(record.value))


class Answerer:
    """Reads as many requests as it has slots, has them handled all at once, hands over the replies and reads on.

    Beside that it commits what has been answered.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._producer: Any
        self._consumer: Any
        self._sent: list[asyncio.Future[Any]] = []
        self._read: dict[TopicPartition, int] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, handler: Handler) -> None:
        """See :class:`bench.distributed.system.Answerer`."""
        requests, replies = await _made(self._place)
        self._producer = AIOKafkaProducer(bootstrap_servers=self._place.address, acks="all")
        self._consumer = AIOKafkaConsumer(
            requests,
            bootstrap_servers=self._place.address,
            group_id=f"{self._place.name}-workers",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=STAND_MS,
        )
        await asyncio.gather(self._producer.start(), self._consumer.start())
        self._tasks = [asyncio.create_task(self._serve(handler, replies)), asyncio.create_task(self._commit())]

    async def close(self) -> None:
        """See :class:`bench.distributed.system.Answerer`."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(self._producer.stop(), self._consumer.stop())

    async def _serve(self, handler: Handler, replies: str) -> None:
        slots = self._place.slots
        while True:
            for partition, records in (await self._consumer.getmany(timeout_ms=WAIT_MS, max_records=slots)).items():
                asked = [_decode(record.value) for record in records]
                found = await asyncio.gather(*(handler(message) for _, message in asked))
                for (number, _), reply in zip(asked, found, strict=True):
                    self._sent.append(await self._producer.send(replies, _encode((number, reply)), partition=0))
                self._read[partition] = records[-1].offset + 1

    async def _commit(self) -> None:
        while True:
            await asyncio.sleep(COMMIT_S)
            sent, self._sent = self._sent, []
            read, self._read = self._read, {}
            if read:
                await asyncio.gather(*sent)
                await self._consumer.commit(read)
