"""Envelope: a message on its way through the bus, what is known of its service time, and how it ends."""

from __future__ import annotations

import asyncio
import enum
import logging
import math
from typing import Any

from penstock.bus.counters import TopicCounters
from penstock.bus.fair_queue import QueueItem
from penstock.kernel.context import Context
from penstock.kernel.errors import Broken, Expired, PenstockError, Rejected
from penstock.kernel.wheel import Slot, cancel_timer
from penstock.policies.discard import DiscardPolicy, DiscardSettings, DiscardVerdict
from penstock.policies.estimate import Estimate, EstimateSettings

log = logging.getLogger(__name__)


class Completion:
    """Completes the messages of one topic.

    Each method but :meth:`answered`, :meth:`failed` and :meth:`crashed` takes a message that has not ended. Those
    three report on a handler, which may have been stopped before.
    """

    def __init__(self, topic: str, counts: TopicCounters) -> None:
        self._topic = topic
        self._counts = counts

    def answered(self, envelope: Envelope, result: Any) -> None:
        """Complete a message whose handler returned."""
        reply, counts = envelope.reply, self._counts
        if envelope.stage is not RUNNING:
            counts.late_replies += reply is not None
            return
        envelope.stage = ENDED
        if envelope.slot is not None:
            cancel_timer(envelope)
        if reply is None:
            counts.answered += 1
        elif reply.done():
            counts.late_replies += 1
            counts.left += 1
        else:
            counts.answered += 1
            reply.set_result(result)

    def failed(self, envelope: Envelope, error: PenstockError) -> None:
        """Complete a message whose handler raised a ``PenstockError``."""
        if self._close_failed(envelope):
            if envelope.reply is None:
                log.warning("a subscriber of %s failed: %s", self._topic, error)
            _fail_waiter(envelope, error)

    def crashed(self, envelope: Envelope, how: str, error: BaseException | None = None) -> None:
        """Complete a message whose handler ended by a bug or a stray cancellation (B5)."""
        self._counts.handler_errors += 1
        log.error("handler of %s %s", self._topic, how, exc_info=error)
        if self._close_failed(envelope):
            _fail_waiter(envelope, Broken(f"the handler of {self._topic} failed"))

    def refused(self, envelope: Envelope, error: Rejected) -> None:
        """Complete a message that found no room in time."""
        self._counts.count_refusal(error.code)
        _end(envelope)
        _fail_waiter(envelope, error)

    def expired(self, envelope: Envelope, error: PenstockError) -> None:
        """Complete a message that has reached its deadline, or its handler's limit (B4)."""
        running = envelope.stage is RUNNING
        _end(envelope)
        if running:
            self._counts.expired_running += 1
            if envelope.reply is None:
                log.warning("a subscriber of %s failed: %s", self._topic, error)
        elif envelope.accepted_event:
            self._lose_event(error)
        else:
            self._counts.expired_waiting += 1
        _fail_waiter(envelope, error)

    def discarded(self, envelope: Envelope) -> None:
        """Complete a message that could no longer end in time."""
        self._counts.discarded += 1
        _end(envelope)
        _fail_waiter(envelope, self.unstarted_error(envelope))

    def unstarted_error(self, envelope: Envelope) -> PenstockError:
        """Return the error of a message whose time ran out before its turn: too much is asked, not too little time."""
        if envelope.reply is None:
            return Expired(envelope.ctx.deadline.operation)
        return Rejected(f"its turn in {self._topic} did not come in time", code="hopeless")

    def abandoned(self, envelope: Envelope) -> None:
        """Complete a message whose requester or publisher has gone."""
        self._counts.left += 1
        _end(envelope)

    def refused_draining(self, envelope: Envelope) -> None:
        """Complete a message that is still open when the bus closes."""
        answer, error = envelope.awaited, draining_error()
        _end(envelope)
        if envelope.accepted_event:
            self._lose_event(error)
        elif answer is None or answer.done():
            self._counts.left += 1
        else:
            self._counts.count_refusal(error.code)
            answer.set_exception(error)

    def _close_failed(self, envelope: Envelope) -> bool:
        """End a failed message; return whether it counts as failed: it was neither ended nor abandoned before."""
        if envelope.stage is ENDED:
            return False
        _end(envelope)
        if envelope.abandoned:
            self._counts.left += 1
            return False
        self._counts.failed += 1
        return True

    def _lose_event(self, error: PenstockError) -> None:
        """Count and log the loss of an accepted event; none is lost silently (B2)."""
        self._counts.lost += 1
        log.warning("an event on %s was not handled: %s", self._topic, error)


def draining_error() -> Rejected:
    """Return the error of a bus that is closed."""
    return Rejected("the server is shutting down", code="draining")


def _end(envelope: Envelope) -> None:
    envelope.stage = ENDED
    if envelope.slot is not None:
        cancel_timer(envelope)


def _fail_waiter(envelope: Envelope, error: PenstockError) -> None:
    answer = envelope.awaited
    if answer is not None and not answer.done():
        answer.set_exception(error)


#: Messages quicker than this are measured one in ``SAMPLE_EVERY``: taking the measure costs microseconds too.
QUICK_S = 0.001
SAMPLE_EVERY = 16
#: How service times are learnt, and doubted.
ESTIMATE, DISCARD = EstimateSettings(), DiscardSettings()


