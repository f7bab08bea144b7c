"""One bounded buffer. Synchronous decisions; the one await is a publisher waiting for space."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from penstock.kernel.work import Work


@dataclass(slots=True, eq=False)
class Envelope:
    """A message on its way.

    Attributes:
        message: What is asked or told.
        work: Whose it is and until when.
        sent_at_s: When it was offered, on the loop's clock.
        reply: Resolved with the answer; ``None`` for events.
        task: The handler at work on it, once there is one.
    """

    message: Any
    work: Work
    sent_at_s: float
    reply: asyncio.Future[Any] | None = None
    task: asyncio.Task[None] | None = None

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for the reply any more."""
        return self.reply is not None and self.reply.done()


@dataclass(slots=True)
class Topic:
    """A bounded first-in-first-out buffer.

    Bounds: ``capacity`` messages; publishers beyond it wait their turn in ``put``.

    Attributes:
        name: Its name.
        capacity: How many messages it holds.
    """

    name: str
    capacity: int
    _items: deque[Envelope] = field(default_factory=deque)
    _waiters: deque[tuple[asyncio.Future[None], Envelope]] = field(default_factory=deque)

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return f"<Topic {self.name} {len(self._items)}/{self.capacity} +{len(self._waiters)}>"

    def offer(self, envelope: Envelope) -> bool:
        """Take the message if there is room and nobody waits before it."""
        if len(self._items) >= self.capacity or self._waiters:
            return False
        self._items.append(envelope)
        return True

    async def put(self, envelope: Envelope) -> None:
        """Take the message, waiting for room in the order of arrival.

        Cancellation: The message is not in the buffer, even if room was granted meanwhile.
        """
        if self.offer(envelope):
            return
        turn = asyncio.get_running_loop().create_future()
        entry = (turn, envelope)
        self._waiters.append(entry)
        try:
            await turn
        except asyncio.CancelledError:
            if entry in self._waiters:
                self._waiters.remove(entry)
            else:
                self.discard(envelope)
            raise

    def peek(self) -> Envelope | None:
        """Return the next message and leave it where it is; ``None`` when the buffer is empty."""
        return self._items[0] if self._items else None

    def poll(self) -> Envelope | None:
        """Return the next message, or ``None`` when the buffer is empty."""
        if not self._items:
            return None
        envelope = self._items.popleft()
        self._grant()
        return envelope

    def discard(self, envelope: Envelope) -> None:
        """Take out a message that nobody waits for any more, if it is still here."""
        try:
            self._items.remove(envelope)
        except ValueError:
            return
        self._grant()

    def _grant(self) -> None:
        """Give free room to publishers that wait, the first first.

        The message moves here and now, not when its publisher wakes up: nobody can slip in
        between, and the bound holds at every moment.
        """
        while self._waiters and len(self._items) < self.capacity:
            turn, envelope = self._waiters.popleft()
            if not turn.done():
                self._items.append(envelope)
                turn.set_result(None)
