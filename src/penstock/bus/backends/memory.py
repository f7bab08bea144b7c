"""The bus of one process: topics in memory, handlers as tasks of the same loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from penstock.bus.contract import Features, Handler, Slots, TopicState
from penstock.bus.topic import Envelope, Topic
from penstock.kernel.clock import Clock
from penstock.kernel.deadline import Deadline, limit
from penstock.kernel.errors import Broken, Expired, PenstockError, Rejected, Unavailable
from penstock.kernel.settings import BusSettings
from penstock.kernel.work import Work

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Subscription:
    """One subscriber: its buffer, what it runs, the permission to run it, and what went wrong.

    Attributes:
        topic: What waits for it.
        handler: What it does with a message.
        slots: Whether it may do one more.
        running: What it does now.
        raised: As in :class:`TopicState`.
        late: As in :class:`TopicState`.
        lost: As in :class:`TopicState`.
    """

    topic: Topic
    handler: Handler
    slots: Slots
    running: set[asyncio.Task[None]] = field(default_factory=set)
    raised: int = 0
    late: int = 0
    lost: int = 0


class MemoryBus:
    """Bounded topics in memory.

    One rule drives it: whenever a message arrives or a slot becomes free, :meth:`_pump` starts
    as many handlers as messages and slots allow, synchronously. No task waits for a permit.

    Args:
        settings: Bounds and limits.
        capacities: Buffers that differ from ``settings.buffer_size``, by topic.
        clock: The loop's clock.
    """

    features = Features(ordered=True, persistent=False, redelivers=False)

    def __init__(self, settings: BusSettings, capacities: Mapping[str, int], clock: Clock) -> None:
        self._settings = settings
        self._capacities = capacities
        self._clock = clock
        self._subscriptions: dict[str, list[_Subscription]] = {}
        self._closed = False

    def subscribe(self, topic: str, handler: Handler, slots: Slots) -> None:
        """See :meth:`penstock.bus.contract.Bus.subscribe`."""
        subscribers = self._subscriptions.setdefault(topic, [])
        capacity = self._capacities.get(topic, self._settings.buffer_size)
        subscription = _Subscription(Topic(topic, capacity), handler, slots)
        subscribers.append(subscription)
        slots.on_free(lambda: self._pump(subscription))

    async def publish(self, topic: str, message: Any, work: Work) -> None:
        """See :meth:`penstock.bus.contract.Bus.publish`."""
        now = self._clock.now()
        self._refuse_if_closed()
        deadline = work.deadline.within(self._settings.publish_timeout, "publish", now)
        copies = [(s, Envelope(message, work, now)) for s in self._subscriptions.get(topic, ())]
        full = [
            (subscription, envelope) for subscription, envelope in copies if not self._offer(subscription, envelope)
        ]
        errors: list[PenstockError] = []
        for subscription, envelope in full:
            try:
                await self._wait_for_room(subscription, envelope, deadline)
            except (Rejected, Expired) as error:
                errors.append(error)
        if errors:
            raise errors[0]

    async def request(self, topic: str, message: Any, work: Work) -> Any:
        """See :meth:`penstock.bus.contract.Bus.request`."""
        self._refuse_if_closed()
        subscribers = self._subscriptions.get(topic)
        if not subscribers:
            raise Unavailable(f"nobody serves {topic}", dependency=topic)
        now = self._clock.now()
        work = work.within(self._settings.request_timeout, "request", now)
        if work.deadline.passed(now):
            raise Expired(work.deadline.operation)
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        envelope = Envelope(message, work, now, reply)
        subscription = min(subscribers, key=lambda s: len(s.topic) + len(s.running))
        try:
            async with limit(work.deadline):
                if not self._offer(subscription, envelope):
                    deadline = work.deadline.within(self._settings.publish_timeout, "publish", now)
                    await self._wait_for_room(subscription, envelope, deadline)
                return await reply
        finally:
            self._forget(subscription, envelope, reply)

    def used(self, topic: str) -> float:
        """See :meth:`penstock.bus.contract.Bus.used`."""
        subscribers = self._subscriptions.get(topic, ())
        return max((len(s.topic) / s.topic.capacity for s in subscribers), default=0.0)

    def state(self) -> list[TopicState]:
        """See :meth:`penstock.bus.contract.Bus.state`."""
        return [
            TopicState(
                name,
                sum(len(s.topic) for s in subscribers),
                sum(s.topic.capacity for s in subscribers),
                sum(len(s.running) for s in subscribers),
                sum(s.raised for s in subscribers),
                sum(s.late for s in subscribers),
                sum(s.lost for s in subscribers),
            )
            for name, subscribers in self._subscriptions.items()
        ]

    async def close(self) -> None:
        """See :meth:`penstock.bus.contract.Bus.close`."""
        self._closed = True
        tasks: list[asyncio.Task[None]] = []
        for subscription in (s for group in self._subscriptions.values() for s in group):
            while (envelope := subscription.topic.poll()) is not None:
                _drop(subscription, envelope, _draining())
            tasks.extend(subscription.running)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise _draining()

    def _offer(self, subscription: _Subscription, envelope: Envelope) -> bool:
        """Put a message into a buffer if there is room."""
        if not subscription.topic.offer(envelope):
            return False
        self._pump(subscription)
        return True

    async def _wait_for_room(self, subscription: _Subscription, envelope: Envelope, deadline: Deadline) -> None:
        """Put a message into a full buffer, waiting until the deadline at most (B2).

        Raises:
            Rejected: It stayed full for the publish timeout.
            Expired: The work's own deadline was the tighter one.
        """
        try:
            async with limit(deadline):
                await subscription.topic.put(envelope)
        except Expired as expired:
            if envelope.task is not None:
                return  # room, a slot and the deadline came in the same moment: it is being handled
            if expired.operation != "publish":
                raise
            raise Rejected(f"{subscription.topic.name} is full", code="queue_full") from None
        if envelope.task is None:
            self._refuse_if_closed()
        self._pump(subscription)

    def _pump(self, subscription: _Subscription) -> None:
        """Start handlers while there are messages and slots, and no more than one topic may have (P8).

        A message that is not worth handling goes without a slot: giving one back would call
        here again, one level deeper for each such message.
        """
        topic, slots = subscription.topic, subscription.slots
        while not self._closed and (envelope := topic.peek()) is not None:
            if self._dead(subscription, envelope):
                topic.poll()
                continue
            if len(subscription.running) >= self._settings.handlers_per_topic or not slots.try_acquire():
                return
            topic.poll()
            task = asyncio.create_task(self._run(subscription, envelope), name=topic.name)
            envelope.task = task
            subscription.running.add(task)
            task.add_done_callback(partial(self._ended, subscription, envelope))

    def _dead(self, subscription: _Subscription, envelope: Envelope) -> bool:
        """Whether handling the message would be wasted; its requester is answered."""
        if envelope.abandoned:
            return True
        deadline = envelope.work.deadline
        if deadline.passed(self._clock.now()):
            _drop(subscription, envelope, Expired(deadline.operation))
            return True
        return False

    async def _run(self, subscription: _Subscription, envelope: Envelope) -> None:
        """Handle one message and answer it (B4, B5). :meth:`_ended` does what must always be done."""
        work = envelope.work
        work = work.within(self._settings.handler_timeout, "handler", self._clock.now())
        name = subscription.topic.name
        try:
            async with limit(work.deadline):
                result = await subscription.handler(envelope.message, work)
            if envelope.abandoned:
                subscription.late += 1
            elif envelope.reply is not None:
                envelope.reply.set_result(result)
        except PenstockError as error:
            if envelope.reply is None:
                log.warning("a subscriber of %s failed: %s", name, error)
            _answer_error(envelope, error)
        except Exception:
            subscription.raised += 1
            log.exception("handler of %s raised", name)
            _answer_error(envelope, _failed(name))

    def _ended(self, subscription: _Subscription, envelope: Envelope, task: asyncio.Task[None]) -> None:
        """Give the slot back and see that there is an answer, even if the task never began.

        A task cancelled before its first step runs none of its own code, not even ``finally``.
        """
        subscription.running.discard(task)
        if self._closed:
            _answer_error(envelope, _draining())
        elif not envelope.abandoned and task.cancelled():
            subscription.raised += 1
            log.error("handler of %s was cancelled by something of its own", subscription.topic.name)
            _answer_error(envelope, _failed(subscription.topic.name))
        subscription.slots.release()

    def _forget(self, subscription: _Subscription, envelope: Envelope, reply: asyncio.Future[Any]) -> None:
        """Nobody waits for this message any more: take it back, or stop its handler."""
        if not reply.cancel() and not reply.cancelled():
            reply.exception()  # looked at, so that asyncio does not warn of it
        if envelope.task is None:
            subscription.topic.discard(envelope)
        elif not envelope.task.done():
            envelope.task.cancel()


def _draining() -> Rejected:
    return Rejected("the server is shutting down", code="draining")


def _failed(topic: str) -> Broken:
    return Broken(f"the handler of {topic} failed")


def _answer_error(envelope: Envelope, error: PenstockError) -> None:
    """Answer with an error, unless an answer was given or nobody waits."""
    if envelope.reply is not None and not envelope.reply.done():
        envelope.reply.set_exception(error)


def _drop(subscription: _Subscription, envelope: Envelope, error: PenstockError) -> None:
    """Let go of a message that will not be handled; nothing goes silently (B2)."""
    if envelope.reply is None:
        subscription.lost += 1
        log.warning("an event on %s was not handled: %s", subscription.topic.name, error)
    _answer_error(envelope, error)
