"""What every bus promises (SPEC §3), whichever backend carries it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from penstock.kernel.work import Work

#: Called with the message and its label; what it returns is the reply.
Handler = Callable[[Any, Work], Awaitable[Any]]


class Slots(Protocol):
    """Permission to run one more handler. Taking never waits: waiting happens in the topic."""

    def try_acquire(self) -> bool:
        """Take a slot if one is free."""
        ...

    def release(self) -> None:
        """Give a slot back; those registered with ``on_free`` are told."""
        ...

    def on_free(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` whenever a slot may have become free."""
        ...


@dataclass(frozen=True, slots=True)
class Features:
    """What a backend can do beyond the common contract; the contract suite reads it.

    Attributes:
        ordered: Messages of one publisher are handled in order when one slot serves the topic.
        persistent: Messages survive the bus's own process.
        redelivers: A message whose handler died is handed to another.
    """

    ordered: bool
    persistent: bool
    redelivers: bool


@dataclass(frozen=True, slots=True)
class TopicState:
    """What a topic looks like now.

    Attributes:
        name: The topic.
        waiting: Messages in its buffer.
        capacity: Its bound.
        running: Handlers at work.
        raised: Handlers that raised something other than a ``PenstockError``, so far (B5).
        late: Replies that came when nobody waited any more, so far (B3).
        lost: Events dropped because their deadline or the bus's end came first, so far.
    """

    name: str
    waiting: int
    capacity: int
    running: int
    raised: int = 0
    late: int = 0
    lost: int = 0

    @property
    def used(self) -> float:
        """Share of the buffer in use, 0 to 1."""
        return self.waiting / self.capacity


class Bus(Protocol):
    """Publish and subscribe, request and reply."""

    @property
    def features(self) -> Features:
        """What this backend can do."""
        ...

    def subscribe(self, topic: str, handler: Handler, slots: Slots) -> None:
        """Hand the topic's messages to ``handler``, as many at once as ``slots`` allow.

        A second subscriber of a request topic shares its work; each subscriber of an event
        topic gets every event.
        """
        ...

    async def publish(self, topic: str, message: Any, work: Work) -> None:
        """Announce an event to every subscriber.

        A subscriber whose buffer is full holds up no other: those with room have the event at
        once, and each of the rest is waited for.

        Raises:
            Rejected: A subscriber's buffer stayed full for the publish timeout (B2), or the bus
                is closed; the others have the event.
            Expired: The work's deadline passed first; the others have the event.

        Cancellation: The event has reached some subscribers or none.
        """
        ...

    async def request(self, topic: str, message: Any, work: Work) -> Any:
        """Ask for something and wait for the reply.

        Raises:
            Rejected: The buffer stayed full for the publish timeout (B2).
            Expired: The tightest of the work's deadline, the reply limit (B3) and the
                handler limit (B4) passed.
            PenstockError: Whatever the handler raised.

        Cancellation: The message is taken out of the buffer, or its handler is cancelled.
        """
        ...

    def used(self, topic: str) -> float:
        """Return how full the topic's fullest buffer is, 0 to 1; asked for every HTTP request."""
        ...

    def state(self) -> list[TopicState]:
        """Return every topic's state."""
        ...

    async def close(self) -> None:
        """Refuse new messages, cancel what waits and what runs, and wait for its end."""
        ...
