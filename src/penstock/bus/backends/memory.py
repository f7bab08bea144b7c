"""The bus of one process: topics in memory, handlers as tasks of the same loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from penstock.bus.contract import Features, Handler, Slots, TopicState
from penstock.bus.topic import Envelope, Topic
from penstock.kernel.clock import Clock
from penstock.kernel.deadline import limit
from penstock.kernel.errors import Broken, Expired, PenstockError, Rejected, Unavailable
from penstock.kernel.settings import BusSettings
from penstock.kernel.work import Work

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Subscription:
    """One subscriber: its buffer, what it runs, and the permission to run it."""

    topic: Topic
    handler: Handler
    slots: Slots
    running: set[asyncio.Task[None]] = field(default_factory=set)


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
        for subscription in self._subscriptions.get(topic, ()):
            await self._push(subscription, Envelope(message, work, self._clock.now()))

    async def request(self, topic: str, message: Any, work: Work) -> Any:
        """See :meth:`penstock.bus.contract.Bus.request`."""
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
                await self._push(subscription, envelope)
                return await reply
        finally:
            reply.cancel()
            self._forget(subscription, envelope)

    def state(self) -> list[TopicState]:
        """See :meth:`penstock.bus.contract.Bus.state`."""
        return [
            TopicState(
                name,
                sum(len(s.topic) for s in subscribers),
                sum(s.topic.capacity for s in subscribers),
                sum(len(s.running) for s in subscribers),
            )
            for name, subscribers in self._subscriptions.items()
        ]

    async def close(self) -> None:
        """See :meth:`penstock.bus.contract.Bus.close`."""
        self._closed = True
        tasks: list[asyncio.Task[None]] = []
        for subscription in (s for group in self._subscriptions.values() for s in group):
            while (envelope := subscription.topic.poll()) is not None:
                _answer_error(envelope, Rejected("the server is shutting down", code="draining"))
            tasks.extend(subscription.running)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _push(self, subscription: _Subscription, envelope: Envelope) -> None:
        """Put a message into a buffer, blocking for the publish timeout at most (B2)."""
        if self._closed:
            raise Rejected("the server is shutting down", code="draining")
        topic = subscription.topic
        if not topic.offer(envelope):
            now = self._clock.now()
            deadline = envelope.work.deadline.within(self._settings.publish_timeout, "publish", now)
            try:
                async with limit(deadline):
                    await topic.put(envelope)
            except Expired as expired:
                if expired.operation != "publish":
                    raise
                raise Rejected(f"{topic.name} is full", code="queue_full") from None
        self._pump(subscription)

    def _pump(self, subscription: _Subscription) -> None:
        """Start handlers while there are messages and slots."""
        topic, slots = subscription.topic, subscription.slots
        while len(topic) and not self._closed and slots.try_acquire():
            envelope = topic.poll()
            if envelope is None or self._dead(envelope):
                slots.release()
                continue
            task = asyncio.create_task(self._run(subscription, envelope), name=topic.name)
            envelope.task = task
            subscription.running.add(task)

    def _dead(self, envelope: Envelope) -> bool:
        """Whether handling the message would be wasted; its requester is answered."""
        if envelope.abandoned:
            return True
        deadline = envelope.work.deadline
        if deadline.passed(self._clock.now()):
            _answer_error(envelope, Expired(deadline.operation))
            return True
        return False

    async def _run(self, subscription: _Subscription, envelope: Envelope) -> None:
        """Handle one message; whatever happens, answer it and give the slot back (B4, B5)."""
        work = envelope.work
        work = work.within(self._settings.handler_timeout, "handler", self._clock.now())
        try:
            async with limit(work.deadline):
                result = await subscription.handler(envelope.message, work)
            if envelope.reply is not None and not envelope.reply.done():
                envelope.reply.set_result(result)
        except asyncio.CancelledError:
            _answer_error(envelope, Rejected("the server is shutting down", code="draining"))
        except PenstockError as error:
            _answer_error(envelope, error)
        except Exception:
            log.exception("handler of %s raised", subscription.topic.name)
            _answer_error(envelope, Broken(f"the handler of {subscription.topic.name} failed"))
        finally:
            task = asyncio.current_task()
            if task is not None:
                subscription.running.discard(task)
            subscription.slots.release()

    def _forget(self, subscription: _Subscription, envelope: Envelope) -> None:
        """Nobody waits for this message any more: take it back, or stop its handler."""
        if envelope.task is None:
            subscription.topic.discard(envelope)
            self._pump(subscription)
        elif not envelope.task.done():
            envelope.task.cancel()


def _answer_error(envelope: Envelope, error: PenstockError) -> None:
    """Answer with an error, unless an answer was given or nobody waits."""
    if envelope.reply is not None and not envelope.reply.done():
        envelope.reply.set_exception(error)
