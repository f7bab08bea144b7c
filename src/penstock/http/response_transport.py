"""Transport and flow control as uvicorn's response cycle sees them: both lead back to the connection's parser."""

from __future__ import annotations

import asyncio
from typing import Protocol

from uvicorn.protocols.http.flow_control import FlowControl


class ParsingConnection(Protocol):
    """A connection whose requests are parsed one at a time."""

    def resume_parsing(self) -> None:
        """Parse what is left, then read on."""

    def finish(self) -> None:
        """End the connection behind its last response."""


class ParserFlowControl(FlowControl):
    """Flow control that does not resume reading before everything read has been parsed."""

    def __init__(self, transport: asyncio.Transport, connection: ParsingConnection) -> None:
        super().__init__(transport)
        self._connection = connection

    def resume_reading(self) -> None:
        """Parse what is left, then read on."""
        self._connection.resume_parsing()

    def resume_transport(self) -> None:
        """Let the transport deliver more."""
        super().resume_reading()


class ResponseTransport:
    """Transport as a response sees it. Closing it may leave a request to be drained."""

    __slots__ = ("close", "is_closing", "write")

    def __init__(self, transport: asyncio.Transport, connection: ParsingConnection) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = connection.finish
