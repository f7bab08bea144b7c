"""A message on its way through the bus."""

from __future__ import annotations

import asyncio
import enum
from typing import TYPE_CHECKING, Any

from penstock.bus.discipline import Waiting
from penstock.kernel.context import Context
from penstock.kernel.wheel import Slot

if TYPE_CHECKING:
    from penstock.bus.intake import Intake
    from penstock.bus.service import Service
    from penstock.bus.worker import Worker


class Stage(enum.Enum):
    """Where a message is; it never goes back."""

    NEW = enum.auto()
    #: It waits for room in the buffer.
    BLOCKED = enum.auto()
    QUEUED = enum.auto()
    #: It has a slot and a worker; its handler has not been called.
    GRANTED = enum.auto()
    #: Its handler is at work.
    RUNNING = enum.auto()
    #: It is answered or given up. Its handler may still be at work, if it was stopped.
    ENDED = enum.auto()


# Python 3.11 finds an enum's member by way of a descriptor, which takes as long as a call.
NEW, QUEUED, GRANTED, RUNNING, ENDED = Stage.NEW, Stage.QUEUED, Stage.GRANTED, Stage.RUNNING, Stage.ENDED


class Envelope(Waiting):
    """A message, its label and how far it has come. As an alarm it rings when its time is up, at whatever stage.

    Args:
        message: What is asked or told.
        ctx: Whose it is and until when.
        intake: Where it is offered.
        sent_at_s: When, on the loop's clock.
        reply: Resolved with the answer; ``None`` for events.

    Attributes:
        turn: Resolved when an event that was blocked finds room or is refused; no other message has one.
        service: What is known about its kind, once it was looked up.
        stage: Where it is.
        worker: What works on it, once it is granted.
        probe: Whether it tests the estimate.
    """

    __slots__ = (
        "ctx",
        "intake",
        "message",
        "probe",
        "reply",
        "sent_at_s",
        "service",
        "slot",
        "stage",
        "turn",
        "worker",
    )

    def __init__(
        self, message: Any, ctx: Context, intake: Intake, sent_at_s: float, reply: asyncio.Future[Any] | None = None
    ) -> None:
        self.message = message
        self.ctx = ctx
        self.intake = intake
        self.sent_at_s = sent_at_s
        self.reply = reply
        self.at_s = ctx.deadline.at_s
        self.stage = NEW
        self.slot: Slot | None = None
        self.turn: asyncio.Future[None] | None = None
        self.service: Service | None = None
        self.worker: Worker | None = None
        self.probe = False
        # What ``Waiting`` sets, without the call: this is the hot path.
        self.client = ctx.client
        self.rank = ctx.criticality
        self.ordered = reply is None
        self.cost_s = self.expected_s = self.since_s = 0.0
        self.flow = None

    def __repr__(self) -> str:
        return f"<Envelope {self.message!r} {self.stage.name.lower()}>"

    @property
    def answer(self) -> asyncio.Future[Any] | None:
        """What somebody waits for: the reply, or room for an event; ``None`` for an event that has room at once."""
        return self.turn if self.reply is None else self.reply

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for the reply any more."""
        return self.reply is not None and self.reply.done()

    @property
    def promised(self) -> bool:
        """Whether it is an event whose publisher believes that it will be handled."""
        return self.reply is None and (self.turn is None or self.turn.done())

    def ring(self) -> None:
        """Tell the intake that the time is up."""
        self.intake.rang(self)
