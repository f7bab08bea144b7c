"""Who asks: an API key, else an address; a proxy's word counts only where the proxy is trusted (D7)."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from penstock.kernel.errors import Invalid

#: Hops of ``X-Forwarded-For`` looked at, from the right.
HOPS_MAX: Final = 16
#: Whoever has an IPv6 address has at least the rest of its /64 too (RFC 6177).
IPV6_CLIENT_BITS: Final = 64

_BEARER: Final = b"bearer "
_ADDRESSES_MAX: Final = 4096

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Callers:
    """Tells clients apart.

    A key is not checked, only told from others, and never kept: the client is named by its digest.

    Args:
        trusted_proxies: Addresses and networks, with commas between.

    Bounds: what is remembered of 4096 addresses. Names have 48 characters at most, whatever was sent.

    Raises:
        Invalid: One of them is neither an address nor a network.
    """

    def __init__(self, trusted_proxies: str = "") -> None:
        self._trusted = _networks(trusted_proxies)
        # A cache of its own: shared, one gate's proxies would be trusted by another.
        self._look_at = lru_cache(_ADDRESSES_MAX)(self._seen)

    def name(self, scope: Mapping[str, Any], headers: Mapping[bytes, bytes]) -> str:
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
        client, trusted = self._look_at(peer[0])
        if trusted and b"x-forwarded-for" in headers:
            return self._behind(scope, client)
        return client

    def _behind(self, scope: Mapping[str, Any], nearest: str) -> str:
        """Return the rightmost hop that is no proxy of ours; what stands left of it may be made up."""
        said = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for")
        for hop in reversed(said.rsplit(b",", HOPS_MAX)[-HOPS_MAX:]):
            client, trusted = self._look_at(_without_port(hop.decode("latin-1").strip()[:64]))
            if not client:
                break
            nearest = client
            if not trusted:
                break
        return nearest

    def _seen(self, text: str) -> tuple[str, bool]:
        """Return what an address is called ('' for none), and whether it is a trusted proxy."""
        try:
            address: Address = ipaddress.ip_address(text)
        except ValueError:
            return "", False
        if isinstance(address, ipaddress.IPv6Address):
            address = address.ipv4_mapped or address
        return network_of(text), any(address in network for network in self._trusted)


@lru_cache(_ADDRESSES_MAX)
def network_of(text: str) -> str:
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
