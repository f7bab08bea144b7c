"""State of a request and the context of its work, from its headers: client, class, deadline, ids."""

from __future__ import annotations

import hashlib
import ipaddress
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from starlette.requests import Request

from penstock.kernel.access import ANYONE, Principal
from penstock.kernel.context import Clock, Context, Criticality, Deadline
from penstock.kernel.errors import Expired, Invalid
from penstock.kernel.records import TIMEOUT_MS_MAX

#: Classes of work as callers write them, the most urgent first.
CRITICALITIES: Final = {criticality.name.lower(): criticality for criticality in Criticality}

_CRITICALITY_BY_HEADER: Final = {name.encode(): criticality for name, criticality in CRITICALITIES.items()}
_NEVER: Final = Deadline.never()
_DIGITS_MAX: Final = len(str(TIMEOUT_MS_MAX))
#: Member of a request's ASGI scope that holds its :class:`RequestState`.
SCOPE_KEY: Final = "penstock.request"
#: Member that says when the request reached this machine, on the loop's clock; absent where nobody knows.
SENT_KEY: Final = "penstock.sent_s"
#: What is kept of a time limit for the answer's way back, as a share of it and at most in seconds: an answer that is
#: begun at the deadline reaches its caller when that has given up.
ANSWER_SHARE: Final = 0.05
ANSWER_S_MAX: Final = 0.05


@dataclass(slots=True)
class RequestState:
    """State of one request, from the gate to its response. It lies in the request's ASGI scope.

    Attributes:
        client: API key or peer address.
        request_id: The caller's id if it is usable, else a generated one.
        traceparent: The caller's trace context, empty for none.
        arrived_s: When the gate saw the request, on the loop's clock.
        sent_s: When it reached this machine, which under load is earlier. Time limits count from then.
        criticality: The class of its work, at most the route's own.
        timeout_ms: What ``X-Request-Timeout-Ms`` says.
        query: The route's query parameters.
        deadline_s: When its answer comes too late, on the loop's clock.
        principal: The one on whose behalf it is made.
        streams: Whether the response is a stream, each piece of which has the write timeout for itself.
        address: The peer's address, where the client is a key.
        outlives_key: Whether it goes on when its key is revoked, because it is what revokes it.
    """

    client: str
    request_id: str
    traceparent: str
    arrived_s: float
    sent_s: float
    criticality: Criticality = Criticality.BULK
    timeout_ms: int | None = None
    query: Any = None
    deadline_s: float = math.inf
    principal: Principal = ANYONE
    streams: bool = False
    address: str = ""
    outlives_key: bool = False

    @property
    def who(self) -> dict[str, str]:
        """The one who makes it, for the audit log."""
        return {"key": self.principal.id, "name": self.principal.name, "address": self.address or self.client}


def request_state(scope: Mapping[str, Any]) -> RequestState:
    """Return the state that the gate has put into a request's ASGI scope."""
    state: RequestState = scope[SCOPE_KEY]
    return state


@dataclass(frozen=True, slots=True)
class AdmissionContext:
    """Client, criticality and deadline of a request. Malformed headers are ignored here and refused by the route.

    Attributes:
        client: API key or peer address.
        criticality: The class that was asked for; ``None`` for none.
        deadline: From ``X-Request-Timeout-Ms``; never without it.
        is_retry: Whether the client says that it has tried before.
    """

    client: str
    criticality: Criticality | None = None
    deadline: Deadline = _NEVER
    is_retry: bool = False


def is_retry(headers: Mapping[bytes, bytes]) -> bool:
    """Return whether a client that counts its retries, as OpenAI's does, has tried before."""
    return headers.get(b"x-stainless-retry-count", b"0") != b"0"


def read_admission_context(headers: Mapping[bytes, bytes], client: str, now_s: float) -> AdmissionContext:
    """Read a request's headers."""
    criticality = _parse_criticality(headers.get(b"x-criticality"))
    wish_ms = _parse_timeout_ms(headers.get(b"x-request-timeout-ms"))
    deadline = _NEVER if wish_ms is None else Deadline(now_s + wish_ms / 1000, "request")
    return AdmissionContext(client, criticality, deadline, is_retry(headers))


def _parse_criticality(said: bytes | None) -> Criticality | None:
    return None if said is None else _CRITICALITY_BY_HEADER.get(said.strip().lower())


def _parse_timeout_ms(said: bytes | None) -> int | None:
    """Return the milliseconds that a header says, ``None`` for what is no number that short."""
    if said is None:
        return None
    said = said.strip()
    return int(said) if said.isdigit() and len(said) <= _DIGITS_MAX else None


def time_limit_s(said: bytes | None) -> float:
    """Return the seconds that ``X-Request-Timeout-Ms`` says; 0 for none."""
    return (_parse_timeout_ms(said) or 0) / 1000


#: Hops of ``X-Forwarded-For`` looked at, from the right.
HOPS_MAX: Final = 16
#: An IPv6 client holds at least a whole /64 (RFC 6177).
IPV6_CLIENT_BITS: Final = 64

