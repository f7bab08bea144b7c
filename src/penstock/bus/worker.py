"""A task that hands messages to the handler, one after the other."""

from __future__ import annotations

import asyncio
import contextvars
import math
from typing import TYPE_CHECKING

from penstock.bus.envelope import ENDED, GRANTED, RUNNING, Envelope
from penstock.kernel.errors import PenstockError
from penstock.kernel.wheel import Slot, cancel, watch

if TYPE_CHECKING:
    from penstock.bus.intake import Intake
    from penstock.kernel.context import Context

#: Messages one worker handles with one slot, and time it takes, before it offers the slot to others.
BURST_MESSAGES = 32
BURST_S = 0.001


class Worker:
    """Handles one message after the other while there are any, and then waits for more.

    Starting a task for each message costs as much as all the bus's accounting. A worker that was
    cancelled for a message's sake ends with it, so no cancellation ever reaches the next one. Its alarm is for
    the handler's limit (B4); it is moved only when a message's limit is earlier than the last one's.
    Handlers run in a context of the worker's own: what the first requester had set in its is not theirs.

    Args:
        intake: Whose it is.
        envelope: What it works on first.

    Attributes:
        envelope: What it works on, or will in its next step; it holds the slot for it.
        task: The task.
        wake: While it waits: resolved when there is something to do again.
    """

    __slots__ = ("_intake", "_limit_s", "at_s", "envelope", "slot", "task", "wake")

    def __init__(self, intake: Intake, envelope: Envelope) -> None:
        self._intake = intake
        self._limit_s = math.inf
        self.at_s = math.inf
        self.slot: Slot | None = None
        self.envelope: Envelope | None = envelope
        self.wake: asyncio.Future[None]
        loop = asyncio.get_running_loop()
        self.task = loop.create_task(self._run(), name=intake.topic.name, context=contextvars.Context())
        self.task.add_done_callback(self._over)

    def __repr__(self) -> str:
        return f"<Worker {self._intake.topic.name} {self.envelope!r}>"

    @property
    def stopping(self) -> bool:
        """Whether it holds a slot for a message that has ended already."""
        return self.envelope is not None and self.envelope.stage is ENDED

    def ring(self) -> None:
        """A handler's time is up (B4), or the time of one before it was."""
        self.at_s = math.inf
        if self.envelope is None or self._limit_s == math.inf:
            return
        now_s = self._intake.now()
        if self._limit_s > now_s:
            self._set(now_s)
        elif self.envelope.stage is RUNNING:
            self._intake.overran(self.envelope, self._limit_s)

    async def _run(self) -> None:
        """Handle what there is, offer the slot to others, wait for more (B5)."""
        intake = self._intake
        while True:
            await self._burst()
            self._limit_s = math.inf
            if intake.freed(self):
                await asyncio.sleep(0)
                continue
            wake = intake.park(self)
            if wake is None:
                return
            await wake
            if self.envelope is None:  # the bus has closed
                return

    async def _burst(self) -> None:
        """Handle as many messages as one slot is kept for; who waits afterwards holds nothing of them."""
        intake, task = self._intake, self.task
        handler, ends, now = intake.handler, intake.ends, intake.now
        began_s = now_s = now()
        for _ in range(BURST_MESSAGES):
            envelope = self.envelope
            if envelope is None:
                envelope = intake.next(now_s)
                if envelope is None:
                    return
                intake.grant(envelope, self, now_s)
            ctx = self._begin(envelope, now_s)
            if ctx is not None:
                began_at_s, failed = now_s, False
                try:
                    result = await handler(envelope.message, ctx)
                except BaseException as error:  # noqa: BLE001 - a handler that raises never stops the topic (B5)
                    stopped, failed = envelope.stage is ENDED, True
                    self._stumbled(envelope, error)
                else:
                    stopped = envelope.stage is ENDED
                    ends.answered(envelope, result)
                now_s = now()
                # What fails sooner than it usually takes was refused, not served: it would teach that work is
                # quick just when there is too much of it. So it is seen, like what was stopped, and not learnt from.
                refused = failed and now_s - began_at_s < intake.topic.typical_s(envelope)
                intake.measure(envelope, now_s - began_at_s, now_s, stopped=stopped or refused)
            self.envelope = None
            if now_s - began_s >= BURST_S or task.cancelling():
                return

    def _begin(self, envelope: Envelope, now_s: float) -> Context | None:
        """Return the label for the handler, with its limit; ``None`` if there is nothing to be done any more."""
        if envelope.stage is not GRANTED:
            return None
        ctx, reply = envelope.ctx, envelope.reply
        deadline_s = ctx.deadline.at_s
        if now_s >= deadline_s or (reply is not None and reply.done()):
            self._intake.give_up(envelope)
            return None
        envelope.stage = RUNNING
        handler_s = self._intake.handler_s
        limit_s = now_s + handler_s
        if limit_s < deadline_s:
            ctx = ctx.within(handler_s, "handler", now_s)
        elif reply is not None:  # its own alarm rings before
            self._limit_s = math.inf
            return ctx
        else:
            limit_s = deadline_s
        self._limit_s = limit_s
        if limit_s < self.at_s:
            self._set(now_s)
        return ctx

    def _set(self, now_s: float) -> None:
        """Set the alarm to the handler's limit."""
        cancel(self)
        self.at_s = self._limit_s
        watch(self, now_s)

    def _stumbled(self, envelope: Envelope, error: BaseException) -> None:
        """Enter that the handler did not return. What is meant for the task and not for us goes on.

        Raises:
            BaseException: The end of the process or of the loop.
        """
        ends = self._intake.ends
        if isinstance(error, PenstockError):
            ends.failed(envelope, error)
        elif isinstance(error, Exception):
            ends.broke(envelope, "raised", error)
        elif not isinstance(error, asyncio.CancelledError):
            raise error
        elif envelope.stage is RUNNING:
            if self.task.cancelling():
                raise error
            ends.broke(envelope, "was cancelled by something of its own")

    def _over(self, _task: asyncio.Task[None]) -> None:
        """See to what is left behind; the task may have been cancelled from outside, even before its first step."""
        cancel(self)
        self._intake.lost(self)
