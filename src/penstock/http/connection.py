"""Connections that do not hang on for ever: uvicorn's protocol with the limits that it lacks.

By itself it lets a client take as long as it likes for the head of a request and send as much of it
as it likes, and a closed connection waits until its last byte is read, which may be never. The gate
sees none of that: it begins where the head is complete.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from penstock.http.line import Line

log = logging.getLogger(__name__)

#: Bytes of a request's head at most.
HEAD_BYTES_MAX: Final = 65_536

_TOO_SLOW: Final = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_TOO_LARGE: Final = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class Crowd(ServerState):
    """All connections of a server.

    Args:
        header_timeout_s: How long one may take for the head of a request.
        write_timeout_s: How long a closing one may take for what is still to be sent.
        connections_max: Above this, the connection that has waited longest for a head gives way.

    Bounds: ``connections_max`` connections.

    Attributes:
        heads: Those whose next request's head is not complete.
        closing: Those that only have something left to send.
        dropped: How many were closed for one of these limits.
    """

    def __init__(self, header_timeout_s: float, write_timeout_s: float, connections_max: int) -> None:
        super().__init__()
        self.heads: Line[Connection] = Line(header_timeout_s, Connection.head_late)
        self.closing: Line[Connection] = Line(write_timeout_s, Connection.abort)
        self.connections_max = connections_max
        self.dropped = 0

    def make_room(self, newcomer: Connection) -> None:
        """Close one connection if there are too many: an idle one, else the newcomer."""
        if len(self.connections) > self.connections_max:
            self.dropped += 1
            (self.heads.first() or newcomer).abort()


class Connection(HttpToolsProtocol):
    """One connection.

    Its parameters are uvicorn's; ``server_state`` is a :class:`Crowd`.
    """

    server_state: Crowd

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._head_bytes = 0
        self._in_head = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's own
        """Begin to wait for the first head."""
        super().connection_made(transport)
        self.server_state.heads.join(self)
        self.server_state.make_room(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave every line."""
        self.server_state.heads.leave(self)
        self.server_state.closing.leave(self)
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse; then see whether the head of the next request is awaited."""
        if self.parser is None:
            return
        super().data_received(data)
        if self._in_head or self.cycle is None or self.cycle.response_complete:
            # Also what follows a response and is no head: else it would keep the connection for ever.
            self.server_state.heads.join(self)
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX:
                self._refuse(_TOO_LARGE)

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = 0
        self.scope["penstock.abort"] = self.abort  # type: ignore[typeddict-unknown-key]

    def on_headers_complete(self) -> None:
        """A head is complete."""
        self._in_head = False
        self._head_bytes = 0
        self.server_state.heads.leave(self)
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """A response is in the transport; give it time to go out if the connection ends with it."""
        super().on_response_complete()
        if self.transport.is_closing() and self.transport.get_write_buffer_size():
            self.server_state.closing.join(self)

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection; one with an unread response is not idle but stuck."""
        if self.transport.get_write_buffer_size():
            self.abort()
        else:
            super().timeout_keep_alive_handler()

    def abort(self) -> None:
        """End the connection at once, unsent bytes and all."""
        self.transport.abort()

    def head_late(self) -> None:
        """End a connection whose head has not come in time; quietly, if nothing of it came."""
        if self.transport.is_closing():
            self.abort()
        elif self._head_bytes:
            self._refuse(_TOO_SLOW)
        else:
            self.transport.close()

    def _refuse(self, answer: bytes) -> None:
        """Answer what cannot reach the gate, and close."""
        self.server_state.dropped += 1
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(answer)
        self.transport.close()
        if self.transport.get_write_buffer_size():
            self.server_state.closing.join(self)
