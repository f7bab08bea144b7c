"""One reader of a channel: records become deliveries, and each of these comes to one end."""

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
from penstock.bus.backends.kafka.source import Source
from penstock.bus.broker import Answer, Channel, Delivery, Kind
from penstock.kernel.errors import PenstockError

#: Headers of a record that was sent anew: deliveries so far, its age then and how long to wait yet, both in
#: milliseconds, and the one group of readers it is meant for.
TRIED: Final = "tried"
AGE: Final = "age"
WAIT: Final = "wait"
GROUP: Final = "group"

#: A reader that takes nothing more passes on so many at once, and looks so often whether there are others.
PASS_ON: Final = 16
PASS_ON_S: Final = 0.2


class Held(NamedTuple):
    """Where a delivery came from.

    Attributes:
        partition: Its partition.
        offset: Its place there.
        key: Kafka's key.
        taken_s: When it was taken, on the loop's clock.
    """

    partition: TopicPartition
    offset: int
    key: bytes | None
    taken_s: float


@dataclass(frozen=True, slots=True)
class Post:
    """How a reader writes.

    Attributes:
        answer: Puts a note into a mailbox.
        bury: Puts a delivery among the dead letters: channel, group, delivery, reason.
    """

    answer: Callable[[Answer], Any]
    bury: Callable[[Channel, str, Delivery, str], Any]