class ServiceTime:
    """Service time and discard policy of one kind of message.

    Attributes:
        cost_s: Seconds charged for a message; a guess until there are samples.
        expected_s: Seconds it adds to the wait of others; 0 until there are samples.
        p50_s: Its own median; 0 until there are samples.
        p90_s: Its 90th percentile; 0 until there are samples.
        last_admitted_s: When one was last let through without a decision; the caller notes it.
        samples_to_skip: How many of the next messages need not be measured; the caller counts it down.
    """

    __slots__ = ("_estimate", "_rule", "cost_s", "expected_s", "last_admitted_s", "p50_s", "p90_s", "samples_to_skip")

    def __init__(self) -> None:
        self._estimate = Estimate(ESTIMATE)
        self._rule = DiscardPolicy(DISCARD)
        self.samples_to_skip = 0
        self.last_admitted_s = -math.inf
        self.cost_s = self._estimate.mean_s
        self.expected_s = self.p50_s = self.p90_s = 0.0

    def __repr__(self) -> str:
        return f"<ServiceTime {self._estimate!r}>"

    def observe(self, seconds: float) -> None:
        """Learn from the duration of one message."""
        estimate = self._estimate
        estimate.observe(seconds)
        self.cost_s = estimate.mean_s
        if estimate.ready:
            self.expected_s = self.cost_s
            self.p50_s = estimate.p50_s
            self.p90_s = estimate.p90_s
            self.samples_to_skip = SAMPLE_EVERY - 1 if self.p90_s < QUICK_S else 0

    def decide(self, deadline_s: float, now_s: float, *, contended: bool) -> DiscardVerdict:
        """Return whether to serve one that is next (:meth:`penstock.policies.discard.DiscardPolicy.on_pop`).

        One that has ``p90_s`` until its deadline needs no decision: note it in ``last_admitted_s``.
        """
        if self.last_admitted_s > -math.inf:
            self._rule.on_pop(math.inf, self.last_admitted_s, self._estimate, contended=True)
            self.last_admitted_s = -math.inf
        return self._rule.on_pop(deadline_s, now_s, self._estimate, contended=contended)

    def probe_ended(self, *, in_time: bool) -> None:
        """Take in whether a probe met its deadline."""
        self._rule.probe_ended(in_time=in_time)


class MessageStage(enum.Enum):
    """Stages of a message; it never goes back to an earlier one."""

    NEW = enum.auto()
    #: It waits for room in the buffer.
    BLOCKED = enum.auto()
    QUEUED = enum.auto()
    #: It has a slot and a handler task; its handler has not been called.
    GRANTED = enum.auto()
    #: Its handler is at work.
    RUNNING = enum.auto()
    #: It is answered or given up. Its handler may still be at work, if it was stopped.
    ENDED = enum.auto()


# Python 3.11 finds an enum's member through a descriptor, which takes as long as a call.
NEW, QUEUED, GRANTED, RUNNING, ENDED = (
    MessageStage.NEW,
    MessageStage.QUEUED,
    MessageStage.GRANTED,
    MessageStage.RUNNING,
    MessageStage.ENDED,
)


class EnvelopeOwner:
    """Owner of an envelope: ends its message when the time is up or the requester has gone.

    A class, not a protocol: ``tools/compile.py`` compiles it with its subclass, so that the call is a native one.
    """

    def on_expired(self, envelope: Envelope) -> None:
        """End a message whose deadline has passed."""
        raise NotImplementedError

    def abandon(self, envelope: Envelope) -> None:
        """End a message whose requester has gone."""
        raise NotImplementedError


class Envelope(QueueItem):
    """A message, its context and its stage. As a timer it expires at its deadline, at whatever stage.

    Args:
        message: The request or event.
        ctx: Its context.
        owner: Ends the message when its time is up.
        sent_at_s: When it was sent, on the loop's clock.
        reply: Resolved with the answer; ``None`` for events.

    Attributes:
        admission: Resolved when an event that was blocked finds room or is refused; no other message has one.
        service_time: The service time of its kind, once it was looked up.
        stage: Its stage.
        task: The task that its handler runs in, once it is granted.
        probe: Whether it tests the estimate.
    """

    __slots__ = (
        "admission",
        "ctx",
        "message",
        "owner",
        "probe",
        "reply",
        "sent_at_s",
        "service_time",
        "slot",
        "stage",
        "task",
    )

    def __init__(
        self,
        message: Any,
        ctx: Context,
        owner: EnvelopeOwner,
        sent_at_s: float,
        reply: asyncio.Future[Any] | None = None,
    ) -> None:
        self.message = message
        self.ctx = ctx
        self.owner = owner
        self.sent_at_s = sent_at_s
        self.reply = reply
        self.at_s = ctx.deadline.at_s
        self.stage = NEW
        self.slot: Slot | None = None
        self.admission: asyncio.Future[None] | None = None
        self.service_time: ServiceTime | None = None
        self.task: asyncio.Task[None] | None = None
        self.probe = False
        self.client = ctx.client
        self.rank = ctx.criticality
        self.ordered = reply is None
        self.cost_s = self.expected_s = self.since_s = 0.0
        self.flow = None

    def __repr__(self) -> str:
        return f"<Envelope {self.message!r} {self.stage.name.lower()}>"

    @property
    def awaited(self) -> asyncio.Future[Any] | None:
        """Future that the sender waits for: the reply, or an event's admission; ``None`` for an event with room."""
        return self.admission if self.reply is None else self.reply

    @property
    def abandoned(self) -> bool:
        """True where no requester waits for the reply any more."""
        return self.reply is not None and self.reply.done()

    @property
    def accepted_event(self) -> bool:
        """True for an event whose publisher believes that it will be handled."""
        return self.reply is None and (self.admission is None or self.admission.done())

    def expire(self) -> None:
        """Tell the dispatcher that the time is up."""
        self.owner.on_expired(self)
