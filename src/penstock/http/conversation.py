"""One request's messages, measured while they pass: size and time of the body, time of the response, who is there.

A request ends early by :meth:`Conversation.stop`: its task is cancelled, wherever it waits, and the
gate says why. So nothing here needs a timer or a task for each request; lines do
(:mod:`penstock.http.line`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Final

from penstock.http.line import Line
from penstock.http.refusal import Refusal
from penstock.http.tally import Tally
from penstock.http.uploads import Uploads
from penstock.kernel.errors import Expired, Invalid, Rejected
from penstock.kernel.settings import HttpSettings
from penstock.policies.jitter import Random, retry_after
from penstock.policies.levels import Level

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

#: A response goes out in pieces of this size. The server below waits for a slow reader only between
#: pieces: a response in one piece would lie in its buffer, whole and for as long as the reader likes.
PIECE_BYTES: Final = 65_536

#: An unread body that is announced as no longer than this is left to the server below, which drops
#: it; for a longer one the connection is closed. Connecting anew costs more than a refusal.
UNREAD_BYTES_MAX: Final = 65_536

#: Whether the caller is still there is watched from here on: most answers are out before.
WATCHED_AFTER_S: Final = 0.05

#: Statuses that tell when to try again.
RETRY_AFTER: Final = frozenset({429, 503})

#: A body's length that is not told, or not in a number.
UNTOLD: Final = -1
DIGITS_MAX: Final = 19

#: A connection that is torn down is gone after this long, whatever happens.
ABORT_S: Final = 1.0

_CLOSE: Final = (b"connection", b"close")


class BodyTooLarge(Invalid):
    """The body is larger than the server takes."""

    code = "body_too_large"


class ReadTimeout(Expired):
    """The body did not arrive in time (T1)."""

    code = "read_timeout"

    def __init__(self) -> None:
        super().__init__("read", "the request body did not arrive in time")


class Gone(ConnectionAbortedError):
    """The caller hung up."""


class CutOff(ConnectionAbortedError):
    """The caller did not read its response in time (T2)."""


@dataclass(slots=True)
class Terms:
    """What all conversations of a gate share.

    Attributes:
        settings: The gate's limits.
        memory: How full the memory is.
        luck: Draws for the jitter.
        tally: Where they are counted.
        draining: Whether the server is about to end.
        reading: Those whose body is awaited (T1).
        uploads: The same, by client (H3).
        writing: Those whose response is going out (T2).
        unwatched: Those at work, whose callers are not watched yet.
    """

    settings: HttpSettings
    memory: Callable[[], Level]
    luck: Random
    tally: Tally = field(default_factory=Tally)
    draining: bool = False
    reading: Line[Conversation] = field(init=False)
    uploads: Uploads = field(init=False)
    writing: Line[Conversation] = field(init=False)
    unwatched: Line[Conversation] = field(init=False)

    def __post_init__(self) -> None:
        self.reading = Line(self.settings.read_timeout, _too_slow_to_send)
        self.uploads = Uploads(self.settings.max_concurrent)
        self.writing = Line(self.settings.write_timeout, _too_slow_to_read)
        self.unwatched = Line(WATCHED_AFTER_S, Conversation.watch)

    def weigh(self, received: int) -> None:
        """Refuse a body that has grown too large (D8), or is large while memory is short (D6).

        Raises:
            BodyTooLarge: It is over the limit.
            Rejected: It is over ``large_request``.
        """
        if received > self.settings.max_body:
            raise too_large(self.settings.max_body)
        if received > self.settings.large_request and self.memory() is Level.CRITICAL:
            raise memory_short()


@dataclass(slots=True)
class Arrival:
    """What the gate knows of a request before anything of its body is read.

    Attributes:
        request_id: The caller's, if usable, else ours; visible ASCII.
        headers: The request's; of those sent twice, one.
        echo: Headers of every response to it.
        owners: Whom its body is counted for while it arrives: the client, and its address if that is another.
    """

    request_id: bytes
    headers: Mapping[bytes, bytes]
    echo: Headers
    owners: tuple[str, ...] = ()

    def body_bytes(self) -> int:
        """Return the body's announced length, 0 for no body, ``UNTOLD`` if it is not told."""
        if b"transfer-encoding" in self.headers:
            return UNTOLD
        length = self.headers.get(b"content-length", b"0")
        # Python refuses to read thousands of digits; and nobody may send us so much anyway.
        return int(length.lstrip(b"0")[:DIGITS_MAX] or b"0") if length.isdigit() else UNTOLD


