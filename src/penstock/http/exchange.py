"""Wraps one ASGI exchange: enforces body size and read/write timeouts, detects disconnects.

:meth:`Exchange.stop` ends a request early: it cancels the request's task, wherever that waits, and the gate answers
with the reason. Timeouts are queues with one timer each (:mod:`penstock.http.timeout_queue`), so a short request needs
neither a timer nor a task of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Final

from penstock.core.traffic import Traffic
from penstock.http.problem import ErrorFormat, PreparedRefusal
from penstock.http.request_context import RequestState, request_state
from penstock.http.timeout_queue import TimeoutQueue
from penstock.kernel.context import new_id
from penstock.kernel.errors import Expired, Invalid, Rejected
from penstock.kernel.settings import HttpSettings
from penstock.policies.jitter import Rng, jittered_retry_after_s
from penstock.policies.levels import Level

#: One of so many parts of the requests in flight may be unfinished bodies of one client (H3).
CLIENT_SHARE_DIVISOR: Final = 4


class SlowUploads(Rejected):
    """The client has too many unfinished bodies, and this one has been arriving for longest."""

    code = "slow_uploads"

    def __init__(self) -> None:
        detail = "too many of this client's bodies are unfinished and this is the slowest; send fewer at a time"
        super().__init__(detail, by_client=True)


class UploadTracker:
    """Unfinished bodies by client and by address.

    A key is not checked, so one attacker may use many. The address bounds those too.

    Bounds: one entry for each request in flight and each of its owners.
    """

    __slots__ = ("_by_owner", "_each_max")

    def __init__(self, in_flight_max: int) -> None:
        self._each_max = max(1, in_flight_max // CLIENT_SHARE_DIVISOR)
        self._by_owner: dict[str, dict[Exchange, None]] = {}

    def add(self, exchange: Exchange, owners: Iterable[str]) -> None:
        """Count a body, and stop the slowest of an owner who has too many."""
        for owner in owners:
            of_owner = self._by_owner.setdefault(owner, {})
            of_owner[exchange] = None
            if len(of_owner) > self._each_max:
                slowest = next(iter(of_owner))
                del of_owner[slowest]
                slowest.stop(SlowUploads())

    def discard(self, exchange: Exchange, owners: Iterable[str]) -> None:
        """Stop counting a body, since it is whole or its request has ended."""
        for owner in owners:
            of_owner = self._by_owner.get(owner)
            if of_owner is not None:
                of_owner.pop(exchange, None)
                if not of_owner:
                    del self._by_owner[owner]


Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

#: A response goes out in pieces of this size. The server below waits for a slow reader only between
#: pieces: a response in one piece would lie in its buffer, whole and for as long as the reader likes.
PIECE_BYTES: Final = 65_536

#: An unread body that is announced as no longer than this is left to the server below, which drops
#: it. For a longer one the connection is closed. A new connection costs more than a refusal.
UNREAD_BYTES_MAX: Final = 65_536

#: Seconds until the connection of a running request is watched for a disconnect. Most responses are sent sooner.
DISCONNECT_WATCH_DELAY_S: Final = 0.05

#: Statuses that tell when to try again.
RETRY_AFTER_STATUSES: Final = frozenset({429, 503})

#: A body's length that is not declared, or not a number.
UNKNOWN_LENGTH: Final = -1
LENGTH_DIGITS_MAX: Final = 19

#: A connection that is torn down is gone after this long, whatever happens.
ABORT_TIMEOUT_S: Final = 1.0

_CLOSE: Final = (b"connection", b"close")


class ReadTimeout(Expired):
    """The body did not arrive in time (T1)."""

    code = "read_timeout"

    def __init__(self) -> None:
        super().__init__("read", "the request body did not arrive in time")


class ClientDisconnected(ConnectionAbortedError):
    """The caller hung up."""


class SlowReader(ConnectionAbortedError):
    """The caller did not read its response in time (T2)."""

    def __init__(self) -> None:
        super().__init__("the client did not read its response in time")


@dataclass(slots=True)
class GateState:
    """State shared by all exchanges of a gate.

    Attributes:
        settings: The gate's limits.
        memory_level: How full the memory is.
        rng: Draws for the jitter.
        traffic: Requests in flight, their outcomes, and whether the server drains.
        reading: Exchanges whose body is awaited (T1).
        uploads: Unfinished bodies by client (H3).
        writing: Exchanges whose response is being sent (T2).
        unwatched: Running exchanges whose connection is not watched for a disconnect yet.
    """

    settings: HttpSettings
    memory_level: Callable[[], Level]
    rng: Rng
    traffic: Traffic
    reading: TimeoutQueue[Exchange] = field(init=False)
    uploads: UploadTracker = field(init=False)
    writing: TimeoutQueue[Exchange] = field(init=False)
    unwatched: TimeoutQueue[Exchange] = field(init=False)

    def __post_init__(self) -> None:
        self.reading = TimeoutQueue(self.settings.read_timeout, lambda one: one.stop(ReadTimeout()))
        self.uploads = UploadTracker(self.settings.max_concurrent)
        self.writing = TimeoutQueue(self.settings.write_timeout, lambda one: one.stop(SlowReader()))
        self.unwatched = TimeoutQueue(DISCONNECT_WATCH_DELAY_S, Exchange.watch_for_disconnect)

    def check_body_size(self, received: int) -> None:
        """Refuse a body that has grown too large (D8), or is large while memory is short (D6).

        Raises:
            Invalid: It is over the limit (``body_too_large``).
            Rejected: It is over ``large_request``.
        """
        if received > self.settings.max_body:
            raise body_too_large_error(self.settings.max_body)
        if received > self.settings.large_request and self.memory_level() is Level.CRITICAL:
            raise memory_short_error()


@dataclass(slots=True)
class RequestHead:
    """Head of a request as the gate has read it, before the body.

    Attributes:
        request_id: The caller's id if it is usable, else a generated one. Visible ASCII.
        headers: The request's headers, one value for each name.
        response_headers: Headers of every response to it.
        upload_owners: Owners that its body counts for while it arrives: the client, and its address if that differs.
    """

    request_id: bytes
    headers: Mapping[bytes, bytes]
    response_headers: Headers
    upload_owners: tuple[str, ...] = ()

    def content_length(self) -> int:
        """Return the body's announced length, 0 for no body, ``UNKNOWN_LENGTH`` if it is not declared."""
        if b"transfer-encoding" in self.headers:
            return UNKNOWN_LENGTH
        length = self.headers.get(b"content-length", b"0")
        # Python refuses to parse thousands of digits, and a body of that size is refused anyway.
        return int(length.lstrip(b"0")[:LENGTH_DIGITS_MAX] or b"0") if length.isdigit() else UNKNOWN_LENGTH


