"""Connection tracker: idle connections, timeouts by phase, and eviction above the connection limit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from uvicorn.server import ServerState

from penstock.http.early_refusals import EarlyRefusals
from penstock.http.timeout_queue import TimeoutQueue

#: Seconds for which the remaining bytes of an answered client are read and discarded. An immediate close would reset
#: the connection, and a reset can destroy the response on its way (RFC 9112 §9.6).
LINGER_TIMEOUT_S: Final = 5.0


class TrackedConnection(Protocol):
    """A connection as the tracker sees it.

    Attributes:
        address: The client's.
    """

    address: str

    def on_head_timeout(self) -> None:
        """Answer that the head of a request did not come in time, and close."""

    def abort(self) -> None:
        """Close at once; what is still to be sent is lost."""

    def close(self) -> None:
        """Close when all has been sent."""


class ConnectionTracker(ServerState):
    """Tracks the connections of a server: timeouts by phase, idle connections by address, a limit.

    Args:
        header_timeout_s: Seconds that a connection may take for the head of a request.
        write_timeout_s: Seconds that a closing connection may take to send the rest.
        connections_max: Above this, an idle connection of the address that holds most idle ones gives way.

    Bounds: ``connections_max`` connections.

    Attributes:
        awaiting_head: Connections whose next request's head is incomplete.
        closing: Connections that only have bytes left to send.
        lingering: Connections that were answered while the client was still sending.
        idle: Connections that wait for a request, by address, the longest idle first.
        dropped: Number of connections closed for one of these limits.
        early_refusals: Refuses requests before they are parsed; ``None``: nothing does.
        accept_waiting: Accepts what waits beside a connection that has just been accepted.
    """

    def __init__(self, header_timeout_s: float, write_timeout_s: float, connections_max: int) -> None:
        super().__init__()
        self.awaiting_head: TimeoutQueue[TrackedConnection] = TimeoutQueue(
            header_timeout_s, lambda one: one.on_head_timeout()
        )
        self.closing: TimeoutQueue[TrackedConnection] = TimeoutQueue(write_timeout_s, lambda one: one.abort())
        self.lingering: TimeoutQueue[TrackedConnection] = TimeoutQueue(LINGER_TIMEOUT_S, lambda one: one.close())
        self.idle: dict[str, dict[TrackedConnection, None]] = {}
        self.connections_max = connections_max
        self.dropped = 0
        self.early_refusals: EarlyRefusals | None = None
        self.accept_waiting: Callable[[], None] = lambda: None

    def mark_idle(self, connection: TrackedConnection) -> None:
        """Count a connection as idle."""
        self.idle.setdefault(connection.address, {})[connection] = None

    def mark_busy(self, connection: TrackedConnection) -> None:
        """Count a connection as idle no more."""
        resting = self.idle.get(connection.address)
        if resting is not None:
            resting.pop(connection, None)
            if not resting:
                del self.idle[connection.address]

    def enforce_limit(self, newcomer: TrackedConnection) -> None:
        """Abort one connection above the limit: the oldest lingering, else the longest idle, else the newcomer.

        The idle one is taken from the address that holds most, so a flood from one address evicts its own connections.
        """
        if len(self.connections) <= self.connections_max:
            return
        self.dropped += 1
        (self.lingering.oldest() or self._eviction_candidate() or newcomer).abort()

    def _eviction_candidate(self) -> TrackedConnection | None:
        most = max(self.idle.values(), key=len, default=None)
        return next(iter(most)) if most is not None else None
