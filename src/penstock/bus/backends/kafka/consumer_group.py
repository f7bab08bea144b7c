"""Membership in a consumer group: partitions come and go, handled records are committed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, Final

from aiokafka import TopicPartition, errors
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.structs import OffsetAndMetadata

from penstock.bus.backends.kafka.cluster import LONG_POLL_MS, POLL_MS, Cluster
from penstock.bus.backends.kafka.offset_tracker import OffsetTracker
from penstock.bus.backends.kafka.reader import RecordSource
from penstock.bus.broker import BROKER_TIMEOUT_S
from penstock.bus.loops import cancel_all, run_forever
from penstock.kernel.errors import PenstockError

log = logging.getLogger(__name__)

#: Handled records are committed so often at most.
COMMIT_INTERVAL_S: Final = 0.05
#: How long to poll other partitions while an isolating one has its single record under way.
ISOLATION_POLL_MS: Final = 10
#: How long revoked partitions wait for running messages; one that takes longer is delivered once more.
REVOKE_WAIT_S: Final = 1.5
REVOKE_POLL_S: Final = 0.01
#: The last commit may take so long.
FINAL_COMMIT_S: Final = 1.0
#: Topics joined or left within so long change the subscription once: each change makes the group rebalance,
#: and all members stand still until all have heard of it.
SUBSCRIBE_DEBOUNCE_S: Final = 0.1
#: How long a rebalance waits for the group's members. They have to settle first; and a member that is ready waits
#: in one request, which must not time out before: a member that gives up and asks again restarts the rebalance.
REBALANCE_TIMEOUT_S: Final = REVOKE_WAIT_S + FINAL_COMMIT_S + 1.0
#: Largest age of a member's metadata of topics and their leaders.
METADATA_AGE_MS_MAX: Final = 1000
#: Heartbeats in a session: how soon a member hears that others have come or gone.
HEARTBEATS_PER_SESSION: Final = 8
#: Written beside a committed offset: owners that died there, in a row. A new owner adds itself, and takes itself
#: off when it leaves cleanly.
CLEAN_EXIT: Final = "0"
IN_USE: Final = "1"


class ConsumerGroup(RecordSource, ConsumerRebalanceListener):  # type: ignore[misc]  # the library has no types
    """This instance's membership in a consumer group, for any number of topics.

    Args:
        cluster: The clients of this instance.
        group: The group's name.
        discard_fetched: Called with partitions that are no longer ours: what was fetched and not handed out is
            forgotten.

    Attributes:
        rebalances: Rebalances of the group since this instance is a member; all members stand still during one.

    Bounds: Two connections to a broker: one that reads, one to the group's coordinator. Of each partition
    :data:`penstock.bus.backends.kafka.offset_tracker.UNCOMMITTED_MAX` records not committed.
    """

    def __init__(
        self, cluster: Cluster, group: str, discard_fetched: Callable[[Collection[TopicPartition]], None]
    ) -> None:
        session_ms = int(cluster.config.kafka.session_timeout * 1000)
        self._cluster = cluster
        self._group = group
        self._discard_fetched = discard_fetched
        self.rebalances = 0
        self._topics: list[str] = []
        self._assigned: set[TopicPartition] = set()
        self._trackers: dict[TopicPartition, OffsetTracker] = {}
        self._changed = asyncio.Event()
        self._dirty = asyncio.Event()
        self._commit_task: asyncio.Task[None] | None = None
        self._subscribing = asyncio.Lock()
        self._subscribed: list[str] = []
        # Clear during a rebalance: the subscription must not change under it, or the client keeps
        # partitions of another subscription, or none.
        self._stable = asyncio.Event()
        self._stable.set()
        self._consumer: Any = cluster.consumer(
            group_id=group,
            session_timeout_ms=session_ms,
            heartbeat_interval_ms=session_ms // HEARTBEATS_PER_SESSION,
            rebalance_timeout_ms=int(REBALANCE_TIMEOUT_S * 1000),
            fetch_max_wait_ms=LONG_POLL_MS,
            # The member that assigns partitions may not know a topic just made; it looks again after so long.
            metadata_max_age_ms=METADATA_AGE_MS_MAX,
        )

    def __repr__(self) -> str:
        return f"<ConsumerGroup {self._group} {len(self._assigned)} partitions>"

    async def start(self) -> None:
        """Connect.

        Raises:
            Unavailable: The broker does not answer.
        """
        await self._cluster.call(self._consumer.start)
        commits = run_forever(self._commit_when_dirty, f"committing for {self._group}")
        self._commit_task = asyncio.get_running_loop().create_task(commits, name=f"commits {self._group}")

    async def stop(self) -> None:
        """Commit the handled records and leave the group."""
        await cancel_all(self._commit_task)
        with contextlib.suppress(errors.KafkaError, TimeoutError):
            async with asyncio.timeout(BROKER_TIMEOUT_S / 2):
                await self._commit(CLEAN_EXIT, self._assigned)
        await self._cluster.stop(self._consumer)

    async def join(self, topic: str) -> None:
        """Share a topic's partitions with the other members.

        Cancellation: The topic is not joined.
        """
        self._topics.append(topic)
        try:
            async with self._subscribing:
                await self._subscribe()
        except BaseException:
            self._topics.remove(topic)
            raise

    # --- Called by readers

    async def wait_joined(self) -> None:
        """See :class:`penstock.bus.backends.kafka.reader.RecordSource`."""
        await self._stable.wait()

    async def fetch(self, topic: str, count: int) -> list[Any]:
        """See :class:`penstock.bus.backends.kafka.reader.RecordSource`."""
        mine = [one for one in self._assigned if one.topic == topic]
        ready = [one for one in mine if self._trackers[one].free_slots() > 0]
        careful = [one for one in ready if self._trackers[one].isolating]
        plain = [one for one in ready if one not in careful]
        # The next record of an isolating partition may be read as soon as the one under way is committed: poll soon.
        busy = any(self._trackers[one].isolating for one in mine if one not in ready)
        look_ms = ISOLATION_POLL_MS if busy else POLL_MS
        poll = partial(self._cluster.poll, self._consumer)
        found: list[Any] = []
        for one in careful:
            found += await poll(one, wait_ms=0, count=1)
        if careful and not found:
            # One record only, as it may come from an isolating partition.
            found = await poll(*ready, wait_ms=look_ms, count=1)
        elif plain:
            found += await poll(*plain, wait_ms=0 if found else look_ms, count=count)
        elif not found:
            await poll(TopicPartition(topic, -1), wait_ms=0, count=1)  # hear what goes wrong
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), look_ms / 1000)
        return found

    def track(self, partition: TopicPartition, offset: int) -> int:
        """See :class:`penstock.bus.backends.kafka.reader.RecordSource`."""
        return self._trackers[partition].track(offset)

    def mark_done(self, partition: TopicPartition, offset: int) -> None:
        """See :class:`penstock.bus.backends.kafka.reader.RecordSource`."""
        tracker = self._trackers.get(partition)
        if tracker is None:
            return
        tracker.mark_done(offset)
        if tracker.dirty:
            self._dirty.set()

    def foreign_partitions(self, topic: str) -> list[int]:
        """See :class:`penstock.bus.backends.kafka.reader.RecordSource`."""
        return [one.partition for one in self._cluster.partitions(topic) if one not in self._assigned]

    async def leave(self, topic: str) -> None:
        """See :class:`penstock.bus.backends.kafka.reader.RecordSource`."""
        self._topics.remove(topic)
        ours = {one for one in self._assigned if one.topic == topic}
        with contextlib.suppress(errors.KafkaError, TimeoutError):
            async with asyncio.timeout(BROKER_TIMEOUT_S):
                await self._commit(CLEAN_EXIT, ours)
        self._assigned -= ours
        self._discard_fetched(ours)
        async with self._subscribing:
            await self._subscribe()

    async def _subscribe(self) -> None:
        """Subscribe to the topics wanted by now, once no rebalance is under way; waiting changes are made as one."""
        if self._topics == self._subscribed:
            return
        await asyncio.sleep(SUBSCRIBE_DEBOUNCE_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REBALANCE_TIMEOUT_S):
                await self._stable.wait()
        self._subscribed = [*self._topics]
        if self._subscribed:
            self._stable.clear()
            self._consumer.subscribe(self._subscribed, listener=self)
        else:
            with contextlib.suppress(errors.KafkaError, TimeoutError):
                async with asyncio.timeout(FINAL_COMMIT_S):
                    await self._commit(CLEAN_EXIT, self._assigned)  # partitions assigned while we were leaving
            self._assigned = set()
            self._stable.set()
            self._consumer.unsubscribe()

    # --- Called on rebalances

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Give partitions back: wait a little for running messages, commit, and mark a clean exit."""
        self._stable.clear()
        # Emptied first: `fetch` must hand out nothing while running messages are waited for.
        mine, self._assigned = self._assigned, set()
        self._discard_fetched(mine)
        loop = asyncio.get_running_loop()
        until_s = loop.time() + REVOKE_WAIT_S
        while any(self._trackers[one].running for one in mine) and loop.time() < until_s:  # noqa: ASYNC110 - at most 2 s
            await asyncio.sleep(REVOKE_POLL_S)
        with contextlib.suppress(errors.KafkaError, TimeoutError):
            async with asyncio.timeout(FINAL_COMMIT_S):
                await self._commit(CLEAN_EXIT, mine)
        log.debug("%s gave back %d partitions", self, len(revoked))

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Take partitions over: read how many of their last owners died, and mark them as in use."""
        try:
            # No heartbeat goes out while this is awaited: a member that takes too long is expelled.
            async with asyncio.timeout(self._cluster.config.kafka.session_timeout / 3):
                await self._resume_partitions(assigned)
        except (errors.KafkaError, TimeoutError, PenstockError) as error:
            # The partitions are read all the same; what may be lost is the count of crashes.
            log.warning("%s could not read how the last owners of its partitions ended: %r", self, error)
        for one in assigned:
            self._trackers.setdefault(one, OffsetTracker())
        # A tracker with running records stays: if the partition comes back, they must not be begun twice.
        left = [one for one, tracker in self._trackers.items() if one not in assigned and not tracker.running]
        for one in left:
            del self._trackers[one]
        self._assigned = set(assigned)
        self.rebalances += 1
        self._stable.set()
        self._dirty.set()
        self._changed.set()

    async def _resume_partitions(self, assigned: Collection[TopicPartition]) -> None:
        if not assigned:
            return
        marks, ends = await asyncio.gather(
            self._cluster.committed_offsets(self._group, assigned), self._cluster.end_offsets(assigned)
        )
        begun = {}
        for one in assigned:
            mark = marks.get(one)
            if mark is None or mark.offset < 0:
                start, died = await self._consumer.position(one), 0
            else:
                start, died = mark.offset, int(mark.metadata) if mark.metadata.isdecimal() else 0
            if ends[one] <= start:
                died = 0  # there was no record that could have killed them
            self._trackers.setdefault(one, OffsetTracker()).resume(start, died, ends[one])
            # This owner counts as dead until it commits progress or leaves cleanly.
            begun[one] = OffsetAndMetadata(start, str(died + 1))
        await self._consumer.commit(begun)

    # --- Committing

    async def _commit_when_dirty(self) -> None:
        """Wait until a record is done, and commit it."""
        await self._dirty.wait()
        self._dirty.clear()
        dirty = {one for one in self._assigned if self._trackers[one].dirty}
        try:
            await self._commit(IN_USE, dirty)
            self._changed.set()
        except errors.KafkaError as error:
            log.debug("%s could not commit, and will again: %r", self, error)
            self._dirty.set()
            await asyncio.sleep(COMMIT_INTERVAL_S)
        if not any(self._trackers[one].isolating for one in dirty if one in self._trackers):  # those wait for it
            await asyncio.sleep(COMMIT_INTERVAL_S)

    async def _commit(self, mark: str, partitions: Collection[TopicPartition]) -> None:
        heads = {one: self._trackers[one].next_offset for one in partitions if self._trackers[one].next_offset >= 0}
        if heads:
            await self._consumer.commit({one: OffsetAndMetadata(head, mark) for one, head in heads.items()})
        for one, head in heads.items():
            # A rebalance during the commit may have moved the tracker further.
            self._trackers[one].committed = max(self._trackers[one].committed, head)
