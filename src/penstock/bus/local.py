"""Bus of one process: topics in memory, handlers as tasks of the same loop."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from penstock.bus.contract import Handler, Slots, TopicRefusal
from penstock.bus.counters import BusObserver
from penstock.bus.dispatcher import Dispatcher
from penstock.bus.envelope import Envelope, draining_error
from penstock.bus.fair_queue import Discipline
from penstock.bus.management import BreakerView, TopicState
from penstock.bus.topic_queue import TopicQueue
from penstock.kernel.context import Clock, Context, Criticality
from penstock.kernel.errors import Expired, Rejected, Unavailable
from penstock.kernel.settings import BusSettings
from penstock.policies.levels import Level

_TOPIC_FULL = TopicRefusal("topic_full", 1.0, by_client=False)
_CLIENT_SHARE = TopicRefusal("client_share", 1.0, by_client=True)


class LocalBus:
    """Bus of one process, with bounded topics in memory."""

    breakers: Sequence[BreakerView] = ()

    def __init__(
        self,
        settings: BusSettings,
        capacities: Mapping[str, int],
        clock: Clock,
        observer: BusObserver | None = None,
    ) -> None:
        self._settings = settings
        self._request_timeout_s = settings.request_timeout
        self._capacities = capacities
        self._clock = clock
        self._observer = observer
        self._discipline = Discipline.of(settings)
        self._dispatchers: dict[str, list[Dispatcher]] = {}
        self._closed = False

    def subscribe(self, topic: str, handler: Handler, slots: Slots) -> None:
        """See :meth:`penstock.bus.contract.Bus.subscribe`."""
        capacity = self._capacities.get(topic, self._settings.buffer_size)
        buffer = TopicQueue(topic, capacity, self._discipline, self._observer)
        dispatcher = Dispatcher(buffer, handler, slots, self._settings, self._clock, self._observer)
        self._dispatchers.setdefault(topic, []).append(dispatcher)

    async def publish(self, topic: str, message: Any, ctx: Context) -> None:
        """See :meth:`penstock.bus.contract.Bus.publish`."""
        if self._closed:
            raise draining_error()
        dispatchers = self._dispatchers.get(topic)
        if not dispatchers:
            return
        now_s = self._clock.now()
        blocked: list[Envelope] = []
        errors: list[BaseException] = []
        for dispatcher in dispatchers:
            envelope = Envelope(message, ctx, dispatcher, now_s)
            try:
                if not dispatcher.offer(envelope, now_s):
                    blocked.append(envelope)
            except Rejected as error:
                errors.append(error)
        if blocked:
            errors += await _wait_for_room(blocked)
        if errors:
            del envelope, blocked  # they hold the error, which holds this frame
            raise errors.pop(0)

    async def request(self, topic: str, message: Any, ctx: Context) -> Any:
        """See :meth:`penstock.bus.contract.Bus.request`."""
        if self._closed:
            raise draining_error()
        dispatchers = self._dispatchers.get(topic)
        if not dispatchers:
            raise Unavailable(f"no worker serves {topic}", dependency=topic)
        dispatcher = (
            dispatchers[0] if len(dispatchers) == 1 else min(dispatchers, key=lambda one: len(one.topic) + one.running)
        )
        now_s = self._clock.now()
        if now_s + self._request_timeout_s < ctx.deadline.at_s:
            ctx = ctx.within(self._request_timeout_s, "request", now_s)
        elif now_s >= ctx.deadline.at_s:
            dispatcher.topic.counts.offered += 1
            dispatcher.topic.counts.expired_waiting += 1
            raise Expired(ctx.deadline.operation)
        reply = asyncio.get_running_loop().create_future()
        envelope = Envelope(message, ctx, dispatcher, now_s, reply)
        dispatcher.offer(envelope, now_s)
        try:
            return await reply
        except BaseException:
            dispatcher.abandon(envelope)
            del envelope, reply  # the reply holds the error, which holds this frame
            raise

    def fill_ratio(self, topic: str) -> float:
        """See :meth:`penstock.bus.contract.Bus.fill_ratio`."""
        fullest = 0.0
        for dispatcher in self._dispatchers.get(topic, ()):
            fullest = max(fullest, dispatcher.topic.queue.count / dispatcher.topic.capacity)
        return fullest

    def check_admission(self, topic: str, ctx: Context, level: Level = Level.CRITICAL) -> TopicRefusal | None:
        """See :meth:`penstock.bus.contract.Bus.check_admission`."""
        refusal: TopicRefusal | None = None
        now_s = self._clock.now()
        for dispatcher in self._dispatchers.get(topic, ()):
            buffer = dispatcher.topic
            if buffer.level >= level:
                refusal = _TOPIC_FULL
            elif buffer.over_share(ctx.client):
                refusal = _CLIENT_SHARE
            elif (excess_s := buffer.deadline_excess_s(ctx, now_s, dispatcher.running)) > 0.0:
                refusal = TopicRefusal("hopeless", excess_s, by_client=False)
            else:
                return None
        return refusal

    def congested(self, topic: str) -> bool:
        """See :meth:`penstock.bus.contract.Bus.congested`."""
        return any(one.topic.queue.congested for one in self._dispatchers.get(topic, ()))

    def pressure(self, topic: str, criticality: Criticality) -> float:
        """See :meth:`penstock.bus.contract.Bus.pressure`."""
        now_s, most = self._clock.now(), 0.0
        for dispatcher in self._dispatchers.get(topic, ()):
            most = max(most, dispatcher.topic.queue.pressure(criticality, now_s))
        return most

    def state(self) -> list[TopicState]:
        """See :meth:`penstock.bus.management.BusManagement.state`."""
        return [TopicState.merged([one.state() for one in served]) for served in self._dispatchers.values()]

    def unready_reasons(self) -> list[str]:
        """See :meth:`penstock.bus.management.BusManagement.unready_reasons`."""
        return []

    async def wait_joined(self) -> bool:
        """See :meth:`penstock.bus.management.BusManagement.wait_joined`."""
        return True

    async def drain(self) -> None:
        """See :meth:`penstock.bus.management.BusManagement.drain`."""

    async def close(self) -> None:
        """See :meth:`penstock.bus.management.BusManagement.close`."""
        self._closed = True
        tasks = [task for served in self._dispatchers.values() for dispatcher in served for task in dispatcher.close()]
        here = asyncio.current_task()
        await asyncio.gather(*(task for task in tasks if task is not here), return_exceptions=True)


async def _wait_for_room(blocked: list[Envelope]) -> list[BaseException]:
    """Wait until each of the messages has found room or been refused; return the refusals."""
    turns = [envelope.admission for envelope in blocked if envelope.admission is not None]
    try:
        await asyncio.wait(turns)
    except BaseException:
        for envelope in blocked:
            envelope.owner.abandon(envelope)
        raise
    return [error for turn in turns if (error := turn.exception()) is not None]