class KafkaReader:
    """See :class:`penstock.bus.broker.Reader`.

    Kafka knows neither a second try nor one that waits: a record that is to come again is sent again, at the end of
    its partition, with what Kafka does not remember in its headers, and then the old one is done. So nothing stays
    behind in front of what is done.

    Args:
        channel: What is read.
        group: Whose news; empty for work and for news of one's own.
        topic: Kafka's name for the channel.
        source: Where the records come from.
        cluster: Who writes.
        post: How answers and dead letters are written.

    Bounds: What was asked for, and as many records that wait for their time as the source hands out.
    """

    def __init__(self, channel: Channel, group: str, topic: str, source: Source, cluster: Cluster, post: Post) -> None:
        self.channel = channel
        self.group = group
        self.topic = topic
        self._own = channel.kind is Kind.NEWS and not group
        self._source = source
        self._cluster = cluster
        self._post = post
        self._fetched: deque[Any] = deque()
        self._early: list[tuple[float, int, Delivery]] = []
        self._numbers = count()
        self._filling: asyncio.Task[None] | None = None
        self._passing: asyncio.Task[None] | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<KafkaReader {self.topic} {len(self._fetched)} fetched>"

    async def joined(self) -> None:
        """See :class:`penstock.bus.broker.Reader`."""
        await self._source.joined()

    async def take(self, count: int, wait_s: float) -> list[Delivery]:
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
            if self._filling is None:
                self._filling = loop.create_task(self._fill(count), name=f"fetch {self.topic}")
            next_s = min(until_s, self._early[0][0] if self._early else until_s)
            await asyncio.wait({self._filling}, timeout=max(0.0, next_s - loop.time()))
            if self._filling.done():
                filled, self._filling = self._filling, None
                filled.result()

    async def _fill(self, count: int) -> None:
        """Fetch. A task of its own, so that a cancelled ``take`` loses nothing."""
        self._fetched += await self._source.fetch(self.topic, count)

    def purge(self, partitions: Collection[TopicPartition]) -> None:
        """Forget what was fetched of these and not handed out."""
        if self._fetched:
            kept = [one for one in self._fetched if TopicPartition(one.topic, one.partition) not in partitions]
            self._fetched = deque(kept)

    def _due(self, count: int, now_s: float) -> list[Delivery]:
        due: list[Delivery] = []
        while self._early and self._early[0][0] <= now_s and len(due) < count:
            due.append(heapq.heappop(self._early)[2])
        return due

    def _accept(self, record: Any, now_s: float) -> Delivery | None:
        """Return a delivery that is to be handed out now."""
        partition = TopicPartition(record.topic, record.partition)
        died = self._source.take(partition, record.offset)
        if died < 0:
            return None
        headers = dict(record.headers)
        if headers.get(GROUP, self.group.encode()) != self.group.encode():
            self._source.done(partition, record.offset)
            return None
        age_s = self._cluster.age_s(record.timestamp)
        delivery = Delivery(
            record=record.value or b"",
            attempts=_number(headers, TRIED) + died + 1,
            age_s=age_s + _number(headers, AGE) / 1000,
            handle=Held(partition, record.offset, record.key, now_s),
        )
        wait_s = _number(headers, WAIT) / 1000 - age_s
        if wait_s > 0:
            self._keep(delivery, now_s + wait_s)
            return None
        return delivery

    def _keep(self, delivery: Delivery, due_s: float) -> None:
        heapq.heappush(self._early, (due_s, next(self._numbers), delivery))

    async def done(self, delivery: Delivery, answer: Answer | None = None) -> None:
        """See :class:`penstock.bus.broker.Reader`. It is committed soon, when all before it are done."""
        if answer is not None:
            await self._post.answer(answer)
        self._end(delivery)

    async def retry(self, delivery: Delivery, delay_s: float) -> None:
        """See :class:`penstock.bus.broker.Reader`."""
        if self._own:
            delivery.attempts += 1
            self._keep(delivery, asyncio.get_running_loop().time() + delay_s)
        else:
            await self._again(delivery, delivery.attempts, delay_s, delivery.handle.partition.partition)

    async def hand_back(self, delivery: Delivery) -> None:
        """See :class:`penstock.bus.broker.Reader`. The attempt does not count."""
        if self._own:
            self._keep(delivery, asyncio.get_running_loop().time())
        else:
            await self._again(delivery, delivery.attempts - 1, 0.0, self._for_another(delivery.handle))

    def _for_another(self, held: Held) -> int:
        """Return a partition that somebody else reads; the same where the record has a key to be kept in order by."""
        others = [] if held.key else self._source.elsewhere(self.topic)
        return others[next(self._numbers) % len(others)] if others else held.partition.partition

    async def _again(self, delivery: Delivery, tried: int, delay_s: float, number: int) -> None:
        """Send the record once more, and be done with the old one."""
        held: Held = delivery.handle
        age_s = delivery.age_s + asyncio.get_running_loop().time() - held.taken_s
        headers: Headers = [
            (TRIED, str(tried).encode()),
            (AGE, str(int(age_s * 1000)).encode()),
            (WAIT, str(int(delay_s * 1000 + 0.999)).encode()),
            *([(GROUP, self.group.encode())] if self.group else []),
        ]
        await self._cluster.write(self.topic, delivery.record, lambda: number, held.key, headers)
        self._end(delivery)

    async def bury(self, delivery: Delivery, reason: str) -> None:
        """See :class:`penstock.bus.broker.Reader`."""
        await self._post.bury(self.channel, self.group, delivery, reason)
        self._end(delivery)

    def _end(self, delivery: Delivery) -> None:
        held: Held = delivery.handle
        self._source.done(held.partition, held.offset)

    async def pause(self) -> None:
        """See :class:`penstock.bus.broker.Reader`. Others get what comes to our partitions, which we still hold."""
        if self._passing is None and not self._own:
            self._passing = asyncio.get_running_loop().create_task(self._pass_on(), name=f"pass on {self.topic}")

    async def _pass_on(self) -> None:
        while True:
            if not self._source.elsewhere(self.topic):
                await asyncio.sleep(PASS_ON_S)  # there is nobody else
                continue
            try:
                for delivery in await self.take(PASS_ON, PASS_ON_S):
                    if not delivery.handle.key:  # those come to whoever takes our place
                        await self.hand_back(delivery)
            except PenstockError:
                await asyncio.sleep(PASS_ON_S)

    async def close(self) -> None:
        """See :class:`penstock.bus.broker.Reader`."""
        if self._closed:
            return
        self._closed = True
        if self._passing is not None:
            self._passing.cancel()
            await asyncio.gather(self._passing, return_exceptions=True)
        if self._filling is not None:
            self._filling.cancel()
            await asyncio.gather(self._filling, return_exceptions=True)
        try:
            await self._source.leave(self.topic)
        except PenstockError:
            return


def _number(headers: dict[str, bytes], name: str) -> int:
    """Return a header's number; what another program wrote there counts as none."""
    text = headers.get(name, b"0")
    return int(text) if text.isdigit() else 0
