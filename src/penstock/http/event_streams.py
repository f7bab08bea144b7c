"""Streams of server-sent events: the response, and how many are open at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from typing import Any, Final

from starlette.responses import Response

from penstock.http.request_context import request_state
from penstock.kernel.errors import Rejected

EVENT_STREAM: Final = "text/event-stream"
#: Streams of a kind at once in all, and for one client. Each is a request in flight.
STREAMS_MAX: Final = 100
CLIENT_STREAMS_MAX: Final = 10
#: A stream ends after so long. Its client comes back, after the milliseconds that ``retry`` says.
STREAM_S_MAX: Final = 600.0
RECONNECT_MS: Final = 2000
#: A stream without news sends a comment so often: proxies close silent connections.
KEEPALIVE_S: Final = 10.0

#: The beginning of each stream, and what it sends when there is nothing new.
FIRST: Final = b"retry: %d\n\n" % RECONNECT_MS
NOTHING_NEW: Final = b": nothing new\n\n"


class OpenStreams:
    """Streams of one kind that are open now.

    Args:
        most: Streams at once.

    Bounds: ``most`` streams, ``CLIENT_STREAMS_MAX`` for each client.
    """

    def __init__(self, most: int = STREAMS_MAX) -> None:
        self._most = most
        self._by_client: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._by_client.total()

    def __repr__(self) -> str:
        return f"<OpenStreams {len(self)}/{self._most} of {len(self._by_client)} clients>"

    def check(self, client: str) -> None:
        """Refuse a client one more stream where there are too many.

        Raises:
            Rejected: There are.
        """
        own = self._by_client[client] >= CLIENT_STREAMS_MAX
        if own or len(self) >= self._most:
            raise Rejected("too many streams are open; close one, or ask again later", by_client=own)

    @contextmanager
    def opened(self, client: str) -> Iterator[None]:
        """Count a stream while it is open."""
        self._by_client[client] += 1
        try:
            yield
        finally:
            self._by_client[client] -= 1
            if not self._by_client[client]:
                del self._by_client[client]


class EventStream(Response):
    """Response of server-sent events, each sent when the one before has been taken off.

    Args:
        events: The events, as bytes.
        streams: The streams among which it is counted from its first byte to its end.
    """

    def __init__(self, events: AsyncGenerator[bytes, None], streams: OpenStreams) -> None:
        # A proxy that collects an answer before it passes it on would hold the events back.
        super().__init__(media_type=EVENT_STREAM, headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._events = events
        self._streams = streams

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG002 - the gate sees a hang-up
        """Send the events until they end."""
        state = request_state(scope)
        state.streams = True
        with self._streams.opened(state.client):
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            if scope["method"] != "HEAD":
                async with aclosing(self._events) as events:
                    async for event in events:
                        await send({"type": "http.response.body", "body": event, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
