"""A place in a consumer group: partitions come and go, what is done is committed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection
from typing import Any, Final

from aiokafka import TopicPartition, errors
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.structs import OffsetAndMetadata

from penstock.bus.backends.kafka.access import translate
from penstock.bus.backends.kafka.cluster import Cluster
from penstock.bus.backends.kafka.lane import Lane
from penstock.bus.backends.kafka.source import LOOK_MS, STAND_MS
from penstock.bus.broker import PATIENCE_S
from penstock.bus.rounds import rounds
from penstock.kernel.errors import PenstockError

log = logging.getLogger(__name__)

#: What is done is committed so often at most.
COMMIT_S: Final = 0.05
#: How long to look at other partitions while the record of one is worked that is worked record by record.
CAREFUL_LOOK_MS: Final = 10
#: How long partitions that are asked back wait for what runs; a message that takes longer is delivered once more.
SETTLE_S: Final = 1.5
SETTLE_LOOK_S: Final = 0.01
#: What is said at the end of all that may take so long.
LAST_WORD_S: Final = 1.0
#: Topics joined or left within so long are so at once: for each change all the group's partitions are shared out anew,
#: and everybody stands still until everybody has heard of it.
TOGETHER_S: Final = 0.1
#: How long a group waits for its members to come together anew. They have to settle first; and whoever is there waits
#: in one request, which may not run out of time before: a member that gives up and asks again starts all anew.
GATHER_S: Final = SETTLE_S + LAST_WORD_S + 1.0
#: How old what a member knows of topics and their leaders may be.
METADATA_MS: Final = 1000
#: Heartbeats in a session: how soon a member hears that others have come or gone.
BEATS: Final = 8
#: Written beside a committed offset: owners that died there, in a row. Whoever begins adds itself, and takes itself
#: off when it leaves in peace.
PEACE: Final = "0"
BEGUN: Final = "1"


class Crew(ConsumerRebalanceListener):  # type: ignore[misc]  # the library has no types
    """This instance's membership in a group, for any number of topics.

    Args:
        cluster: Whose.
        group: The group's name.
        purge: Called with partitions that are no longer ours: what was fetched and not handed out is forgotten.

    Attributes:
        shared_out: How often the group has shared its partitions out since we belong to it; all stand still meanwhile.

    Bounds: Two connections to a broker: one that reads, one to the group's coordinator. Of each partition
    :data:`penstock.bus.backends.kafka.lane.SPAN_MAX` records not committed.
    """

    def __init__(self, cluster: Cluster, group: str, purge: Callable[[Collection[TopicPartition]], None]) -> None:
        session_ms = int(cluster.terms.kafka.session_timeout * 1000)
        self._cluster = cluster
        self._group = group
        self._purge = purge
        self.shared_out = 0
        self._topics: list[str] = []
        self._mine: set[TopicPartition] = set()
        self._lanes: dict[TopicPartition, Lane] = {}
        self._changed = asyncio.Event()
        self._dirty = asyncio.Event()
        self._commits: asyncio.Task[None] | None = None
        self._changing = asyncio.Lock()
        self._subscribed: list[str] = []
        # Clear while the group shares partitions out: what is subscribed must not change under it, or the client keeps
        # partitions of another subscription, or none.
        self._settled = asyncio.Event()
        self._settled.set()
        self._consumer: Any = cluster.consumer(
            group_id=group,
            session_timeout_ms=session_ms,
            heartbeat_interval_ms=session_ms // BEATS,
            rebalance_timeout_ms=int(GATHER_S * 1000),
            fetch_max_wait_ms=STAND_MS,
            # The member that shares partitions out may not know a topic just made; it looks again after so long.
            metadata_max_age_ms=METADATA_MS,
        )

    def __repr__(self) -> str:
        return f"<Crew {self._group} {len(self._mine)} partitions>"

    async def start(self) -> None:
        """Connect.

        Raises:
            Unavailable: The broker does not answer.
        """
        await self._cluster.ask(self._consumer.start)
        commits = rounds(self._commit_soon, f"committing for {self._group}")
        self._commits = asyncio.get_running_loop().create_task(commits, name=f"commits {self._group}")

    async def stop(self) -> None:
        """Commit what is done and leave."""
        if self._commits is not None:
            self._commits.cancel()
            await asyncio.gather(self._commits, return_exceptions=True)
        with contextlib.suppress(errors.KafkaError, TimeoutError):
            async with asyncio.timeout(PATIENCE_S / 2):
                await self._commit(PEACE, self._mine)
        await self._cluster.stop(self._consumer)

    async def join(self, topic: str) -> None:
        """Share a topic's partitions with the others.

        Cancellation: We do not share them.
        """
        self._topics.append(topic)
        try:
            async with self._changing:
                await self._subscribe()
        except BaseException:
            self._topics.remove(topic)
            raise

    # --- What a reader does

    async def joined(self) -> None:
        """See :class:`penstock.bus.backends.kafka.source.Source`."""
        await self._settled.wait()

    async def fetch(self, topic: str, count: int) -> list[Any]:
        """See :class:`penstock.bus.backends.kafka.source.Source`."""
        mine = [one for one in self._mine if one.topic == topic]
        ready = [one for one in mine if self._lanes[one].room() > 0]
        careful = [one for one in ready if self._lanes[one].careful]
        plain = [one for one in ready if one not in careful]
        busy = any(self._lanes[one].careful for one in mine if one not in ready)
        look_ms = CAREFUL_LOOK_MS if busy else LOOK_MS
        found: list[Any] = []
        try:
            for one in careful:
                found += await self._get(one, wait_ms=0, count=1)
            if careful and not found:
                found = await self._get(*ready, wait_ms=look_ms, count=1)
            elif plain:
                found += await self._get(*plain, wait_ms=0 if found else look_ms, count=count)
            elif not found:
                await self._get(TopicPartition(topic, -1), wait_ms=0, count=1)  # hear what goes wrong
                self._changed.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), look_ms / 1000)
        except errors.KafkaError as error:
            raise translate(error, self._cluster.terms) from error
        return found

    async def _get(self, *partitions: TopicPartition, wait_ms: int, count: int) -> list[Any]:
        batches = await self._consumer.getmany(*partitions, timeout_ms=wait_ms, max_records=count)
        return [record for records in batches.values() for record in records]

    def take(self, partition: TopicPartition, offset: int) -> int:
        """See :class:`penstock.bus.backends.kafka.source.Source`."""
        return self._lanes[partition].take(offset)

    def done(self, partition: TopicPartition, offset: int) -> None:
        """See :class:`penstock.bus.backends.kafka.source.Source`."""
        lane = self._lanes.get(partition)
        if lane is None:
            return
        lane.done(offset)
        if lane.dirty:
            self._dirty.set()

    def elsewhere(self, topic: str) -> list[int]:
        """See :class:`penstock.bus.backends.kafka.source.Source`."""
        return [one.partition for one in self._cluster.known(topic) if one not in self._mine]

    async def leave(self, topic: str) -> None:
        """See :class:`penstock.bus.backends.kafka.source.Source`."""
        self._topics.remove(topic)
        ours = {one for one in self._mine if one.topic == topic}
        with contextlib.suppress(errors.KafkaError, TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                await self._commit(PEACE, ours)
        self._mine -= ours
        self._purge(ours)
        async with self._changing:
            await self._subscribe()

    async def _subscribe(self) -> None:
        """Subscribe to what is wanted by now, once the group has come to rest; changes that wait together are one."""
        if self._topics == self._subscribed:
            return
        await asyncio.sleep(TOGETHER_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GATHER_S):
                await self._settled.wait()
        self._subscribed = [*self._topics]
        if self._subscribed:
            self._settled.clear()
            self._consumer.subscribe(self._subscribed, listener=self)
        else:
            with contextlib.suppress(errors.KafkaError, TimeoutError):
                async with asyncio.timeout(LAST_WORD_S):
                    await self._commit(PEACE, self._mine)  # what came to us while we were leaving
            self._mine = set()
            self._settled.set()
            self._consumer.unsubscribe()

    # --- What the group does

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Partitions are asked back: end what runs if that is soon, commit, and say that we leave in peace."""
        self._settled.clear()
        mine, self._mine = self._mine, set()
        self._purge(mine)
        loop = asyncio.get_running_loop()
        until_s = loop.time() + SETTLE_S
        while any(self._lanes[one].running for one in mine) and loop.time() < until_s:  # noqa: ASYNC110 - at most 2 s
            await asyncio.sleep(SETTLE_LOOK_S)
        with contextlib.suppress(errors.KafkaError, TimeoutError):
            async with asyncio.timeout(LAST_WORD_S):
                await self._commit(PEACE, mine)
        log.debug("%s gave back %d partitions", self, len(revoked))

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Partitions are ours: look what became of their last owners, and say that we have begun."""
        try:
            # While this is awaited no heartbeat goes out: a member that asks for too long is no member any more.
            async with asyncio.timeout(self._cluster.terms.kafka.session_timeout / 3):
                await self._take_over(assigned)
        except (errors.KafkaError, TimeoutError, PenstockError) as error:
            log.warning("%s does not know who had its partitions before: %r", self, error)
        for one in assigned:
            self._lanes.setdefault(one, Lane())
        left = [one for one, lane in self._lanes.items() if one not in assigned and not lane.running]
        for one in left:
            del self._lanes[one]
        self._mine = set(assigned)
        self.shared_out += 1
        self._settled.set()
        self._dirty.set()
        self._changed.set()

    async def _take_over(self, assigned: Collection[TopicPartition]) -> None:
        if not assigned:
            return
        marks, ends = await asyncio.gather(self._cluster.marks(self._group, assigned), self._cluster.ends(assigned))
        begun = {}
        for one in assigned:
            mark = marks.get(one)
            if mark is None or mark.offset < 0:
                start, died = await self._consumer.position(one), 0
            else:
                start, died = mark.offset, int(mark.metadata) if mark.metadata.isdecimal() else 0
            if ends[one] <= start:
                died = 0  # there was no record that they could have died of
            self._lanes.setdefault(one, Lane()).begin(start, died, ends[one])
            begun[one] = OffsetAndMetadata(start, str(died + 1))
        await self._consumer.commit(begun)

    # --- Committing

    async def _commit_soon(self) -> None:
        """Wait until something is done, and commit it."""
        await self._dirty.wait()
        self._dirty.clear()
        dirty = {one for one in self._mine if self._lanes[one].dirty}
        try:
            await self._commit(BEGUN, dirty)
            self._changed.set()
        except errors.KafkaError as error:
            log.debug("%s could not commit, and will again: %r", self, error)
            self._dirty.set()
            await asyncio.sleep(COMMIT_S)
        if not any(self._lanes[one].careful for one in dirty if one in self._lanes):  # those wait for it
            await asyncio.sleep(COMMIT_S)

    async def _commit(self, mark: str, partitions: Collection[TopicPartition]) -> None:
        heads = {one: self._lanes[one].head for one in partitions if self._lanes[one].head >= 0}
        if heads:
            await self._consumer.commit({one: OffsetAndMetadata(head, mark) for one, head in heads.items()})
        for one, head in heads.items():
            self._lanes[one].committed = max(self._lanes[one].committed, head)
