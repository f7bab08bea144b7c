"""The gate: pure ASGI, in front of everything; what it refuses costs next to nothing.

It says who the caller is and holds each to its rate (D7), counts requests in flight (D4), looks at
the topic a route leads to (D2) and at memory (D6), names each request (``X-Request-Id``,
``traceparent``), holds bodies and responses to their size and time (D8, T1, T2), stops the work of a
caller who hangs up, and while the server drains it answers 503. Nothing here ever waits in line: the
answer is now, yes or no. Only probes of an address that asks without pause are slowed down.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from penstock.bus import contract as bus
from penstock.http.caller import Callers
from penstock.http.conversation import (
    PIECE_BYTES,
    RETRY_AFTER,
    Arrival,
    Asgi,
    BodyTooLarge,
    Conversation,
    CutOff,
    Headers,
    Message,
    Receive,
    Scope,
    Send,
    Terms,
    memory_short,
    too_large,
)
from penstock.http.head import Head, head_of
from penstock.http.origins import PREFLIGHT, Origins
from penstock.http.probes import ProbePace
from penstock.http.refusal import Refusal
from penstock.http.tally import Tally
from penstock.http.uploads import SlowUploads
from penstock.kernel.errors import Broken, PenstockError, Rejected
from penstock.kernel.ids import new_id
from penstock.kernel.settings import HttpSettings
from penstock.policies.bucket import Decision, Limiter, RateLimiter, RateSettings
from penstock.policies.jitter import Random
from penstock.policies.levels import Level
from penstock.telemetry.metrics import Metrics, Reading, single

__all__ = [
    "ALWAYS_OPEN",
    "PIECE_BYTES",
    "Asgi",
    "BodyTooLarge",
    "Gate",
    "Message",
    "Receive",
    "Scope",
    "Send",
    "Senses",
]

log = logging.getLogger(__name__)

#: Paths that answer even while the server is full or drains: they tell its state.
ALWAYS_OPEN: Final = frozenset({"/livez", "/readyz", "/healthz", "/metrics", "/v1/status", "/v1/alerts"})

#: Those that run when the drain's time is over get their refusal within this time.
GIVE_UP_S: Final = 1.0

#: A body that takes longer is slow: when the server is full, or about to end, its request gives up its place.
SLOW_BODY_S: Final = 1.0

_REQUEST_ID: Final = re.compile(rb"[\x21-\x7e]{1,128}")
#: W3C Trace Context §3.2.2; ids of zeros only and version ff are invalid.
_TRACEPARENT: Final = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(frozen=True, slots=True)
class Senses:
    """What the gate sees of the house behind it. Each is asked for every request, so each must be O(1).

    Attributes:
        pressure: Why the topic that a request leads to takes no more of it (D2), by method, path and what its
            head says; ``None`` while it does.
        memory: How full the memory is.
        luck: Draws for the jitter of ``Retry-After``.
    """

    pressure: Callable[[str, str, Head], bus.Refusal | None] = lambda *_: None
    memory: Callable[[], Level] = lambda: Level.CALM
    luck: Random = random.random


class Gate:
    """ASGI middleware that admits or refuses.

    Args:
        app: What is behind the gate.
        settings: Its limits.
        metrics: Where refusals are counted.
        senses: What it sees of the rooms below.
        limiter: Holds clients to their rate; one of its own by default.
        listens: Names and addresses that the server was told to listen on; it answers for them.

    Bounds: ``max_concurrent`` requests; what :class:`RateLimiter` and :class:`Callers` remember.

    Attributes:
        tally: What it counts beside refusals.

    Raises:
        Invalid: ``trusted_proxies``, ``allowed_hosts`` or ``cors_origins`` cannot be read.
    """

    def __init__(
        self,
        app: Asgi,
        settings: HttpSettings,
        metrics: Metrics,
        senses: Senses | None = None,
        limiter: Limiter | None = None,
        listens: Iterable[str] = (),
    ) -> None:
        self._app = app
        self._settings = settings
        self._metrics = metrics
        self._senses = senses or Senses()
        self._terms = Terms(settings, self._senses.memory, self._senses.luck)
        self.tally: Tally = self._terms.tally
        self._callers = Callers(settings.trusted_proxies)
        self._origins = Origins(settings.allowed_hosts, settings.cors_origins, listens)
        self._limiter: Limiter = limiter or RateLimiter(RateSettings(settings.rate_limit, settings.rate_burst))
        self._policy = b'"default";q=%d;w=%d' % (self._limiter.quota, self._limiter.window_s)
        self._refusals = _Refusals(settings)
        self._probes = ProbePace()
        self._running: set[Conversation] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    def __repr__(self) -> str:
        state = ", draining" if self.draining else ""
        return f"<Gate {self.in_flight}/{self._settings.max_concurrent} in flight, {self._limiter!r}{state}>"

    @property
    def in_flight(self) -> int:
        """Requests admitted and not answered yet."""
        return len(self._running)

    @property
    def draining(self) -> bool:
        """Whether new requests are refused and every response closes its connection."""
        return self._terms.draining

    @draining.setter
    def draining(self, draining: bool) -> None:
        self._terms.draining = draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection's scope; only ``http`` is served.

        Cancellation: From outside: nothing is answered, the request is not in flight any more.
        """
        if scope["type"] != "http":
            return
        now_s = asyncio.get_running_loop().time()
        arrival = _arrival(scope, now_s)
        scope["penstock.client"] = client = self._callers.name(scope, arrival.headers)
        refusal, wait_s = self._admit(scope, arrival, client, now_s)
        if refusal is None and wait_s:
            await asyncio.sleep(wait_s)
        conversation = Conversation(scope, receive, send, arrival, self._terms)
        if refusal is None:
            self._running.add(conversation)
            self._idle.clear()
            self.tally.in_flight.observe(len(self._running), now_s)
        else:
            self._metrics.refused.labels(refusal.error.code).inc()
        try:
            if refusal is None:
                refusal, wait_s = await self._run(scope, conversation)
                if refusal is not None and refusal.status in RETRY_AFTER:
                    self._metrics.refused.labels(refusal.error.code).inc()
            if refusal is not None:
                await conversation.refuse(refusal, wait_s)
            self._count(scope, conversation)
        except asyncio.CancelledError:
            verdict = conversation.stopped()
            if verdict is None:
                raise
            await self._part(scope, conversation, verdict)
        except ConnectionAbortedError as parted:
            await self._part(scope, conversation, parted)
        finally:
            self._leave(conversation)

    def in_flight_lately(self) -> int:
        """Return the most requests in flight of about the last 15 seconds."""
        return max(self.in_flight, int(self.tally.in_flight.read(asyncio.get_running_loop().time())))

    async def drained(self, timeout_s: float) -> bool:
        """Wait until nothing is in flight; return whether that came true in time.

        What runs longer, or has not arrived after ``SLOW_BODY_S``, is stopped and answered 503 ``draining``.
        """
        arriving_s = min(SLOW_BODY_S, timeout_s)
        if await self._empty(arriving_s):
            return True
        late = list(self._terms.reading)
        for conversation in late:
            conversation.stop(self._refusals.draining.error)
        if await self._empty(timeout_s - arriving_s):
            return not late
        for conversation in list(self._running):
            conversation.stop(self._refusals.draining.error)
        await self._empty(GIVE_UP_S)
        return False

    def readings(self) -> list[Reading]:
        """Return what the gate counts beside refusals (M4, M6)."""
        tally = self.tally
        return [
            single("http_concurrent_requests", lambda: self.in_flight),
            single("http_concurrent_requests_max", self.in_flight_lately),
            ("http_answers_total", lambda: [(("true",), tally.in_time), (("false",), tally.too_late)]),
            ("http_parted_total", lambda: [(("client_gone",), tally.client_gone), (("cut_off",), tally.cut_off)]),
            single("http_rate_clients", lambda: len(self._limiter)),
        ]

    def _admit(self, scope: Scope, arrival: Arrival, client: str, now_s: float) -> tuple[Refusal | None, float]:
        """Return why this request is refused, before anything of its body is read, and when to come back or go on."""
        foreign = self._origins.refusal(scope, arrival.headers)
        if foreign is not None:
            return foreign, 0.0
        if self._origins.shared:
            arrival.echo += self._origins.response_headers(arrival.headers)
        if scope["path"] in ALWAYS_OPEN:
            # They wait before they are in flight, and take nobody's place.
            return None, self._probes.delay_s(self._callers.address(scope, arrival.headers), now_s)
        if self._limiter.enabled:
            decision = self._limiter.decide(client, now_s)
            arrival.echo += self._standing(decision)
            if not decision.allowed:
                return self._refusals.rate, decision.retry_after_s
        if self._terms.draining:
            return self._refusals.draining, DRAIN_S
        return self._too_much(scope, arrival, client, now_s)

    def _too_much(self, scope: Scope, arrival: Arrival, client: str, now_s: float) -> tuple[Refusal | None, float]:
        """Return what there is too much of for this request, the cheapest to find out first."""
        settings, body_bytes = self._settings, arrival.body_bytes()
        if len(self._running) >= settings.max_concurrent:
            self._free_a_place(now_s)
            return self._refusals.full, SOON_S
        if body_bytes > settings.max_body:
            return self._refusals.too_large, 0.0
        if body_bytes > settings.large_request and self._senses.memory() is Level.CRITICAL:
            return self._refusals.memory, SOON_S
        head = head_of(arrival.headers, client, now_s)
        pressed = self._senses.pressure(scope["method"], scope["path"], head)
        if pressed is None:
            if body_bytes:
                address = self._callers.address(scope, arrival.headers)
                arrival.owners = (client,) if address == client else (client, address)
            return None, 0.0
        return self._refusals.of_topic[pressed.code], pressed.retry_after_s

    def _free_a_place(self, now_s: float) -> None:
        """Stop the request whose body has been arriving for longest, if that is long: others could use its place."""
        slowest = self._terms.reading.first()
        if slowest is not None and self._terms.reading.waited_s(slowest, now_s) > SLOW_BODY_S:
            slowest.stop(SlowUploads())

    def _leave(self, conversation: Conversation) -> None:
        """Count a request as in flight no more."""
        conversation.close()
        self._running.discard(conversation)
        if not self._running:
            self._idle.set()

    def _standing(self, decision: Decision) -> Headers:
        """Return what a client is told of its rate (draft-ietf-httpapi-ratelimit-headers-10)."""
        level = b'"default";r=%d;t=%d' % (decision.remaining, math.ceil(decision.reset_s))
        return [(b"ratelimit-policy", self._policy), (b"ratelimit", level)]

    async def _run(self, scope: Scope, conversation: Conversation) -> tuple[Refusal | None, float]:
        """Let the application answer; return what it raised, as a refusal."""
        try:
            if self._origins.is_preflight(scope, conversation.headers):
                await conversation.send({"type": "http.response.start", "status": 204, "headers": PREFLIGHT})
                await conversation.send({"type": "http.response.body", "body": b""})
            else:
                await self._app(scope, conversation.receive, conversation.send)
        except PenstockError as error:
            return _refusal_of(error)
        except ConnectionAbortedError:
            raise
        except asyncio.CancelledError:
            verdict = conversation.stopped()
            if verdict is None:
                raise
            if isinstance(verdict, PenstockError):
                return _refusal_of(verdict)
            raise verdict from None
        except Exception:
            log.exception("a request failed", extra={"request_id": scope["penstock.request_id"]})
            return _refusal_of(Broken("an internal error happened; the log has the details"))
        return None, 0.0

    def _count(self, scope: Scope, conversation: Conversation) -> None:
        """Count an answer that is out."""
        if conversation.ended and scope["path"] not in ALWAYS_OPEN:
            late = asyncio.get_running_loop().time() > scope.get("penstock.deadline_s", math.inf)
            self.tally.answered(conversation.status, in_time=not late)

    async def _part(self, scope: Scope, conversation: Conversation, verdict: Exception) -> None:
        """Go without an answer. One that has begun stays incomplete, so the server closes the connection."""
        facts = {"request_id": scope["penstock.request_id"], "why": str(verdict)}
        if not isinstance(verdict, CutOff):
            self.tally.client_gone += 1
            # Under overload thousands go: they are counted, a line for each would only add to the load.
            log.debug("a client went away", extra=facts)
            return
        self.tally.cut_off += 1
        log.info("a client was cut off", extra=facts)
        await conversation.abandon()

    async def _empty(self, timeout_s: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        return not self._running


#: When another try makes sense: after a moment of overload, and after a restart.
SOON_S: Final = 1.0
DRAIN_S: Final = 5.0


class _Refusals:
    """All that the gate itself refuses with."""

    def __init__(self, settings: HttpSettings) -> None:
        self.rate = Refusal(
            Rejected(
                f"more than {settings.rate_limit} requests a second; slow down",
                code="rate_limited",
                by_client=True,
            )
        )
        self.draining = Refusal(Rejected("the server is shutting down", code="draining", retry_after_s=DRAIN_S))
        self.full = Refusal(Rejected("too many requests are in flight", code="too_many_requests_in_flight"))
        full = Rejected("too much work of this kind is waiting", code="topic_full")
        share = Rejected("too much work of this client is waiting; slow down", code="client_share", by_client=True)
        hopeless = Rejected("what waits already takes longer than the deadline allows", code="hopeless")
        self.of_topic = {
            "queue_full": Refusal(full),
            "client_share": Refusal(share),
            "hopeless": Refusal(hopeless),
        }
        self.memory = Refusal(memory_short())
        self.too_large = Refusal(too_large(settings.max_body))


def _refusal_of(error: PenstockError) -> tuple[Refusal, float]:
    return Refusal(error), error.retry_after_s if isinstance(error, Rejected) else 0.0


def _arrival(scope: Scope, now_s: float) -> Arrival:
    """Read a request's head; name it in its scope."""
    headers: dict[bytes, bytes] = dict(scope["headers"])
    request_id = headers.get(b"x-request-id", b"")
    if not _REQUEST_ID.fullmatch(request_id):
        request_id = new_id().encode()
    traceparent = headers.get(b"traceparent", b"")
    echo = [(b"x-request-id", request_id)]
    if traceparent and _TRACEPARENT.fullmatch(traceparent):
        echo.append((b"traceparent", traceparent))
    else:
        traceparent = b""
    scope["penstock.request_id"] = request_id.decode()
    scope["penstock.traceparent"] = traceparent.decode()
    scope["penstock.arrived_s"] = now_s
    return Arrival(request_id, headers, echo)
