"""Dispatcher of one subscriber: starts handlers on a topic's messages as slots allow, and answers each of them."""

from __future__ import annotations

import asyncio
import contextvars
import math
from typing import TYPE_CHECKING

from penstock.bus.contract import Handler, Slots
from penstock.bus.counters import BusObserver
from penstock.bus.envelope import ENDED, GRANTED, RUNNING, Completion, Envelope, EnvelopeOwner, MessageStage
from penstock.bus.management import TopicState
from penstock.bus.topic_queue import TopicQueue
from penstock.kernel.context import Clock, Criticality, current_request_id
from penstock.kernel.errors import Expired, PenstockError, Rejected
from penstock.kernel.settings import BusSettings
from penstock.kernel.wheel import Slot, cancel_timer, start_timer
from penstock.policies.discard import DiscardVerdict

if TYPE_CHECKING:
    from penstock.kernel.context import Context

#: Messages one task handles with one slot, and time it takes, before it offers the slot to others.
BURST_MESSAGES = 32
BURST_S = 0.001


class HandlerTask:
    """Handles one message after the other while there are any, and then waits for more.

    Starting a task for each message costs as much as all the bus's accounting. A task that was
    cancelled for a message's sake ends with it, so no cancellation ever reaches the next one. Its timer is for
    the handler's limit (B4). It is moved only when a message's limit is earlier than the last one's.
    Handlers run in the task's own ``contextvars`` context: what the first requester had set in its is not theirs.

    Attributes:
        envelope: The message that it handles, or will in its next step; it holds the slot for it.
        task: The task.
        wake: While it waits: resolved when there is something to do again.
    """

    __slots__ = ("_dispatcher", "_limit_s", "at_s", "envelope", "slot", "task", "wake")

    def __init__(self, dispatcher: Dispatcher, envelope: Envelope) -> None:
        self._dispatcher = dispatcher
        self._limit_s = math.inf
        self.at_s = math.inf
        self.slot: Slot | None = None
        self.envelope: Envelope | None = envelope
        self.wake: asyncio.Future[None]
        loop = asyncio.get_running_loop()
        self.task = loop.create_task(self._run(), name=dispatcher.topic.name, context=contextvars.Context())
        self.task.add_done_callback(self._on_done)

    def __repr__(self) -> str:
        return f"<HandlerTask {self._dispatcher.topic.name} {self.envelope!r}>"

    @property
    def stopping(self) -> bool:
        """True while it holds a slot for a message that has ended already."""
        return self.envelope is not None and self.envelope.stage is ENDED

    def expire(self) -> None:
        """Handle the timer: stop a handler at its limit (B4), or set the timer again for a later message."""
        self.at_s = math.inf
        if self.envelope is None or self._limit_s == math.inf:
            return
        now_s = self._dispatcher.now()
        if self._limit_s > now_s:
            self._set_timer(now_s)
        elif self.envelope.stage is RUNNING:
            self._dispatcher.on_handler_timeout(self.envelope, self._limit_s)

    async def _run(self) -> None:
        """Handle the messages there are, offer the slot to others, wait for more (B5)."""
        dispatcher = self._dispatcher
        while True:
            await self._burst()
            self._limit_s = math.inf
            if dispatcher.release_slot(self):
                await asyncio.sleep(0)
                continue
            wake = dispatcher.park(self)
            if wake is None:
                return
            await wake
            if self.envelope is None:  # the bus has closed
                return

    async def _burst(self) -> None:
        """Handle as many messages as one slot is kept for; keep no reference to them afterwards."""
        dispatcher, task = self._dispatcher, self.task
        handler, completion, now = dispatcher.handler, dispatcher.completion, dispatcher.now
        began_s = now_s = now()
        for _ in range(BURST_MESSAGES):
            envelope = self.envelope
            if envelope is None:
                envelope = dispatcher.next(now_s)
                if envelope is None:
                    return
                dispatcher.grant(envelope, self, now_s)
            ctx = self._start_handler(envelope, now_s)
            if ctx is not None:
                began_at_s, failed = now_s, False
                try:
                    result = await handler(envelope.message, ctx)
                except BaseException as error:  # noqa: BLE001 - a handler that raises never stops the topic (B5)
                    stopped, failed = envelope.stage is ENDED, True
                    self._handler_raised(envelope, error)
                else:
                    stopped = envelope.stage is ENDED
                    completion.answered(envelope, result)
                now_s = now()
                # What fails sooner than it usually takes was refused, not served: it would teach that work is
                # quick just when there is too much of it. So it is seen, like what was stopped, and not learnt from.
                refused = failed and now_s - began_at_s < dispatcher.topic.p50_s(envelope)
                dispatcher.record_duration(envelope, now_s - began_at_s, now_s, stopped=stopped or refused)
            self.envelope = None
            if now_s - began_s >= BURST_S or task.cancelling():
                return

    def _start_handler(self, envelope: Envelope, now_s: float) -> Context | None:
        """Return the context for the handler, with its limit; ``None`` if there is nothing to be done any more."""
        if envelope.stage is not GRANTED:
            return None
        ctx, reply = envelope.ctx, envelope.reply
        deadline_s = ctx.deadline.at_s
        if now_s >= deadline_s or (reply is not None and reply.done()):
            self._dispatcher.drop_unstarted(envelope)
            return None
        envelope.stage = RUNNING
        current_request_id.set(ctx.request_id)
        handler_s = self._dispatcher.handler_timeout_s
        limit_s = now_s + handler_s
        if limit_s < deadline_s:
            ctx = ctx.within(handler_s, "handler", now_s)
        elif reply is not None:  # its own timer expires before
            self._limit_s = math.inf
            return ctx
        else:
            limit_s = deadline_s
        self._limit_s = limit_s
        if limit_s < self.at_s:
            self._set_timer(now_s)
        return ctx

    def _set_timer(self, now_s: float) -> None:
        cancel_timer(self)
        self.at_s = self._limit_s
        start_timer(self, now_s)

    def _handler_raised(self, envelope: Envelope, error: BaseException) -> None:
        """Complete a message whose handler raised. An error that is meant for the task itself is raised again.

        Raises:
            BaseException: The end of the process or of the loop.
        """
        completion = self._dispatcher.completion
        if isinstance(error, PenstockError):
            completion.failed(envelope, error)
        elif isinstance(error, Exception):
            completion.crashed(envelope, "raised", error)
        elif not isinstance(error, asyncio.CancelledError):
            raise error
        elif envelope.stage is RUNNING:
            if self.task.cancelling():
                raise error
            completion.crashed(envelope, "was cancelled by something of its own")

    def _on_done(self, _task: asyncio.Task[None]) -> None:
        """Clean up after the task, which may have been cancelled from outside, even before its first step."""
        cancel_timer(self)
        self._dispatcher.on_task_exit(self)


