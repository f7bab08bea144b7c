"""The bus of one process: topics in memory, handlers as tasks of the same loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

from penstock.bus.books import UNOBSERVED, BusObserver, Counts
from penstock.bus.contract import Features, Handler, Refusal, Slots, TopicState
from penstock.bus.ends import draining
from penstock.bus.envelope import Envelope
from penstock.bus.intake import Intake
from penstock.bus.link import Link
from penstock.bus.topic import Rules, Topic
from penstock.kernel.clock import Clock
from penstock.kernel.context import Context, Criticality
from penstock.kernel.errors import Expired, Rejected, Unavailable
from penstock.kernel.settings import BusSettings
from penstock.policies.levels import Level

_FULL = Refusal("queue_full", 1.0, by_client=False)
_SHARE = Refusal("client_share", 1.0, by_client=True)


class MemoryBus:
    """Bounded topics in memory.

    Args:
        settings: Bounds, limits and which mechanisms are on.
        capacities: Buffers that differ from ``settings.buffer_size``, by topic.
        clock: The loop's clock.
        observer: Is told of waits, service times and levels.
    """

    links: Sequence[Link] = ()
    features = Features(ordered=True, persistent=False, redelivers=False)

    def __init__(
        self,
        settings: BusSettings,
        capacities: Mapping[str, int],
        clock: Clock,
        observer: BusObserver = UNOBSERVED,
    ) -> None:
        self._settings = settings
        self._request_s = settings.request_timeout
        self._capacities = capacities
        self._clock = clock
        self._observer = observer
        self._rules = Rules.of(settings)
        self._intakes: dict[str, list[Intake]] = {}
        self._closed = False

    def subscribe(
        self, topic: str, handler: Handler, slots: Slots, kind_of: Callable[[Any], str] | None = None
    ) -> None:
        """See :meth:`penstock.bus.contract.Bus.subscribe`."""
        capacity = self._capacities.get(topic, self._settings.buffer_size)
        buffer = Topic(topic, capacity, self._rules, self._observer, kind_of)
        intake = Intake(buffer, handler, slots, self._settings, self._clock, self._observer)
        self._intakes.setdefault(topic, []).append(intake)

    async def publish(self, topic: str, message: Any, ctx: Context) -> None:
        """See :meth:`penstock.bus.contract.Bus.publish`."""
        if self._closed:
            raise draining()
        intakes = self._intakes.get(topic)
        if not intakes:
            return
        now_s = self._clock.now()
        blocked: list[Envelope] = []
        errors: list[BaseException] = []
        for intake in intakes:
            envelope = Envelope(message, ctx, intake, now_s)
            try:
                if not intake.offer(envelope, now_s):
                    blocked.append(envelope)
            except Rejected as error:
                errors.append(error)
        if blocked:
            errors += await _room(blocked)
        if errors:
            del envelope, blocked  # they hold the error, which holds this frame
            raise errors.pop(0)

    async def request(self, topic: str, message: Any, ctx: Context) -> Any:
        """See :meth:`penstock.bus.contract.Bus.request`."""
        if self._closed:
            raise draining()
        intakes = self._intakes.get(topic)
        if not intakes:
            raise Unavailable(f"nobody serves {topic}", dependency=topic)
        intake = intakes[0] if len(intakes) == 1 else min(intakes, key=lambda one: one.load)
        now_s = self._clock.now()
        if now_s + self._request_s < ctx.deadline.at_s:
            ctx = ctx.within(self._request_s, "request", now_s)
        elif now_s >= ctx.deadline.at_s:
            intake.topic.counts.offered += 1
            intake.topic.counts.expired_waiting += 1
            raise Expired(ctx.deadline.operation)
        reply = asyncio.get_running_loop().create_future()
        envelope = Envelope(message, ctx, intake, now_s, reply)
        intake.offer(envelope, now_s)
        try:
            return await reply
        except BaseException:
            intake.leave(envelope)
            del envelope, reply  # the reply holds the error, which holds this frame
            raise

    def used(self, topic: str) -> float:
        """See :meth:`penstock.bus.contract.Bus.used`."""
        fullest = 0.0
        for intake in self._intakes.get(topic, ()):
            fullest = max(fullest, intake.topic.queue.count / intake.topic.capacity)
        return fullest

    def refuses(self, topic: str, ctx: Context, at: Level = Level.CRITICAL) -> Refusal | None:
        """See :meth:`penstock.bus.contract.Bus.refuses`."""
        refusal: Refusal | None = None
        now_s = self._clock.now()
        for intake in self._intakes.get(topic, ()):
            buffer = intake.topic
            if buffer.level >= at:
                refusal = _FULL
            elif buffer.over_share(ctx.client):
                refusal = _SHARE
            elif (excess_s := buffer.hopeless_s(ctx, now_s, intake.running)) > 0.0:
                refusal = Refusal("hopeless", excess_s, by_client=False)
            else:
                return None
        return refusal

    def congested(self, topic: str, criticality: Criticality | None = None) -> bool:
        """See :meth:`penstock.bus.contract.Bus.congested`."""
        queues = (one.topic.queue for one in self._intakes.get(topic, ()))
        if criticality is None:
            return any(queue.congested for queue in queues)
        return any(queue.congests(criticality) for queue in queues)

    def state(self) -> list[TopicState]:
        """See :meth:`penstock.bus.contract.Bus.state`."""
        return [_state(name, intakes) for name, intakes in self._intakes.items()]

    def missing(self) -> list[str]:
        """See :meth:`penstock.bus.contract.Bus.missing`."""
        return []

    def describe(self, topic: str, kind_of: Callable[[Any], str] | None) -> None:
        """See :meth:`penstock.bus.contract.Bus.describe`."""

    async def joined(self) -> bool:
        """See :meth:`penstock.bus.contract.Bus.joined`."""
        return True

    async def drain(self) -> None:
        """See :meth:`penstock.bus.contract.Bus.drain`."""

    async def close(self) -> None:
        """See :meth:`penstock.bus.contract.Bus.close`."""
        self._closed = True
        tasks = [task for intakes in self._intakes.values() for intake in intakes for task in intake.close()]
        here = asyncio.current_task()
        await asyncio.gather(*(task for task in tasks if task is not here), return_exceptions=True)


async def _room(blocked: list[Envelope]) -> list[BaseException]:
    """Wait until each of the messages has found room or been refused; return the refusals."""
    turns = [envelope.turn for envelope in blocked if envelope.turn is not None]
    try:
        await asyncio.wait(turns)
    except BaseException:
        for envelope in blocked:
            envelope.intake.leave(envelope)
        raise
    return [error for turn in turns if (error := turn.exception()) is not None]


def _state(name: str, intakes: list[Intake]) -> TopicState:
    counts = reduce(Counts.plus, (one.topic.counts for one in intakes), Counts())
    return TopicState(
        name,
        sum(len(one.topic) for one in intakes),
        sum(one.topic.capacity for one in intakes),
        sum(one.running for one in intakes),
        counts.raised,
        counts.late,
        counts.lost,
        blocked=sum(one.topic.blocked for one in intakes),
        level=max(one.topic.level for one in intakes),
        congested=any(one.topic.queue.congested for one in intakes),
        stopping=sum(one.stopping for one in intakes),
        counts=counts,
    )