class Conversation:
    """One request and its response.

    Args:
        scope: The request's.
        receive: The server's.
        send: The server's.
        arrival: What its head said.
        terms: What all conversations share.

    Attributes:
        ended: Whether the last of the response is on its way.
        status: Of the response, 0 before it begins.
        verdict: Why the request was stopped, if it was.
    """

    __slots__ = (
        "_arrival",
        "_reading",
        "_receive",
        "_received",
        "_scope",
        "_send",
        "_stopped",
        "_taken",
        "_task",
        "_terms",
        "_unread",
        "_watcher",
        "ended",
        "status",
        "verdict",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send, arrival: Arrival, terms: Terms) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._arrival = arrival
        self._terms = terms
        self._task = asyncio.current_task()
        self._watcher: asyncio.Task[None] | None = None
        self._unread = arrival.body_bytes() != 0
        self._taken = False
        self._reading = False
        self._stopped = False
        self._received = 0
        self.ended = False
        self.status = 0
        self.verdict: Exception | None = None

    @property
    def headers(self) -> Mapping[bytes, bytes]:
        """The request's headers; of those sent twice, one."""
        return self._arrival.headers

    async def receive(self) -> Message:
        """Pass the next message in, within the body's size and time (D6, D8, T1).

        Raises:
            BodyTooLarge: More bytes came than allowed.
            Rejected: Memory is short and the body is large.
        """
        if self._taken:
            return await self._hang_up()
        if self._unread and not self._reading:
            self._reading = True
            self._terms.reading.join(self)
            self._terms.uploads.begin(self, self._arrival.owners)
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._read()
            return message
        self._received += len(message.get("body", b""))
        if not message.get("more_body", False):
            self._read()
            self._unread, self._taken = False, True
            self._terms.unwatched.join(self)
        self._terms.weigh(self._received)
        return message

    def _read(self) -> None:
        """Await the body no more."""
        if self._reading:
            self._reading = False
            self._terms.reading.leave(self)
            self._terms.uploads.end(self, self._arrival.owners)

    async def _hang_up(self) -> Message:
        """Wait with the application for the caller to go; whoever listens needs no watcher."""
        self._terms.unwatched.leave(self)
        if self._watcher is None:
            return await self._receive()
        await asyncio.wait({self._watcher})
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Pass a message out, within the response's time (T2).

        Raises:
            ConnectionAbortedError: The request was stopped before.
        """
        if self.verdict is not None:
            raise ConnectionAbortedError("the request was stopped") from self.verdict
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [*message.get("headers", ()), *self._arrival.echo]
            if self._terms.draining and _CLOSE not in headers:
                headers.append(_CLOSE)
            message = {**message, "headers": headers}
            self._terms.writing.join(self)
        elif not message.get("more_body", False):
            # From the last piece on, the server says "disconnect" although nobody has hung up.
            self.ended = True
        if len(message.get("body", b"")) <= PIECE_BYTES:
            await self._send(message)
            return
        for piece in _pieces(message):
            await self._send(piece)

    async def refuse(self, refusal: Refusal, wait_s: float) -> None:
        """Answer with a problem, unless an answer has begun.

        Args:
            refusal: What to say.
            wait_s: When another try makes sense; told with jitter where the status has ``Retry-After``.
        """
        if self.status:
            return
        seconds = retry_after(wait_s, self._terms.luck()) if refusal.status in RETRY_AFTER else 0
        body, headers = refusal.parts(self._arrival.request_id, seconds)
        if self._unread and (self._stopped or not self._left_to_the_server()):
            headers.append(_CLOSE)
        await self.send({"type": "http.response.start", "status": refusal.status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})

    def _left_to_the_server(self) -> bool:
        """Whether the unread rest of the body will come and is short: then the connection can stay.

        A caller who was told to wait for ``100 Continue`` may never send it.
        """
        small = 0 <= self._arrival.body_bytes() <= UNREAD_BYTES_MAX
        return small and b"expect" not in self._arrival.headers

    def watch(self) -> None:
        """See from now on whether the caller is still there; not before the body is whole."""
        if not self.ended and self.verdict is None:
            self._watcher = asyncio.create_task(self._watch(), name="caller")

    async def _watch(self) -> None:
        message = await self._receive()
        while message["type"] != "http.disconnect":
            message = await self._receive()
        self.stop(Gone("the caller hung up"))

    def stop(self, verdict: Exception) -> None:
        """End this request early, wherever it waits; the gate answers with the verdict or goes quietly."""
        if self.verdict is None and not (self.ended and isinstance(verdict, Gone)) and self._task is not None:
            self.verdict = verdict
            self._stopped = True
            self._task.cancel()

    def stopped(self) -> Exception | None:
        """Return why it was stopped, and take back the cancellation that did it.

        Another cancellation beside it stands: then there is no verdict.
        """
        verdict, self.verdict = self.verdict, None
        if verdict is None or self._task is None or self._task.uncancel() > 0:
            return None
        return verdict

    async def abandon(self) -> None:
        """Tear the connection down, unsent bytes and all, if the server below lets us.

        Left to itself it would close when all is sent, which is never for one who does not read.
        """
        abort = self._scope.get("penstock.abort")
        if abort is None:
            return
        abort()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ABORT_S):
                while (await self._receive())["type"] != "http.disconnect":
                    pass

    def close(self) -> None:
        """Leave every line."""
        terms = self._terms
        self._read()
        terms.writing.leave(self)
        terms.unwatched.leave(self)
        if self._watcher is not None:
            self._watcher.cancel()


def too_large(limit: int) -> BodyTooLarge:
    """Return the error for a body over the limit."""
    return BodyTooLarge(f"the request body is larger than {limit} bytes; send less at a time")


def memory_short() -> Rejected:
    """Return the error for a large body while memory is short."""
    return Rejected("the server is short of memory; send less at a time", code="memory_short")


def _too_slow_to_send(conversation: Conversation) -> None:
    conversation.stop(ReadTimeout())


def _too_slow_to_read(conversation: Conversation) -> None:
    conversation.stop(CutOff("the client did not read its response in time"))


def _pieces(message: Message) -> Iterator[Message]:
    """Yield a message in pieces; only a body is ever cut."""
    body = message.get("body", b"")
    for first in range(0, len(body) - PIECE_BYTES, PIECE_BYTES):
        yield {**message, "body": body[first : first + PIECE_BYTES], "more_body": True}
    if len(body) > PIECE_BYTES:
        message = {**message, "body": body[(len(body) - 1) // PIECE_BYTES * PIECE_BYTES :]}
    yield message
