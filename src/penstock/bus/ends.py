"""How messages end: each is answered, counted and, where nobody is told, logged, exactly once."""

from __future__ import annotations

import logging
from typing import Any

from penstock.bus.books import Counts
from penstock.bus.envelope import ENDED, RUNNING, Envelope
from penstock.kernel.errors import Broken, Expired, PenstockError, Rejected
from penstock.kernel.wheel import cancel

log = logging.getLogger(__name__)


class Ends:
    """The ends of one topic's messages.

    Each method but :meth:`answered`, :meth:`failed` and :meth:`broke` takes a message that has not ended; those
    three are told what a handler did, and it may have been stopped before.

    Args:
        topic: The topic's name, for the log.
        counts: Where they are entered.
    """

    def __init__(self, topic: str, counts: Counts) -> None:
        self._topic = topic
        self._counts = counts

    def answered(self, envelope: Envelope, result: Any) -> None:
        """Its handler returned."""
        reply, counts = envelope.reply, self._counts
        if envelope.stage is not RUNNING:
            counts.late += reply is not None
            return
        envelope.stage = ENDED
        if envelope.slot is not None:
            cancel(envelope)
        if reply is None:
            counts.answered += 1
        elif reply.done():
            counts.late += 1
            counts.left += 1
        else:
            counts.answered += 1
            reply.set_result(result)

    def failed(self, envelope: Envelope, error: PenstockError) -> None:
        """Its handler raised on purpose."""
        if self._fails(envelope):
            if envelope.reply is None:
                log.warning("a subscriber of %s failed: %s", self._topic, error)
            _answer(envelope, error)

    def broke(self, envelope: Envelope, how: str, error: BaseException | None = None) -> None:
        """Its handler ended as none should (B5)."""
        self._counts.raised += 1
        log.error("handler of %s %s", self._topic, how, exc_info=error)
        if self._fails(envelope):
            _answer(envelope, Broken(f"the handler of {self._topic} failed"))

    def refused(self, envelope: Envelope, error: Rejected) -> None:
        """There was no room for it in time."""
        self._counts.refuse(error.code)
        _close(envelope)
        _answer(envelope, error)

    def expired(self, envelope: Envelope, error: Expired) -> None:
        """Its time is up, or its handler's (B4)."""
        running = envelope.stage is RUNNING
        _close(envelope)
        if running:
            self._counts.expired_running += 1
            if envelope.reply is None:
                log.warning("a subscriber of %s failed: %s", self._topic, error)
        elif envelope.promised:
            self._lose(error)
        else:
            self._counts.expired_waiting += 1
        _answer(envelope, error)

    def discarded(self, envelope: Envelope) -> None:
        """It could no longer end in time."""
        self._counts.discarded += 1
        _close(envelope)
        _answer(envelope, Expired(envelope.ctx.deadline.operation))

    def left(self, envelope: Envelope) -> None:
        """Its requester or publisher has gone."""
        self._counts.left += 1
        _close(envelope)

    def turned_away(self, envelope: Envelope) -> None:
        """The bus has come to its end first."""
        answer, error = envelope.answer, draining()
        _close(envelope)
        if envelope.promised:
            self._lose(error)
        elif answer is None or answer.done():
            self._counts.left += 1
        else:
            self._counts.refuse(error.code)
            answer.set_exception(error)

    def _fails(self, envelope: Envelope) -> bool:
        """Close what has failed; return whether that is news to anybody."""
        if envelope.stage is ENDED:
            return False
        _close(envelope)
        if envelope.abandoned:
            self._counts.left += 1
            return False
        self._counts.failed += 1
        return True

    def _lose(self, error: PenstockError) -> None:
        """Let go of an event that its publisher believes to be handled; nothing goes silently (B2)."""
        self._counts.lost += 1
        log.warning("an event on %s was not handled: %s", self._topic, error)


def draining() -> Rejected:
    """Return the error of a bus that is closed."""
    return Rejected("the server is shutting down", code="draining")


def _close(envelope: Envelope) -> None:
    envelope.stage = ENDED
    if envelope.slot is not None:
        cancel(envelope)


def _answer(envelope: Envelope, error: PenstockError) -> None:
    answer = envelope.answer
    if answer is not None and not answer.done():
        answer.set_exception(error)
