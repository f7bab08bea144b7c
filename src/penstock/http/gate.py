"""The gate: pure ASGI, in front of everything; what it refuses costs next to nothing.

It counts requests in flight (D4), names each one (``X-Request-Id``, ``traceparent``), holds the body
to its size and its time while it streams in (D8, T1), the response to its time (T2), and while the
server drains it answers 503. Nothing here ever waits in line: the answer is now, yes or no.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any, Final

import msgspec

from penstock.http.problem import headers_of, problem_of
from penstock.kernel.errors import Broken, Expired, Invalid, PenstockError, Rejected
from penstock.kernel.ids import new_id
from penstock.kernel.settings import HttpSettings
from penstock.telemetry.metrics import Metrics

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]

log = logging.getLogger(__name__)

#: Paths that answer even while the server is full or drains: they tell its state.
ALWAYS_OPEN: Final = frozenset({"/livez", "/readyz", "/healthz", "/metrics"})

_REQUEST_ID: Final = re.compile(rb"[\x21-\x7e]{1,128}")
#: W3C Trace Context §3.2.2; ids of zeros only and version ff are invalid.
_TRACEPARENT: Final = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")

#: A response goes out in pieces of this size. The server below waits for a slow reader only between
#: pieces: a response in one piece would lie in its buffer, whole and for as long as the reader likes.
PIECE_BYTES: Final = 65_536


class BodyTooLarge(Invalid):
    """The body is larger than the server takes."""

    code = "body_too_large"


class Gate:
    """ASGI middleware that admits or refuses.

    Args:
        app: What is behind the gate.
        settings: Its limits.
        metrics: Where refusals are counted.
    """

    def __init__(self, app: Asgi, settings: HttpSettings, metrics: Metrics) -> None:
        self._app = app
        self._settings = settings
        self._metrics = metrics
        self.in_flight = 0
        self.draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection's scope; only ``http`` is served."""
        if scope["type"] != "http":
            return
        request_id, traceparent = _identity(scope)
        scope["penstock.request_id"] = request_id.decode()
        scope["penstock.traceparent"] = traceparent.decode()
        refusal = self._refusal(scope)
        conversation = _Conversation(receive, send, scope, self._settings)
        if refusal is not None:
            self._metrics.refused.labels(refusal.code).inc()
            with contextlib.suppress(ConnectionAbortedError):
                await conversation.refuse(refusal)
            return
        self.in_flight += 1
        self._idle.clear()
        try:
            await self._run(scope, conversation)
        except ConnectionAbortedError:
            # A response that has begun stays incomplete, so the server below closes the connection.
            log.info("a client went away", extra={"request_id": scope["penstock.request_id"]})
        finally:
            self.in_flight -= 1
            if self.in_flight == 0:
                self._idle.set()

    async def drained(self, timeout_s: float) -> bool:
        """Wait until nothing is in flight; return whether that came true in time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def _refusal(self, scope: Scope) -> PenstockError | None:
        """Return why this request is refused, before anything of its body is read."""
        if scope["path"] in ALWAYS_OPEN:
            return None
        if self.draining:
            return Rejected("the server is shutting down", code="draining", retry_after_s=5)
        if self.in_flight >= self._settings.max_concurrent:
            return Rejected("too many requests are in flight", code="too_many_requests_in_flight")
        length = _header(scope, b"content-length")
        digits = length.lstrip(b"0")
        longest = str(self._settings.max_body).encode()
        if digits.isdigit() and (len(digits), digits) > (len(longest), longest):
            return _too_large(self._settings.max_body)
        return None

    async def _run(self, scope: Scope, conversation: _Conversation) -> None:
        """Let the application answer; turn what it raises into a problem."""
        try:
            await self._app(scope, conversation.receive, conversation.send)
        except PenstockError as error:
            await conversation.refuse(error)
        except ConnectionAbortedError:
            raise
        except Exception:
            log.exception("a request failed", extra={"request_id": scope["penstock.request_id"]})
            await conversation.refuse(Broken("an internal error happened; the log has the details"))


class _Conversation:
    """One request's messages, measured while they pass."""

    def __init__(self, receive: Receive, send: Send, scope: Scope, settings: HttpSettings) -> None:
        self._receive = receive
        self._send = send
        self._request_id: str = scope["penstock.request_id"]
        self._echo = [(b"x-request-id", self._request_id.encode())]
        if scope["penstock.traceparent"]:
            self._echo.append((b"traceparent", scope["penstock.traceparent"].encode()))
        self._settings = settings
        self._read_until_s: float | None = None
        self._write_until_s: float | None = None
        self._received = 0
        self._body_done = not _announces_body(scope)
        self._started = False

    async def receive(self) -> Message:
        """Pass the next message in, within the body's size and time (D8, T1).

        Raises:
            BodyTooLarge: More bytes came than allowed.
            Expired: The body did not arrive in time.
        """
        if self._body_done:
            return await self._receive()
        if self._read_until_s is None:
            loop = asyncio.get_running_loop()
            self._read_until_s = loop.time() + self._settings.read_timeout
        try:
            async with asyncio.timeout_at(self._read_until_s):
                message = await self._receive()
        except TimeoutError:
            late = Expired("read", "the request body did not arrive in time")
            late.code = "read_timeout"
            raise late from None
        self._received += len(message.get("body", b""))
        self._body_done = not message.get("more_body", False)
        if self._received > self._settings.max_body:
            raise _too_large(self._settings.max_body)
        return message

    async def send(self, message: Message) -> None:
        """Pass a message out, within the response's time (T2); a reader too slow is cut off."""
        if message["type"] == "http.response.start":
            self._started = True
            message = {**message, "headers": [*message.get("headers", ()), *self._echo]}
        if self._write_until_s is None:
            loop = asyncio.get_running_loop()
            self._write_until_s = loop.time() + self._settings.write_timeout
        try:
            async with asyncio.timeout_at(self._write_until_s):
                for piece in _pieces(message):
                    await self._send(piece)
        except TimeoutError:
            raise ConnectionAbortedError("the client did not read its response in time") from None

    async def refuse(self, error: PenstockError) -> None:
        """Answer with a problem, unless an answer has begun."""
        if self._started:
            return
        problem = problem_of(error, self._request_id)
        body = msgspec.json.encode(problem)
        length = (b"content-length", str(len(body)).encode())
        headers = [*headers_of(error, problem), length]
        if not self._body_done:
            # What is left of the body is not read; the connection cannot be used again.
            headers.append((b"connection", b"close"))
        start = {"type": "http.response.start", "status": problem.status, "headers": headers}
        await self.send(start)
        await self.send({"type": "http.response.body", "body": body})


def _pieces(message: Message) -> Iterator[Message]:
    """Yield a message in pieces; only a body is ever cut."""
    body = message.get("body", b"")
    for first in range(0, len(body) - PIECE_BYTES, PIECE_BYTES):
        yield {**message, "body": body[first : first + PIECE_BYTES], "more_body": True}
    if len(body) > PIECE_BYTES:
        message = {**message, "body": body[(len(body) - 1) // PIECE_BYTES * PIECE_BYTES :]}
    yield message


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"the request body is larger than {limit} bytes; send less at a time")


def _identity(scope: Scope) -> tuple[bytes, bytes]:
    """Return the request's id (the caller's, if usable) and its trace context."""
    request_id = _header(scope, b"x-request-id")
    if not _REQUEST_ID.fullmatch(request_id):
        request_id = new_id().encode()
    traceparent = _header(scope, b"traceparent")
    return request_id, traceparent if _TRACEPARENT.fullmatch(traceparent) else b""


def _announces_body(scope: Scope) -> bool:
    """Whether the request has a body to be read."""
    length = _header(scope, b"content-length")
    return bool(_header(scope, b"transfer-encoding")) or length not in (b"", b"0")


def _header(scope: Scope, name: bytes) -> bytes:
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return b""