#: Idle handler tasks kept for one topic.
PARKED_MAX = 32


class Dispatcher(EnvelopeOwner):
    """Dispatches a topic's messages to handler tasks, within the slots.

    One rule drives it: whenever a message arrives or a slot becomes free, :meth:`pump` starts as many handlers as
    messages and slots allow, synchronously. No task waits for a slot. A message may find a slot though others wait:
    one that is kept for the more urgent.

    Attributes:
        running: Messages that have a slot.
        completion: Completes the messages.
        handler_timeout_s: How long a handler may run (B4).
        now: The clock.
    """

    def __init__(
        self,
        topic: TopicQueue,
        handler: Handler,
        slots: Slots,
        settings: BusSettings,
        clock: Clock,
        observer: BusObserver | None = None,
    ) -> None:
        self.topic = topic
        self.handler = handler
        self.running = 0
        self.completion = Completion(topic.name, topic.counts)
        self.handler_timeout_s = settings.handler_timeout
        self.now = clock.now
        self._slots = slots
        self._publish_timeout_s = settings.publish_timeout
        self._running_max = settings.handlers_per_topic
        self._observer = observer
        self._counts = topic.counts
        self._tasks: set[HandlerTask] = set()
        self._parked: list[HandlerTask] = []
        self._spare: HandlerTask | None = None
        self._closed = False
        topic.on_admitted = self._on_admitted
        slots.on_free(self.pump)

    def __repr__(self) -> str:
        return f"<Dispatcher {self.topic!r} {self.running} running>"

    def state(self) -> TopicState:
        """Return the state of the topic, as far as this subscriber has it; its counters are not copied."""
        topic = self.topic
        return TopicState(
            topic.name,
            topic.queue.count,
            topic.capacity,
            self.running,
            blocked=topic.blocked,
            level=topic.level,
            congested=topic.queue.congested,
            stopping=sum(handler_task.stopping for handler_task in self._tasks),
            counts=topic.counts,
        )

    # --- Called by requesters and publishers

    def offer(self, envelope: Envelope, now_s: float) -> bool:
        """Take a message.

        Returns:
            Whether it found room; if not, it waits for it, and for an event ``admission`` is resolved in the end.

        Raises:
            Rejected: It is refused at once.
        """
        self._counts.offered += 1
        topic, waits = self.topic, False
        if not topic.queue.count and self.running < self._running_max and self._slots.try_acquire(envelope.rank):
            self._counts.admitted += 1
            self._start(envelope, now_s)
        elif not topic.enqueue(envelope, now_s, self.running):
            if envelope.reply is None:
                envelope.admission = asyncio.get_running_loop().create_future()
            envelope.at_s = min(envelope.at_s, now_s + self._publish_timeout_s)
            start_timer(envelope, now_s)
            return False
        else:
            waits = True
        if envelope.reply is not None:  # events have timers while they are blocked only
            start_timer(envelope, now_s)
        if waits and envelope.rank < Criticality.BULK:  # last: it may end the message, and its timer with it
            self.pump()
        return True

    def abandon(self, envelope: Envelope) -> None:
        """Remove the message of a requester or publisher that has gone, or stop its handler."""
        answer = envelope.awaited
        if answer is not None and answer.done() and not answer.cancelled():
            answer.exception()  # looked at, so that asyncio does not warn of it
        stage = envelope.stage
        if stage is ENDED or (envelope.reply is None and stage in (GRANTED, RUNNING)):
            return
        self.completion.abandoned(envelope)
        self._remove_or_cancel(envelope, stage)

    # --- Called by timers and slots

    def on_expired(self, envelope: Envelope) -> None:
        """Expire a message whose time is up."""
        stage, deadline = envelope.stage, envelope.ctx.deadline
        if stage is MessageStage.BLOCKED and envelope.at_s < deadline.at_s:
            self.completion.refused(envelope, Rejected(f"{self.topic.name} is full", code="topic_full"))
        elif stage is RUNNING:
            self.completion.expired(envelope, Expired(deadline.operation))
        else:
            self.completion.expired(envelope, self.completion.unstarted_error(envelope))
        self._remove_or_cancel(envelope, stage)

    def on_handler_timeout(self, envelope: Envelope, limit_s: float) -> None:
        """Expire a message whose handler has reached its limit."""
        deadline = envelope.ctx.deadline
        self.completion.expired(envelope, Expired("handler" if limit_s < deadline.at_s else deadline.operation))
        self._remove_or_cancel(envelope, RUNNING)

    def pump(self) -> None:
        """Start handlers while there are messages and slots, and no more than one topic may have (P8)."""
        queue = self.topic.queue
        while queue.count and self.running < self._running_max and self._slots.try_acquire(queue.head_rank):
            now_s = self.now()
            envelope = self.next(now_s)
            if envelope is None:
                self._slots.release()
                return
            self._start(envelope, now_s)

    def close(self) -> list[asyncio.Task[None]]:
        """Answer everything with a refusal and cancel what runs; return the tasks that come to their end."""
        self._closed = True
        for envelope in self.topic.drain(self.now()):
            self.completion.refused_draining(envelope)
        for handler_task in self._parked:
            if not handler_task.wake.done():
                handler_task.wake.set_result(None)
        self._parked.clear()
        for handler_task in self._tasks:
            if handler_task.envelope is not None and not handler_task.stopping:
                stage = handler_task.envelope.stage
                self.completion.refused_draining(handler_task.envelope)
                self._remove_or_cancel(handler_task.envelope, stage)
        return [handler_task.task for handler_task in self._tasks]

    # --- Called by handler tasks

    def next(self, now_s: float) -> Envelope | None:
        """Take the next message worth handling out of the buffer; the others are answered."""
        topic = self.topic
        while (envelope := topic.dequeue(now_s)) is not None:
            deadline_s, reply = envelope.ctx.deadline.at_s, envelope.reply
            if now_s >= deadline_s or (reply is not None and reply.done()):
                self.drop_unstarted(envelope)
                continue
            if reply is None or not topic.discipline.discard:
                return envelope
            service = envelope.service_time or topic.service_time_of(envelope)
            if deadline_s - now_s >= service.p90_s:
                service.last_admitted_s = now_s
                return envelope
            verdict = service.decide(deadline_s, now_s, contended=topic.queue.count > 0)
            if verdict is not DiscardVerdict.DISCARD:
                envelope.probe = verdict is DiscardVerdict.PROBE
                return envelope
            self.completion.discarded(envelope)
        return None

    def grant(self, envelope: Envelope, handler_task: HandlerTask, now_s: float) -> None:
        """Note that a message's turn has come: it has a slot and a handler task."""
        envelope.stage = GRANTED
        envelope.task = handler_task.task
        handler_task.envelope = envelope
        if self._observer is not None:
            self._observer.started(self.topic.name, envelope.ctx, now_s - envelope.sent_at_s)

    def drop_unstarted(self, envelope: Envelope) -> None:
        """Complete a message that is not begun: its deadline has passed, or its requester has gone."""
        if envelope.abandoned:
            self.completion.abandoned(envelope)
        else:
            self.completion.expired(envelope, self.completion.unstarted_error(envelope))

    def record_duration(self, envelope: Envelope, took_s: float, now_s: float, *, stopped: bool) -> None:
        """Learn from a handler's duration, unless its requester has hung up."""
        if self._observer is not None:
            self._observer.ended(self.topic.name, took_s)
        service = envelope.service_time or self.topic.service_time_of(envelope)
        if service.samples_to_skip and not envelope.probe:
            service.samples_to_skip -= 1
            return
        deadline_s = envelope.ctx.deadline.at_s
        if not stopped or now_s >= deadline_s:
            self.topic.observe_duration(service, took_s)
            if envelope.probe:
                service.probe_ended(in_time=now_s <= deadline_s)

    def release_slot(self, handler_task: HandlerTask) -> bool:
        """Give the task's slot back; return whether another message was handed to it at once."""
        self.running -= 1
        if not handler_task.task.cancelling():
            self._spare = handler_task
        self._slots.release()
        self._spare = None
        return handler_task.envelope is not None

    def park(self, handler_task: HandlerTask) -> asyncio.Future[None] | None:
        """Return a future that wakes the task for its next message; ``None``: it is not needed any more."""
        if self._closed or handler_task.task.cancelling() or len(self._parked) >= PARKED_MAX:
            return None
        wake = handler_task.wake = asyncio.Future[None]()
        self._parked.append(handler_task)
        return wake

    def on_task_exit(self, handler_task: HandlerTask) -> None:
        """Forget a task that has ended; a message it leaves behind was cancelled from outside."""
        self._tasks.discard(handler_task)
        if handler_task in self._parked:
            self._parked.remove(handler_task)
        envelope, handler_task.envelope = handler_task.envelope, None
        if envelope is None:
            return
        if envelope.stage is not ENDED:
            self.completion.crashed(envelope, "was cancelled from outside")
        self.running -= 1
        self._slots.release()

    # --- From the queue to a handler task

    def _on_admitted(self, envelope: Envelope) -> None:
        """Note that a message that waited for room is in the queue."""
        cancel_timer(envelope)
        envelope.at_s = envelope.ctx.deadline.at_s
        if envelope.reply is not None:
            start_timer(envelope, self.now())
        elif envelope.admission is not None:
            envelope.admission.set_result(None)

    def _start(self, envelope: Envelope, now_s: float) -> None:
        """Hand a message with a slot to a task: one that has just given its slot back, a parked or a new one."""
        self.running += 1
        handler_task, self._spare = self._spare, None
        while handler_task is None and self._parked:
            handler_task = self._parked.pop()
            if handler_task.wake.done():  # its task was cancelled from outside
                handler_task = None
            else:
                handler_task.wake.set_result(None)
        if handler_task is None:
            handler_task = HandlerTask(self, envelope)
            self._tasks.add(handler_task)
        self.grant(envelope, handler_task, now_s)

    def _remove_or_cancel(self, envelope: Envelope, stage: MessageStage) -> None:
        """Take an ended message, last at ``stage``, out of the queue, or stop its handler."""
        if stage in (MessageStage.BLOCKED, MessageStage.QUEUED):
            self.topic.remove(envelope, self.now())
            self.pump()
        elif stage is RUNNING and envelope.task is not None:
            envelope.task.cancel()
