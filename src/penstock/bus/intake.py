"""One subscriber's end of a topic: it hands messages to workers as slots allow, and sees that each is answered."""

from __future__ import annotations

import asyncio

from penstock.bus.books import UNOBSERVED, BusObserver
from penstock.bus.contract import Handler, Slots
from penstock.bus.ends import Ends
from penstock.bus.envelope import ENDED, GRANTED, RUNNING, Envelope, Stage
from penstock.bus.topic import Topic
from penstock.bus.worker import Worker
from penstock.kernel.clock import Clock
from penstock.kernel.context import Criticality
from penstock.kernel.errors import Expired, Rejected
from penstock.kernel.settings import BusSettings
from penstock.kernel.wheel import cancel, watch
from penstock.policies.discard import Verdict

#: Workers of one topic that wait for something to do.
PARKED_MAX = 32


class Intake:
    """A topic's buffer, the slots, the handler and its workers.

    One rule drives it: whenever a message arrives or a slot becomes free, :meth:`pump` starts as many handlers as
    messages and slots allow, synchronously. No task waits for a slot. A message may find a slot though others wait:
    one that is kept for the more urgent.

    Args:
        topic: Where messages wait.
        handler: What is done with them.
        slots: Permission to do one more.
        settings: Limits.
        clock: The loop's clock.
        observer: Who watches.

    Attributes:
        running: Messages that have a slot.
        ends: How they end.
        handler_s: How long a handler may run (B4).
        now: The clock.
    """

    def __init__(
        self,
        topic: Topic,
        handler: Handler,
        slots: Slots,
        settings: BusSettings,
        clock: Clock,
        observer: BusObserver = UNOBSERVED,
    ) -> None:
        self.topic = topic
        self.handler = handler
        self.running = 0
        self.ends = Ends(topic.name, topic.counts)
        self.handler_s = settings.handler_timeout
        self.now = clock.now
        self._slots = slots
        self._publish_s = settings.publish_timeout
        self._running_max = settings.handlers_per_topic
        self._observer = None if observer is UNOBSERVED else observer
        self._counts = topic.counts
        self._workers: set[Worker] = set()
        self._parked: list[Worker] = []
        self._spare: Worker | None = None
        self._closed = False
        topic.on_room = self._has_room
        slots.on_free(self.pump)

    def __repr__(self) -> str:
        return f"<Intake {self.topic!r} {self.running} running>"

    @property
    def load(self) -> int:
        """Messages here."""
        return self.topic.queue.count + self.running

    @property
    def stopping(self) -> int:
        """How many of ``running`` have ended already: stopped, and their handlers not yet out."""
        return sum(worker.stopping for worker in self._workers)

    # --- What a requester or publisher does

    def offer(self, envelope: Envelope, now_s: float) -> bool:
        """Take a message.

        Returns:
            Whether it found room; if not, it waits for it, and for an event ``turn`` is resolved in the end.

        Raises:
            Rejected: It is refused at once.
        """
        self._counts.offered += 1
        topic, waits = self.topic, False
        if not topic.queue.count and self.running < self._running_max and self._slots.try_acquire(envelope.rank):
            self._counts.admitted += 1
            self._start(envelope, now_s)
        elif not topic.enter(envelope, now_s, self.running):
            if envelope.reply is None:
                envelope.turn = asyncio.get_running_loop().create_future()
            envelope.at_s = min(envelope.at_s, now_s + self._publish_s)
            watch(envelope, now_s)
            return False
        else:
            waits = True
        if envelope.reply is not None:  # events have alarms while they are blocked only
            watch(envelope, now_s)
        if waits and envelope.rank < Criticality.BULK:  # last: it may end the message, and its alarm with it
            self.pump()
        return True

    def leave(self, envelope: Envelope) -> None:
        """Its requester or publisher has gone: take the message back, or stop its handler."""
        answer = envelope.answer
        if answer is not None and answer.done() and not answer.cancelled():
            answer.exception()  # looked at, so that asyncio does not warn of it
        stage = envelope.stage
        if stage is ENDED or (envelope.reply is None and stage in (GRANTED, RUNNING)):
            return
        self.ends.left(envelope)
        self._withdraw(envelope, stage)

    # --- What alarms and slots do

    def rang(self, envelope: Envelope) -> None:
        """Its time is up."""
        stage, deadline = envelope.stage, envelope.ctx.deadline
        if stage is Stage.BLOCKED and envelope.at_s < deadline.at_s:
            self.ends.refused(envelope, Rejected(f"{self.topic.name} is full", code="queue_full"))
        else:
            self.ends.expired(envelope, Expired(deadline.operation))
        self._withdraw(envelope, stage)

    def overran(self, envelope: Envelope, limit_s: float) -> None:
        """Its handler has reached the limit."""
        deadline = envelope.ctx.deadline
        self.ends.expired(envelope, Expired("handler" if limit_s < deadline.at_s else deadline.operation))
        self._withdraw(envelope, RUNNING)

    def pump(self) -> None:
        """Start handlers while there are messages and slots, and no more than one topic may have (P8)."""
        queue = self.topic.queue
        while queue.count and self.running < self._running_max and self._slots.try_acquire(queue.front):
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
            self.ends.turned_away(envelope)
        for worker in self._parked:
            if not worker.wake.done():
                worker.wake.set_result(None)
        self._parked.clear()
        for worker in self._workers:
            if worker.envelope is not None and not worker.stopping:
                stage = worker.envelope.stage
                self.ends.turned_away(worker.envelope)
                self._withdraw(worker.envelope, stage)
        return [worker.task for worker in self._workers]

    # --- What workers do

    def next(self, now_s: float) -> Envelope | None:
        """Take the next message worth handling out of the buffer; the others are answered."""
        topic = self.topic
        while (envelope := topic.next(now_s)) is not None:
            deadline_s, reply = envelope.ctx.deadline.at_s, envelope.reply
            if now_s >= deadline_s or (reply is not None and reply.done()):
                self.give_up(envelope)
                continue
            if reply is None or not topic.rules.discard:
                return envelope
            service = envelope.service or topic.service(envelope)
            if deadline_s - now_s >= service.likely_s:
                service.served_s = now_s
                return envelope
            verdict = service.judge(deadline_s, now_s, contended=topic.queue.count > 0)
            if verdict is not Verdict.DISCARD:
                envelope.probe = verdict is Verdict.PROBE
                return envelope
            self.ends.discarded(envelope)
        return None

    def grant(self, envelope: Envelope, worker: Worker, now_s: float) -> None:
        """Note that a message's turn has come: it has a slot and a worker."""
        envelope.stage = GRANTED
        envelope.worker = worker
        worker.envelope = envelope
        if self._observer is not None:
            self._observer.started(self.topic.name, envelope.ctx, now_s - envelope.sent_at_s)

    def give_up(self, envelope: Envelope) -> None:
        """It is not begun: its deadline has passed, or its requester has gone."""
        if envelope.abandoned:
            self.ends.left(envelope)
        else:
            self.ends.expired(envelope, Expired(envelope.ctx.deadline.operation))

    def measure(self, envelope: Envelope, took_s: float, now_s: float, *, stopped: bool) -> None:
        """Learn from how long a handler took; one that was hung up on says nothing."""
        if self._observer is not None:
            self._observer.ended(self.topic.name, took_s)
        service = envelope.service or self.topic.service(envelope)
        if service.skip and not envelope.probe:
            service.skip -= 1
            return
        deadline_s = envelope.ctx.deadline.at_s
        if not stopped or now_s >= deadline_s:
            self.topic.learn(service, took_s)
            if envelope.probe:
                service.probe_ended(in_time=now_s <= deadline_s)

    def freed(self, worker: Worker) -> bool:
        """Give the worker's slot back; return whether another message was handed to it at once."""
        self.running -= 1
        if not worker.task.cancelling():
            self._spare = worker
        self._slots.release()
        self._spare = None
        return worker.envelope is not None

    def park(self, worker: Worker) -> asyncio.Future[None] | None:
        """Return what wakes the worker when there is something to do again; ``None``: it is not needed any more."""
        if self._closed or worker.task.cancelling() or len(self._parked) >= PARKED_MAX:
            return None
        wake = worker.wake = asyncio.Future[None]()
        self._parked.append(worker)
        return wake

    def lost(self, worker: Worker) -> None:
        """Forget a worker that has ended; what it leaves behind was cancelled from outside."""
        self._workers.discard(worker)
        if worker in self._parked:
            self._parked.remove(worker)
        envelope, worker.envelope = worker.envelope, None
        if envelope is None:
            return
        if envelope.stage is not ENDED:
            self.ends.broke(envelope, "was cancelled from outside")
        self.running -= 1
        self._slots.release()

    # --- From the buffer to a worker

    def _has_room(self, envelope: Envelope) -> None:
        """A message that waited for room is in the buffer."""
        cancel(envelope)
        envelope.at_s = envelope.ctx.deadline.at_s
        if envelope.reply is not None:
            watch(envelope, self.now())
        elif envelope.turn is not None:
            envelope.turn.set_result(None)

    def _start(self, envelope: Envelope, now_s: float) -> None:
        """Hand a message that has a slot to a worker: one that has just given its slot back, a parked or a new one."""
        self.running += 1
        worker, self._spare = self._spare, None
        while worker is None and self._parked:
            worker = self._parked.pop()
            if worker.wake.done():  # its task was cancelled from outside
                worker = None
            else:
                worker.wake.set_result(None)
        if worker is None:
            worker = Worker(self, envelope)
            self._workers.add(worker)
        self.grant(envelope, worker, now_s)

    def _withdraw(self, envelope: Envelope, stage: Stage) -> None:
        """Take a message that has ended out of the buffer, or stop its handler.

        Args:
            envelope: The message.
            stage: Where it was when it ended.
        """
        if stage in (Stage.BLOCKED, Stage.QUEUED):
            self.topic.remove(envelope, self.now())
            self.pump()
        elif stage is RUNNING and envelope.worker is not None:
            envelope.worker.task.cancel()
