"""Gate: ASGI middleware in front of everything that admits or refuses. A refusal costs next to nothing.

The gate identifies each client and enforces its rate limit (D7), counts requests in flight (D4), checks
the topics behind a route (D2) and memory (D6), and gives each request its ids (``X-Request-Id``,
``traceparent``). It bounds bodies and responses in size and time (D8, T1, T2), stops the work of a
client that hangs up, and answers 503 while the server drains. Requests are never queued here: they are
admitted or refused at once. Only probes of an address that floods them are delayed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from penstock.bus.contract import TopicRefusal
from penstock.core.core import Core
from penstock.core.traffic import COUNTED_CLIENTS_MAX, RequestCount, Traffic
from penstock.http.authentication import Authenticator, denial_recorder
from penstock.http.early_refusals import EarlyRefusals
from penstock.http.exchange import (
    RETRY_AFTER_STATUSES,
    AsgiApp,
    Exchange,
    GateState,
    Receive,
    RequestHead,
    Scope,
    Send,
    SlowReader,
    SlowUploads,
    read_head,
)
from penstock.http.gate_refusals import DRAIN_RETRY_S, OVERLOAD_RETRY_S, GateRefusals
from penstock.http.origins import PREFLIGHT_HEADERS, OriginPolicy
from penstock.http.probes import ProbeThrottle
from penstock.http.problem import ErrorFormat, PreparedRefusal
from penstock.http.request_context import (
    SCOPE_KEY,
    SENT_KEY,
    AdmissionContext,
    ClientIdentifier,
    RequestState,
    is_retry,
    read_admission_context,
    request_state,
    time_limit_s,
)
from penstock.http.routes import Api, backpressure_check, error_format_of
from penstock.kernel.access import AccessDenied, ActiveKeys, key_errors
from penstock.kernel.context import current_request_id
from penstock.kernel.errors import Broken, PenstockError, Rejected
from penstock.kernel.settings import HttpSettings
from penstock.policies.bucket import RateLimiter, RateSettings
from penstock.policies.jitter import Rng
from penstock.policies.levels import Level, LevelSettings
from penstock.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

#: Paths that are served even while the server is full or drains, since they report its state.
EXEMPT_PATHS: Final = frozenset({"/livez", "/readyz", "/healthz", "/metrics", "/v1/status", "/v1/alerts", "/v1/flow"})

#: Share of the requests in flight from which retries are refused, as of a topic's buffer.
RETRY_FILL_MAX: Final = LevelSettings().high

#: Seconds for the refusals of requests that still run when the drain's time is over.
DRAIN_ABORT_S: Final = 1.0

#: A body that takes longer is slow: its request is stopped when the server is full or drains.
SLOW_BODY_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class GateInputs:
    """Probes of the server's load. Each is called for every request, so each must be O(1).

    Attributes:
        backpressure: Returns why a topic behind a route takes no more work (D2), by method, path and admission
            context. ``None`` while it does.
        memory_level: Returns how full the memory is.
        rng: Draws for the jitter of ``Retry-After``.
        traffic: Counts the requests.
        keys: The keys that the server accepts now.
        on_denied: Called with each request that is refused for want of a key, a scope or a collection, and its code.
    """

    backpressure: Callable[[str, str, AdmissionContext], TopicRefusal | None] = lambda *_: None
    memory_level: Callable[[], Level] = lambda: Level.CALM
    rng: Rng = random.random
    traffic: Traffic = field(default_factory=Traffic)
    keys: ActiveKeys = field(default_factory=ActiveKeys)
    on_denied: Callable[[Scope, str], None] = lambda *_: None


class Gate:
    """ASGI middleware that admits or refuses requests.

    Args:
        app: What is behind the gate.
        settings: Its limits.
        metrics: Where refusals are counted.
        inputs: Probes of the server's load.
        limiter: Rate limiter of clients. By default one of its own.
        listen_hosts: Names and addresses that the server listens on. Requests for them are allowed.

    Bounds: ``max_concurrent`` requests, and the bounds of :class:`RateLimiter` and :class:`ClientIdentifier`.

    Attributes:
        traffic: Requests in flight, their outcomes beside refusals, and whether the server drains.
        early_refusals: What the server below may refuse before it is parsed.

    Raises:
        Invalid: ``trusted_proxies``, ``allowed_hosts`` or ``cors_origins`` cannot be read.
    """

    def __init__(
        self,
        app: AsgiApp,
        settings: HttpSettings,
        metrics: Metrics,
        inputs: GateInputs | None = None,
        limiter: RateLimiter | None = None,
        listen_hosts: Iterable[str] = (),
    ) -> None:
        self._app = app
        self._settings = settings
        self._metrics = metrics
        self._inputs = inputs or GateInputs()
        self.traffic = self._inputs.traffic
        self._state = GateState(settings, self._inputs.memory_level, self._inputs.rng, self.traffic)
        self._clients = ClientIdentifier(settings.trusted_proxies)
        self._origins = OriginPolicy(settings.allowed_hosts, settings.cors_origins, listen_hosts)
        self._keys = self._inputs.keys
        self._keys.on_change = self._stop_revoked
        self._authenticator = Authenticator(self._keys, settings)
        self._limiter = limiter or RateLimiter(RateSettings(settings.rate_limit, settings.rate_burst))
        # For keys of a rate of their own, where the others have no limit.
        self._key_limiter = RateLimiter(RateSettings(burst=settings.rate_burst))
        self._ratelimit_policy = b'"default";q=%d;w=%d' % (self._limiter.quota, self._limiter.window_s)
        self._retries_from = settings.max_concurrent * RETRY_FILL_MAX
        self._refusals = GateRefusals(settings)
        self._probes = ProbeThrottle()
        self.early_refusals = EarlyRefusals(self.traffic, self._refuse_early, self._inputs.rng)
        self._running: set[Exchange] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    def __repr__(self) -> str:
        state = ", draining" if self.traffic.draining else ""
        return f"<Gate {self.traffic.in_flight}/{self._settings.max_concurrent} in flight, {self._limiter!r}{state}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection's scope; only ``http`` is served.

        Cancellation: From outside: nothing is answered, the request is not in flight any more.
        """
        if scope["type"] != "http":
            return
        arrival, state = self._read_request(scope)
        refusal, wait_s = self._admit(scope, arrival, state)
        if refusal is None and wait_s:
            await asyncio.sleep(wait_s)
        exchange = Exchange(scope, receive, send, arrival, self._state)
        if refusal is None:
            self._begin(scope, exchange)
        else:
            self._metrics.refused.labels(refusal.error.code).inc()
        try:
            if refusal is None:
                refusal, wait_s = await self._run(scope, exchange)
                if refusal is not None and refusal.status in RETRY_AFTER_STATUSES:
                    self._count_late_refusal(scope, refusal.error)
            if refusal is not None:
                await exchange.refuse(refusal, wait_s, error_format_of(scope["path"]))
            self._count_response(scope, exchange)
        except asyncio.CancelledError:
            reason = exchange.take_stop_reason()
            if reason is None:
                raise
            await self._end_without_response(scope, exchange, reason)
        except ConnectionAbortedError as disconnect:
            await self._end_without_response(scope, exchange, disconnect)
        finally:
            self._release(exchange)

    def _read_request(self, scope: Scope) -> tuple[RequestHead, RequestState]:
        """Read a request's head, note its state in its scope, and tell the load shedder how long it has waited."""
        now_s = asyncio.get_running_loop().time()
        arrival, traceparent = read_head(scope)
        sent_s = scope.get(SENT_KEY)
        if sent_s is not None:
            # The loop's own time stands still within one of its turns.
            limit_s = time_limit_s(arrival.headers.get(b"x-request-timeout-ms"))
            self.traffic.shedder.observe(time.monotonic() - sent_s, now_s, limit_s)
        state = RequestState("", arrival.request_id.decode(), traceparent, now_s, now_s if sent_s is None else sent_s)
        scope[SCOPE_KEY] = state
        return arrival, state

    def _begin(self, scope: Scope, exchange: Exchange) -> None:
        """Count an admitted request as in flight."""
        self._running.add(exchange)
        self._idle.clear()
        self.traffic.in_flight = len(self._running)
        self.traffic.peak.observe(len(self._running), exchange.state.arrived_s)
        if scope["path"] not in EXEMPT_PATHS:
            exchange.counts_for = exchange.state.client
            self.traffic.shedder.begin(exchange.counts_for)

    def _refuse_early(self, address: str, path: str) -> tuple[PreparedRefusal, ErrorFormat]:
        """Count a refusal before its request was parsed; return it, and the format of the route's errors."""
        refusal = self._refusals.too_many_in_flight
        self._metrics.refused.labels(refusal.error.code).inc()
        self._count_client(address, refused=True)
        return refusal, error_format_of(path)

    def _count_late_refusal(self, scope: Scope, error: PenstockError) -> None:
        """Count a request that was admitted in vain."""
        self._metrics.refused.labels(error.code).inc()
        if error.code == "hopeless" and scope["path"].endswith("/search"):
            self.traffic.in_vain_at_s = asyncio.get_running_loop().time()

    async def wait_drained(self, timeout_s: float) -> bool:
        """Wait until nothing is in flight; return whether that came true in time.

        Requests that run longer, or have not arrived after ``SLOW_BODY_S``, are stopped with 503 ``draining``.
        """
        arriving_s = min(SLOW_BODY_S, timeout_s)
        if await self._wait_idle(arriving_s):
            return True
        late = list(self._state.reading)
        for exchange in late:
            exchange.stop(self._refusals.draining.error)
        if await self._wait_idle(timeout_s - arriving_s):
            return not late
        for exchange in list(self._running):
            exchange.stop(self._refusals.draining.error)
        await self._wait_idle(DRAIN_ABORT_S)
        return False

    def _identify(self, scope: Scope, arrival: RequestHead, state: RequestState) -> PreparedRefusal | None:
        """Note in a request's state who makes it; return why it is not answered at all, ``None`` if it may be."""
        headers = arrival.headers
        foreign = self._origins.refusal(scope, headers)
        if foreign is not None:
            return foreign
        if self._origins.cors_enabled:
            arrival.response_headers += self._origins.cors_headers(headers)
        if self._keys.ring is None:
            state.client = self._clients.client_id(scope, headers)
            return None
        state.client = state.address = address = self._clients.address(scope, headers)
        if self._origins.is_preflight(scope, headers):
            # A browser asks before it sends a key. The answer has nothing but constants.
            return None
        found = self._authenticator.authenticate(scope, address, state.arrived_s)
        if isinstance(found, PreparedRefusal):
            self._inputs.on_denied(scope, found.error.code)
            return found
        state.principal = found
        if found.id:
            state.client = f"key:{found.id}"
        return None

    def _stop_revoked(self) -> None:
        """Stop what runs for keys that are not accepted any more, such as streams of events."""
        ring = self._keys.ring
        for exchange in [*self._running]:
            key = exchange.state.principal.id
            if ring is not None and key and key not in ring and not exchange.state.outlives_key:
                exchange.stop(key_errors()["key_unknown"])

    def _admit(self, scope: Scope, arrival: RequestHead, state: RequestState) -> tuple[PreparedRefusal | None, float]:
        """Return the refusal, if any, and the seconds to wait: until a retry, or until an admitted request goes on."""
        refusal = self._identify(scope, arrival, state)
        if refusal is not None:
            return refusal, OVERLOAD_RETRY_S
        client, now_s = state.client, state.arrived_s
        if scope["path"] in EXEMPT_PATHS:
            # Exempt requests wait before they count as in flight, so they take no slot.
            return None, self._probes.delay_s(self._clients.address(scope, arrival.headers), now_s)
        if self._limiter.enabled or state.principal.rate:
            allowed, retry_after_s = self._check_rate(arrival, state)
            if not allowed:
                return self._refusals.rate_limited, retry_after_s
        if self.traffic.draining:
            return self._refusals.draining, DRAIN_RETRY_S
        return self._overload_refusal(scope, arrival, client, now_s)

    def _check_rate(self, arrival: RequestHead, state: RequestState) -> tuple[bool, float]:
        """Return whether the client's rate allows a request, and the seconds until it does; tell the client.

        A key of a lower rate than the others pays more tokens for each request, so all share one limiter.
        """
        rate = state.principal.rate
        if not rate:
            decision = self._limiter.decide(state.client, state.arrived_s)
            level = b'"default";r=%d;t=%d' % (decision.remaining, math.ceil(decision.reset_s))
            arrival.response_headers += ((b"ratelimit-policy", self._ratelimit_policy), (b"ratelimit", level))
            return decision.allowed, decision.retry_after_s
        limiter = self._limiter if self._limiter.enabled else self._key_limiter
        cost = limiter.rate / rate
        decision = limiter.decide(state.client, state.arrived_s, cost)
        policy = b'"key";q=%d;w=%d' % (max(1, int(limiter.quota / cost)), limiter.window_s)
        level = b'"key";r=%d;t=%d' % (decision.remaining / cost, math.ceil(decision.reset_s))
        arrival.response_headers += ((b"ratelimit-policy", policy), (b"ratelimit", level))
        return decision.allowed, decision.retry_after_s

    def _overload_refusal(
        self, scope: Scope, arrival: RequestHead, client: str, now_s: float
    ) -> tuple[PreparedRefusal | None, float]:
        """Return the first limit that the request exceeds, the cheapest checks first."""
        settings, body_bytes = self._settings, arrival.content_length()
        if self._is_full(arrival, client, now_s):
            return self._refusals.too_many_in_flight, OVERLOAD_RETRY_S
        if body_bytes > settings.max_body:
            return self._refusals.too_large, 0.0
        if body_bytes > settings.large_request and self._inputs.memory_level() is Level.CRITICAL:
            return self._refusals.memory_short, OVERLOAD_RETRY_S
        head = read_admission_context(arrival.headers, client, request_state(scope).sent_s)
        pressed = self._inputs.backpressure(scope["method"], scope["path"], head)
        if pressed is None:
            if body_bytes:
                address = self._clients.address(scope, arrival.headers)
                arrival.upload_owners = (client,) if address == client else (client, address)
            return None, 0.0
        return self._refusals.by_topic_code[pressed.code], pressed.retry_after_s

    def _is_full(self, arrival: RequestHead, client: str, now_s: float) -> bool:
        """Return whether too many requests are in flight for one more of this client."""
        running, shedder = len(self._running), self.traffic.shedder
        if running >= self._settings.max_concurrent:
            self._stop_slowest_upload(now_s)
            return True
        if shedder.admits(client):
            return running >= self._retries_from and is_retry(arrival.headers)
        if shedder.in_flight >= shedder.limit:
            self.traffic.note_overload(now_s)
        return True

    def _stop_slowest_upload(self, now_s: float) -> None:
        """Stop the request whose body has been arriving for longest, if that is long: others could use its place."""
        slowest = self._state.reading.oldest()
        if slowest is not None and self._state.reading.waited_s(slowest, now_s) > SLOW_BODY_S:
            slowest.stop(SlowUploads())

    def _release(self, exchange: Exchange) -> None:
        exchange.close()
        if exchange in self._running:
            self._running.discard(exchange)
            if exchange.counts_for:
                self.traffic.shedder.end(exchange.counts_for)
            self.traffic.in_flight = len(self._running)
            if not self._running:
                self._idle.set()

    async def _run(self, scope: Scope, exchange: Exchange) -> tuple[PreparedRefusal | None, float]:
        """Let the application answer; return what it raised, as a refusal."""
        current_request_id.set(request_state(scope).request_id)
        try:
            if self._origins.is_preflight(scope, exchange.headers):
                await exchange.send({"type": "http.response.start", "status": 204, "headers": PREFLIGHT_HEADERS})
                await exchange.send({"type": "http.response.body", "body": b""})
            else:
                await self._app(scope, exchange.receive, exchange.send)
        except PenstockError as error:
            if isinstance(error, AccessDenied):
                self._inputs.on_denied(scope, error.code)
            return _refusal_of(error)
        except ConnectionAbortedError:
            raise
        except asyncio.CancelledError:
            reason = exchange.take_stop_reason()
            if reason is None:
                raise
            if isinstance(reason, PenstockError):
                return _refusal_of(reason)
            raise reason from None
        except Exception:
            log.exception("a request failed")
            return _refusal_of(Broken("an internal error happened; the log has the details"))
        return None, 0.0

    def _count_response(self, scope: Scope, exchange: Exchange) -> None:
        """Count an answer that went out whole."""
        state = request_state(scope)
        if key := state.principal.id:
            self._metrics.by_key.labels(key, str(exchange.status)).inc()
        if scope["path"] in EXEMPT_PATHS:
            return
        self._count_client(state.client, refused=exchange.status in RETRY_AFTER_STATUSES)
        if not exchange.response_ended:
            return
        if asyncio.get_running_loop().time() > state.deadline_s:
            self.traffic.too_late += 1
        elif exchange.status < 500 and exchange.status not in (408, 429):
            self.traffic.in_time += 1

    def _count_client(self, client: str, *, refused: bool) -> None:
        clients = self.traffic.clients
        own = clients.by_client.get(client)
        if own is None:
            if len(clients.by_client) >= COUNTED_CLIENTS_MAX:
                clients.forget_quietest()
            own = clients.by_client[client] = RequestCount()
        for count in (clients.total, own):
            count.requests += 1
            count.refused += refused

    async def _end_without_response(self, scope: Scope, exchange: Exchange, reason: Exception) -> None:
        """End without a response. A response that has begun stays incomplete, so the server closes the connection."""
        facts = {"request_id": request_state(scope).request_id, "why": str(reason)}
        if not isinstance(reason, SlowReader):
            self.traffic.client_gone += 1
            # Under overload thousands disconnect. They are counted, since a log line each would add to the load.
            log.debug("a client went away", extra=facts)
            return
        self.traffic.cut_off += 1
        log.info("a client was cut off", extra=facts)
        await exchange.abort_connection()

    async def _wait_idle(self, timeout_s: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        return not self._running


def build_gate(core: Core) -> Gate:
    """Return the ASGI application of a server: its API behind the gate."""
    settings, limits = core.deps.settings, lambda: core.memory_watch.level
    pressed = backpressure_check(
        core.bus.check_admission, lambda criticality: core.traffic.note_overload(core.deps.clock.now(), criticality)
    )
    keys, denied = core.deps.keys.active, denial_recorder(core.deps.audit)
    inputs = GateInputs(pressed, limits, core.deps.rng, core.traffic, keys, denied)
    listens = (settings.server.host, settings.worker.host)
    return Gate(Api(core), settings.http, core.metrics, inputs, core.limiter, listens)


def _refusal_of(error: PenstockError) -> tuple[PreparedRefusal, float]:
    return PreparedRefusal(error), error.retry_after_s if isinstance(error, Rejected) else 0.0
