"""Bus protocol: the contract between every bus and its callers and handlers (SPEC §3).

Operators have another side of it: :mod:`penstock.bus.management`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from penstock.kernel.context import Context, Criticality
from penstock.policies.levels import Level

#: Called with the message and its context; what it returns is the reply.
Handler = Callable[[Any, Context], Awaitable[Any]]


class Slots(Protocol):
    """Permission to run one more handler. Taking never waits: waiting happens in the topic."""

    def try_acquire(self, rank: int = Criticality.INTERACTIVE) -> bool:
        """Take a slot if one is free for this class of message; some may be kept for the more urgent ones."""

    def release(self) -> None:
        """Give a slot back; those registered with ``on_free`` are told."""

    def on_free(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` whenever a slot may have become free."""


@dataclass(frozen=True, slots=True)
class TopicRefusal:
    """Reason for refusing a request at the gate, before it is read (D2). A value, not an error: nothing is raised.

    Attributes:
        code: ``topic_full``, ``client_share`` or ``hopeless``.
        retry_after_s: Seconds after which another try makes sense; the gate adds its jitter.
        by_client: Whether the client's own doing is the reason.
    """

    code: str
    retry_after_s: float
    by_client: bool


class Bus(Protocol):
    """Publish and subscribe, request and reply."""

    def subscribe(self, topic: str, handler: Handler, slots: Slots) -> None:
        """Hand the topic's messages to ``handler``, as many at once as ``slots`` allow.

        A second subscriber of a request topic shares its work; each subscriber of an event
        topic gets every event. Handlers run in a context of their own, not in the requester's, and may
        follow on each other in one task: a context variable one of them leaves set is seen by the next.
        Service time is estimated for each kind of message: its attribute ``kind`` where it has one, else its class.
        """

    async def publish(self, topic: str, message: Any, ctx: Context) -> None:
        """Announce an event to every subscriber.

        A subscriber whose buffer is full holds up no other: those with room have the event at
        once, and each of the rest is waited for.

        Raises:
            Rejected: A subscriber's buffer stayed full for the publish timeout (B2), or the bus
                is closed; the others have the event.
            Expired: The context's deadline passed first; the others have the event.

        Cancellation: The event has reached some subscribers or none.
        """

    async def request(self, topic: str, message: Any, ctx: Context) -> Any:
        """Send a request and wait for the reply.

        Raises:
            Rejected: The buffer stayed full for the publish timeout (B2), the context's client holds its share
                of it (``client_share``), or what waits before makes its deadline unreachable (``hopeless``).
            Expired: The tightest of the context's deadline, the reply limit (B3) and the
                handler limit (B4) passed, or it could no longer end in time when its turn came.
            PenstockError: Whatever the handler raised.

        Cancellation: The message is taken out of the buffer, or its handler is cancelled.
        """

    def fill_ratio(self, topic: str) -> float:
        """Return how full the topic's fullest buffer is, 0 to 1; asked for every HTTP request."""

    def check_admission(self, topic: str, ctx: Context, level: Level = Level.CRITICAL) -> TopicRefusal | None:
        """Return why a new request should be refused at the gate, ``None`` if it should not (D2).

        Args:
            topic: The topic that the request would use.
            ctx: Its context, as far as its head tells: a client that holds its share of the buffer is refused, and a
                deadline that cannot be met behind what waits.
            level: The fill from which everybody is refused.
        """

    def congested(self, topic: str) -> bool:
        """Return whether messages of any class have stood in the topic too long, with hysteresis."""

    def pressure(self, topic: str, criticality: Criticality) -> float:
        """Return the age of a class's oldest message that waits in the topic, as a share of its target; 0 for none.

        The target is that of :class:`penstock.policies.congestion.Congestion`: above 1 the message waits for too long.
        """