class Exchange:
    """A request and its response, passing through the gate.

    Attributes:
        counts_for: The client for which it counts as in flight, once it is admitted; empty for none.
        response_ended: Whether the last of the response is on its way.
        status: Status of the response, 0 before it begins.
        stop_reason: Why the request was stopped, if it was.
    """

    __slots__ = (
        "_body_consumed",
        "_body_unread",
        "_head",
        "_reading",
        "_receive",
        "_received",
        "_scope",
        "_send",
        "_state",
        "_stopped",
        "_task",
        "_watcher",
        "counts_for",
        "response_ended",
        "status",
        "stop_reason",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send, head: RequestHead, state: GateState) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._head = head
        self._state = state
        self._task = asyncio.current_task()
        self._watcher: asyncio.Task[None] | None = None
        self._body_unread = head.content_length() != 0
        self._body_consumed = False
        self._reading = False
        self._stopped = False
        self._received = 0
        self.counts_for = ""
        self.response_ended = False
        self.status = 0
        self.stop_reason: Exception | None = None

    @property
    def headers(self) -> Mapping[bytes, bytes]:
        """The request's headers, one value for each name."""
        return self._head.headers

    @property
    def state(self) -> RequestState:
        """The request's state."""
        return request_state(self._scope)

    async def receive(self) -> Message:
        """Pass the next message in, within the body's size and time (D6, D8, T1).

        Raises:
            Invalid: More bytes came than allowed (``body_too_large``).
            Rejected: Memory is short and the body is large.
        """
        if self._body_consumed:
            return await self._receive_disconnect()
        if self._body_unread and not self._reading:
            self._reading = True
            self._state.reading.add(self)
            self._state.uploads.add(self, self._head.upload_owners)
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._end_reading()
            return message
        self._received += len(message.get("body", b""))
        if not message.get("more_body", False):
            self._end_reading()
            self._body_unread, self._body_consumed = False, True
            self._state.unwatched.add(self)
        self._state.check_body_size(self._received)
        return message

    def _end_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._state.reading.discard(self)
            self._state.uploads.discard(self, self._head.upload_owners)

    async def _receive_disconnect(self) -> Message:
        """Wait for the disconnect on the application's behalf. An application that waits here needs no watcher."""
        self._state.unwatched.discard(self)
        if self._watcher is None:
            return await self._receive()
        await asyncio.wait({self._watcher})
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Pass a message out, within the response's time (T2).

        Raises:
            ConnectionAbortedError: The request was stopped before.
        """
        if self.stop_reason is not None:
            raise ConnectionAbortedError("the request was stopped") from self.stop_reason
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [*message.get("headers", ()), *self._head.response_headers]
            if self._state.traffic.draining and _CLOSE not in headers:
                headers.append(_CLOSE)
            message = {**message, "headers": headers}
            self._state.writing.add(self)
        elif not message.get("more_body", False):
            # After the last piece the server reports a disconnect although the client has not hung up.
            self.response_ended = True
        elif request_state(self._scope).streams:
            self._state.writing.discard(self)
            self._state.writing.add(self)
        if len(message.get("body", b"")) <= PIECE_BYTES:
            await self._send(message)
            return
        for piece in _pieces(message):
            await self._send(piece)

    async def refuse(self, refusal: PreparedRefusal, retry_after_s: float, error_format: ErrorFormat) -> None:
        """Answer with an error, unless an answer has begun.

        Args:
            refusal: The error to send.
            retry_after_s: Seconds until a retry makes sense. Sent with jitter where the status has ``Retry-After``.
            error_format: Form of the route's errors.
        """
        if self.status:
            return
        seconds = 0
        if refusal.status in RETRY_AFTER_STATUSES:
            wait_s = min(retry_after_s, error_format.retry_after_s_max)
            seconds = jittered_retry_after_s(wait_s, self._state.rng())
        status, body, headers = refusal.render(self._head.request_id, seconds, error_format)
        if self._body_unread and (self._stopped or not self._can_keep_connection()):
            headers.append(_CLOSE)
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})

    def _can_keep_connection(self) -> bool:
        """Return whether the connection can stay open: the unread rest of the body is short and will arrive.

        A client that waits for ``100 Continue`` may never send its body.
        """
        small = 0 <= self._head.content_length() <= UNREAD_BYTES_MAX
        return small and b"expect" not in self._head.headers

    def watch_for_disconnect(self) -> None:
        """Watch for a disconnect of the client from now on. The body must have been read whole."""
        if not self.response_ended and self.stop_reason is None:
            self._watcher = asyncio.create_task(self._await_disconnect(), name="caller")

    async def _await_disconnect(self) -> None:
        message = await self._receive()
        while message["type"] != "http.disconnect":
            message = await self._receive()
        self.stop(ClientDisconnected("the caller hung up"))

    def stop(self, reason: Exception) -> None:
        """End this request early, wherever it waits. The gate then answers with the reason, or sends nothing."""
        if (
            self.stop_reason is None
            and not (self.response_ended and isinstance(reason, ClientDisconnected))
            and self._task is not None
        ):
            self.stop_reason = reason
            self._stopped = True
            self._task.cancel()

    def take_stop_reason(self) -> Exception | None:
        """Return why the request was stopped, and take back the cancellation of its task.

        If the task was cancelled from outside as well, that cancellation stands and the result is ``None``.
        """
        verdict, self.stop_reason = self.stop_reason, None
        if verdict is None or self._task is None or self._task.uncancel() > 0:
            return None
        return verdict

    async def abort_connection(self) -> None:
        """Tear the connection down, unsent bytes and all, if the server below supports it.

        A plain close waits until all is sent, which never happens with a client that does not read.
        """
        abort = self._scope.get("penstock.abort")
        if abort is None:
            return
        abort()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ABORT_TIMEOUT_S):
                while (await self._receive())["type"] != "http.disconnect":
                    pass

    def close(self) -> None:
        """Leave every timeout queue, and stop watching the connection."""
        terms = self._state
        self._end_reading()
        terms.writing.discard(self)
        terms.unwatched.discard(self)
        if self._watcher is not None:
            self._watcher.cancel()


def body_too_large_error(limit: int) -> Invalid:
    """Return the error for a body over the limit."""
    return Invalid(f"the request body is larger than {limit} bytes; send less at a time", code="body_too_large")


def memory_short_error() -> Rejected:
    """Return the error for a large body while memory is short."""
    return Rejected("the server is short of memory; send less at a time", code="memory_short")


def _pieces(message: Message) -> Iterator[Message]:
    """Yield a message in pieces; only a body is ever cut."""
    body = message.get("body", b"")
    for first in range(0, len(body) - PIECE_BYTES, PIECE_BYTES):
        yield {**message, "body": body[first : first + PIECE_BYTES], "more_body": True}
    if len(body) > PIECE_BYTES:
        message = {**message, "body": body[(len(body) - 1) // PIECE_BYTES * PIECE_BYTES :]}
    yield message


_REQUEST_ID: Final = re.compile(rb"[\x21-\x7e]{1,128}")
#: W3C Trace Context §3.2.2; ids of zeros only and version ff are invalid.
_TRACEPARENT: Final = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def read_head(scope: Scope) -> tuple[RequestHead, str]:
    """Return a request's head, and its trace context, which is empty for none."""
    headers: dict[bytes, bytes] = dict(scope["headers"])
    request_id = headers.get(b"x-request-id")
    if request_id is None or not _REQUEST_ID.fullmatch(request_id):
        request_id = new_id().encode()
    echo = [(b"x-request-id", request_id)]
    traceparent = headers.get(b"traceparent")
    if traceparent is None or not _TRACEPARENT.fullmatch(traceparent):
        return RequestHead(request_id, headers, echo), ""
    echo.append((b"traceparent", traceparent))
    return RequestHead(request_id, headers, echo), traceparent.decode()
