"""Context of a request's work, from its headers and body: deadline, criticality, client, ids."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from starlette.requests import Request

from penstock.http import decoding, request_bodies
from penstock.kernel.context import Clock, Context, Criticality, Deadline
from penstock.kernel.errors import Expired, Invalid

#: Classes of work as callers write them, the most urgent first.
CRITICALITIES: Final = {criticality.name.lower(): criticality for criticality in Criticality}

_CRITICALITY_BY_HEADER: Final = {name.encode(): criticality for name, criticality in CRITICALITIES.items()}
_NEVER: Final = Deadline.never()
#: More digits than any time limit has.
_DIGITS_MAX: Final = 9


@dataclass(frozen=True, slots=True)
class AdmissionContext:
    """Client, criticality and deadline of a request. Malformed headers are ignored here and refused by the route.

    Attributes:
        client: API key or peer address.
        criticality: The class that was asked for; ``None`` for none.
        deadline: From ``X-Request-Timeout-Ms``; never without it.
    """

    client: str
    criticality: Criticality | None = None
    deadline: Deadline = _NEVER


def read_admission_context(headers: Mapping[bytes, bytes], client: str, now_s: float) -> AdmissionContext:
    """Read a request's headers.

    Args:
        headers: By lower-case name.
        client: API key or peer address.
        now_s: When it arrived, on the loop's clock.
    """
    said = headers.get(b"x-criticality")
    criticality = _CRITICALITY_BY_HEADER.get(said.strip().lower()) if said is not None else None
    wish_ms = headers.get(b"x-request-timeout-ms", b"").strip()
    if wish_ms.isdigit() and len(wish_ms) <= _DIGITS_MAX:
        return AdmissionContext(client, criticality, Deadline(now_s + int(wish_ms) / 1000, "request"))
    return AdmissionContext(client, criticality)


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
        """Return the client's name.

        Args:
            scope: The request's ASGI scope.
            headers: Its headers; of those sent twice, one.
        """
        key = headers.get(b"x-api-key") or _bearer(headers.get(b"authorization", b""))
        if key:
            return "key:" + hashlib.blake2b(key, digest_size=8).hexdigest()
        return self.address(scope, headers)

    def address(self, scope: Mapping[str, Any], headers: Mapping[bytes, bytes]) -> str:
        """Return the client's address, whatever key it has sent.

        Args:
            scope: The request's ASGI scope.
            headers: Its headers; of those sent twice, one.
        """
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


def check_context_headers(request: Request) -> None:
    """Refuse malformed context headers, even on routes that do not use them.

    Raises:
        Invalid: A header is malformed.
    """
    _criticality(request, Criticality.BULK)
    _timeout_header(request)


def build_context(request: Request, clock: Clock, timeout_ms: float | None = None) -> Context:
    """Return the context of a request's work, and note its deadline in the request's scope.

    The time limit counts from the request's arrival at the gate, so a slow body uses up a part of it.

    Args:
        request: As the gate let it through.
        clock: The loop's clock.
        timeout_ms: The body's time limit. It takes precedence over the header's.

    Raises:
        Invalid: A header is malformed.
        Expired: The deadline has passed already.
    """
    scope = request.scope
    made = Context(
        Deadline.never(),
        _criticality(request, scope["penstock.criticality"]),
        scope["penstock.client"],
        scope["penstock.request_id"],
        scope["penstock.traceparent"],
    )
    wish_ms = timeout_ms if timeout_ms is not None else _timeout_header(request)
    if wish_ms is None:
        return made
    made = made.within(wish_ms / 1000, "request", scope["penstock.arrived_s"])
    if made.deadline.passed(clock.now()):
        raise Expired("request", "the deadline passed while the request was still arriving")
    scope["penstock.deadline_s"] = made.deadline.at_s
    return made


def _timeout_header(request: Request) -> int | None:
    """Return ``X-Request-Timeout-Ms``, if the caller sent it."""
    text = request.headers.get("x-request-timeout-ms")
    if text is None:
        return None
    return decoding.parse_int(text, "X-Request-Timeout-Ms", request_bodies.TIMEOUT_MS_MAX)


def _criticality(request: Request, most: Criticality) -> Criticality:
    """Return the class that the caller asks for, at most the route's own."""
    text = request.headers.get("x-criticality")
    if text is None:
        return most
    asked = CRITICALITIES.get(text.strip().lower())
    if asked is None:
        raise Invalid(f"X-Criticality must be one of {', '.join(CRITICALITIES)}", field="X-Criticality")
    return max(most, asked)