_BEARER: Final = b"bearer "
_CACHED_ADDRESSES_MAX: Final = 4096

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class ClientIdentifier:
    """Identifies clients by API key, else by address.

    A key is not checked and never kept. The client's name is a digest of the key.

    Args:
        trusted_proxies: Addresses and networks, with commas between.

    Bounds: a cache of 4096 addresses. Names have at most 48 characters, whatever was sent.

    Raises:
        Invalid: One of them is neither an address nor a network.
    """

    def __init__(self, trusted_proxies: str = "") -> None:
        self._trusted = _networks(trusted_proxies)
        # A cache of its own: shared, one gate's proxies would be trusted by another.
        self._classify = lru_cache(_CACHED_ADDRESSES_MAX)(self._classify_address)

    def client_id(self, scope: Mapping[str, Any], headers: Mapping[bytes, bytes]) -> str:
        """Return the client's name."""
        key = headers.get(b"x-api-key") or _bearer(headers.get(b"authorization", b""))
        if key:
            return "key:" + hashlib.blake2b(key, digest_size=8).hexdigest()
        return self.address(scope, headers)

    def address(self, scope: Mapping[str, Any], headers: Mapping[bytes, bytes]) -> str:
        """Return the client's address, whatever key it has sent."""
        peer = scope.get("client")
        if not peer:
            return "local"
        client, trusted = self._classify(peer[0])
        if trusted and b"x-forwarded-for" in headers:
            return self._forwarded_client(scope, client)
        return client

    def _forwarded_client(self, scope: Mapping[str, Any], nearest: str) -> str:
        """Return the rightmost hop that is not a trusted proxy. Hops to its left may be forged."""
        said = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for")
        for hop in reversed(said.rsplit(b",", HOPS_MAX)[-HOPS_MAX:]):
            client, trusted = self._classify(_without_port(hop.decode("latin-1").strip()[:64]))
            if not client:
                break
            nearest = client
            if not trusted:
                break
        return nearest

    def _classify_address(self, text: str) -> tuple[str, bool]:
        """Return what an address is called ('' for none), and whether it is a trusted proxy."""
        try:
            address: Address = ipaddress.ip_address(text)
        except ValueError:
            return "", False
        if isinstance(address, ipaddress.IPv6Address):
            address = address.ipv4_mapped or address
        return client_network(text), any(address in network for network in self._trusted)


@lru_cache(_CACHED_ADDRESSES_MAX)
def client_network(text: str) -> str:
    """Return the address, or for IPv6 the network, that one client has; what is no address stays as it is."""
    try:
        address: Address = ipaddress.ip_address(text)
    except ValueError:
        return text
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((int(address), IPV6_CLIENT_BITS), strict=False))
    return str(address)


def _networks(text: str) -> tuple[Network, ...]:
    try:
        return tuple(ipaddress.ip_network(part.strip(), strict=False) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise Invalid(f"PENSTOCK_TRUSTED_PROXIES: {error}", field="concurrency.http.trusted_proxies") from None


def _bearer(authorization: bytes) -> bytes:
    return authorization[len(_BEARER) :].strip() if authorization[: len(_BEARER)].lower() == _BEARER else b""


def _without_port(hop: str) -> str:
    """Return the address of ``1.2.3.4:5``, ``[::1]:5`` or ``::1`` (RFC 7239 §6)."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop


def read_context_headers(request: Request, route: Criticality) -> None:
    """Note in a request's state the class and the time limit that its headers ask for.

    They are read on every route, so that malformed ones are refused even where nothing uses them.

    Raises:
        Invalid: A header is malformed.
    """
    state, headers = request_state(request.scope), request.headers
    state.criticality = route
    said = headers.get("x-criticality")
    if said is not None:
        asked = _parse_criticality(said.encode("latin-1"))
        if asked is None:
            raise Invalid(f"X-Criticality must be one of {', '.join(CRITICALITIES)}", field="X-Criticality")
        state.criticality = max(route, asked)
    said = headers.get("x-request-timeout-ms")
    if said is not None:
        wish_ms = _parse_timeout_ms(said.encode("latin-1"))
        if wish_ms is None or not 1 <= wish_ms <= TIMEOUT_MS_MAX:
            detail = f"X-Request-Timeout-Ms must be a whole number between 1 and {TIMEOUT_MS_MAX}"
            raise Invalid(detail, field="X-Request-Timeout-Ms")
        state.timeout_ms = wish_ms


def build_context(request: Request, clock: Clock, timeout_ms: float | None = None) -> Context:
    """Return the context of a request's work, and note its deadline in the request's state.

    The time limit counts from the request's arrival at this machine, so a slow body uses up a part of it. Its end is
    kept for the answer's way back.

    Args:
        request: As the route let it through.
        clock: The loop's clock.
        timeout_ms: The body's time limit. It takes precedence over the header's.

    Raises:
        Expired: The deadline has passed already.
    """
    state = request_state(request.scope)
    made = Context(Deadline.never(), state.criticality, state.client, state.request_id, state.traceparent)
    wish_ms = timeout_ms if timeout_ms is not None else state.timeout_ms
    if wish_ms is None:
        return made
    wish_s = wish_ms / 1000
    made = made.within(wish_s - min(ANSWER_S_MAX, ANSWER_SHARE * wish_s), "request", state.sent_s)
    if made.deadline.passed(clock.now()):
        raise Expired("request", "the deadline passed while the request was still arriving")
    state.deadline_s = state.sent_s + wish_s
    return made
