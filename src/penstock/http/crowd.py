"""All connections of a server: which are idle, which are late, and which gives way when there are too many."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from uvicorn.server import ServerState

from penstock.http.line import Line

if TYPE_CHECKING:
    from penstock.http.connection import Connection

#: How long a client may go on to send what nobody will read. A close at once would be a reset to it, and the reset
#: takes the answer with it (RFC 9112 §9.6).
LINGER_S: Final = 5.0


class Crowd(ServerState):
    """All connections of a server.

    Args:
        header_timeout_s: How long one may take for the head of a request.
        write_timeout_s: How long a closing one may take for what is still to be sent.
        connections_max: Above this, an idle connection of the address that holds most idle ones gives way.

    Bounds: ``connections_max`` connections.

    Attributes:
        heads: Those whose next request's head is not complete.
        closing: Those that only have something left to send.
        lingering: Those that have been answered while they were still sending.
        idle: Those that wait for a request, longest first, by address.
        dropped: How many were closed for one of these limits.
    """

    def __init__(self, header_timeout_s: float, write_timeout_s: float, connections_max: int) -> None:
        super().__init__()
        self.heads: Line[Connection] = Line(header_timeout_s, lambda one: one.head_late())
        self.closing: Line[Connection] = Line(write_timeout_s, lambda one: one.abort())
        self.lingering: Line[Connection] = Line(LINGER_S, lambda one: one.close())
        self.idle: dict[str, dict[Connection, None]] = {}
        self.connections_max = connections_max
        self.dropped = 0

    def rest(self, connection: Connection) -> None:
        """Count a connection as idle."""
        self.idle.setdefault(connection.address, {})[connection] = None

    def wake(self, connection: Connection) -> None:
        """Count a connection as idle no more."""
        resting = self.idle.get(connection.address)
        if resting is not None:
            resting.pop(connection, None)
            if not resting:
                del self.idle[connection.address]

    def make_room(self, newcomer: Connection) -> None:
        """Close one connection if there are too many: the longest idle of the address with most, else the newcomer.

        So a flood of idle connections from one address pushes out its own, not those of others.
        """
        if len(self.connections) <= self.connections_max:
            return
        self.dropped += 1
        (self.lingering.first() or self._most_idle() or newcomer).abort()

    def _most_idle(self) -> Connection | None:
        most = max(self.idle.values(), key=len, default=None)
        return next(iter(most)) if most is not None else None
