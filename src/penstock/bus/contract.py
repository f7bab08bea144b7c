"""What every bus promises (SPEC §3), whichever backend carries it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from penstock.bus.books import Counts
from penstock.kernel.context import Context, Criticality
from penstock.policies.levels import Level

if TYPE_CHECKING:
    from penstock.bus.link import Link

#: Called with the message and its label; what it returns is the reply.
Handler = Callable[[Any, Context], Awaitable[Any]]


class Slots(Protocol):
    """Permission to run one more handler. Taking never waits: waiting happens in the topic."""

    def try_acquire(self, rank: int = Criticality.INTERACTIVE) -> bool:
        """Take a slot if one is free for this class.

        Args:
            rank: The class of the message that is next; some slots may be kept for the more urgent ones.
        """
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
        ordered: Messages of one publisher are handled in order when one slot serves the topic: events
            always, requests while it is not congested.
        persistent: Messages survive the bus's own process.
        redelivers: A message whose handler died is handed to another.
        blocks: The publisher of an event waits for room in each subscriber's own buffer; else for room in the
            broker's, and a slow subscriber falls behind in its own time.
    """

    ordered: bool
    persistent: bool
    redelivers: bool
    blocks: bool = True


@dataclass(frozen=True, slots=True)
class TopicState:
    """What a topic looks like now.

    Attributes:
        name: The topic.
        waiting: Messages in its buffer.
        capacity: Its bound.
        running: Handlers at work; each has a slot.
        raised: Handlers that raised something other than a ``PenstockError``, so far (B5).
        late: Replies that came when nobody waited any more, so far (B3).
        lost: Events dropped because their deadline or the bus's end came first, so far.
        blocked: Publishers that wait for room.
        level: How full it is, with hysteresis.
        congested: Whether messages have stood in it too long, with hysteresis.
        stopping: How many of ``running`` were stopped, and are not out yet: their messages have ended.
        counts: What became of everything offered to it; a copy.
    """

    name: str
    waiting: int
    capacity: int
    running: int
    raised: int = 0
    late: int = 0
    lost: int = 0
    blocked: int = field(default=0, compare=False)
    level: Level = field(default=Level.CALM, compare=False)
    congested: bool = field(default=False, compare=False)
    stopping: int = field(default=0, compare=False)
    counts: Counts = field(default_factory=Counts, compare=False)

    @property
    def used(self) -> float:
        """Share of the buffer in use, 0 to 1."""
        return self.waiting / self.capacity


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a gate may say before it has read a request (D2); no error, so nothing is raised or filled in.

    Attributes:
        code: ``queue_full``, ``client_share`` or ``hopeless``.
        retry_after_s: Seconds after which another try makes sense; the gate adds its jitter.
        by_client: Whether the client's own doing is the reason.
    """

    code: str
    retry_after_s: float
    by_client: bool


class Bus(Protocol):
    """Publish and subscribe, request and reply."""

    @property
    def features(self) -> Features:
        """What this backend can do."""
        ...

    def subscribe(
        self, topic: str, handler: Handler, slots: Slots, kind_of: Callable[[Any], str] | None = None
    ) -> None:
        """Hand the topic's messages to ``handler``, as many at once as ``slots`` allow.

        A second subscriber of a request topic shares its work; each subscriber of an event
        topic gets every event. Handlers run in a context of their own, not in the requester's, and may
        follow on each other in one task: a context variable one of them leaves set is seen by the next.

        Args:
            topic: The topic.
            handler: What is done with a message.
            slots: Permission to run one more.
            kind_of: Names a message's kind; service time is estimated for each. Its class by default. Must
                not raise.
        """
        ...

    async def publish(self, topic: str, message: Any, ctx: Context) -> None:
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

    async def request(self, topic: str, message: Any, ctx: Context) -> Any:
        """Ask for something and wait for the reply.

        Raises:
            Rejected: The buffer stayed full for the publish timeout (B2), the work's client holds its share
                of it (``client_share``), or what waits before makes its deadline unreachable (``hopeless``).
            Expired: The tightest of the work's deadline, the reply limit (B3) and the
                handler limit (B4) passed, or it could no longer end in time when its turn came.
            PenstockError: Whatever the handler raised.

        Cancellation: The message is taken out of the buffer, or its handler is cancelled.
        """
        ...

    def used(self, topic: str) -> float:
        """Return how full the topic's fullest buffer is, 0 to 1; asked for every HTTP request."""
        ...

    def refuses(self, topic: str, ctx: Context, at: Level = Level.CRITICAL) -> Refusal | None:
        """Return why a new request should be refused at the gate, ``None`` if it should not (D2).

        Args:
            topic: Where the request leads.
            ctx: Its label, as far as its head tells: a client that holds its share of the buffer is refused, and a
                deadline that cannot be met behind what waits.
            at: The fill from which everybody is refused.
        """
        ...

    def congested(self, topic: str, criticality: Criticality | None = None) -> bool:
        """Return whether messages have stood in the topic too long, with hysteresis.

        Args:
            topic: The topic.
            criticality: The class that counts; any of them by default.
        """
        ...

    def state(self) -> list[TopicState]:
        """Return every topic's state."""
        ...

    # --- Between instances; a bus of one process is always whole, and has nobody to tell

    @property
    def links(self) -> Sequence[Link]:
        """The circuit breakers of what carries the bus between processes, if anything does."""
        ...

    def missing(self) -> list[str]:
        """Return why requests cannot be answered now; empty when they can."""
        ...

    def describe(self, topic: str, kind_of: Callable[[Any], str] | None) -> None:
        """Name the kinds of a topic's messages, whose service times are estimated apart, where others serve it."""
        ...

    async def joined(self) -> bool:
        """Wait until this instance takes the work that it serves, and the others know.

        Returns:
            False if some of it does not come here yet after a few seconds: the broker is busy, or away.
        """
        ...

    async def drain(self) -> None:
        """Take no more work from other instances, say so, and wait until what was taken has ended."""
        ...

    async def close(self) -> None:
        """Refuse new messages, cancel what waits and what runs, and wait for its end."""
        ...
