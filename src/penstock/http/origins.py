"""Host and origin policy: the hosts that the server answers for, and the web pages that may use it.

A web page in a user's browser reaches a server on loopback as well as its user does. The browser's headers give it
away: ``Host``, when a name of the page's was made to point here (DNS rebinding), and ``Origin`` or ``Sec-Fetch-Site``
when it asks across sites (cross-site request forgery).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

from penstock.http.problem import Headers, PreparedRefusal
from penstock.kernel.errors import Invalid

#: Names that every browser resolves to loopback (RFC 6761 §6.3), beside addresses.
_LOCAL_NAMES: Final = ("localhost", ".localhost")
#: What a page whose origin is allowed may send and read beyond what any page may.
_METHODS: Final = b"GET, HEAD, POST, PUT, DELETE"
_REQUEST_HEADERS: Final = (
    b"Authorization, Content-Type, X-Api-Key, X-Criticality, X-Request-Id, X-Request-Timeout-Ms, traceparent"
)
_RESPONSE_HEADERS: Final = b"X-Request-Id, Retry-After, RateLimit, RateLimit-Policy, traceparent"
#: How long a browser may remember a preflight's answer; Chromium takes no more.
_MAX_AGE_S: Final = b"7200"

_HOST: Final = re.compile(r"\A(\[[^\[\]]*\]|[^:\[\]]*)(?::[0-9]*)?")
_ORIGIN: Final = re.compile(r"\A(?:[a-z][a-z0-9+.-]*://(?:\*\.)?[^/?#@*\s]+|null|\*)")
#: Hosts and origins remembered.
_CACHED_MAX: Final = 1024


class OriginPolicy:
    """Refuses requests for foreign hosts and from other sites' pages.

    Args:
        allowed_hosts: Names and addresses beside loopback and the connection's own, with commas between. ``.a.example``
            is the name and everything below it, ``*`` every host.
        cors_origins: Origins whose pages may use the API, with commas between. ``https://*.a.example`` is everything
            below the name, ``*`` every origin.

        listen_hosts: Names and addresses that the server was told to listen on.

    Bounds: a cache of 1024 hosts and one of 1024 origins.

    Attributes:
        cors_enabled: Whether any other origin than the server's own is allowed.

    Raises:
        Invalid: One of them cannot be read.
    """

    def __init__(self, allowed_hosts: str = "", cors_origins: str = "", listen_hosts: Iterable[str] = ()) -> None:
        own = (str(_address(name) or name.lower()) for name in listen_hosts if name)
        self._hosts = (*(_host_pattern(part) for part in _parts(allowed_hosts)), *own, *_LOCAL_NAMES)
        self._origins = tuple(_origin_pattern(part) for part in _parts(cors_origins))
        self.cors_enabled = bool(self._origins)
        # Caches of their own: shared, one server's settings would hold for another.
        self._allows_host = lru_cache(_CACHED_MAX)(self._match_host)
        self._allows_origin = lru_cache(_CACHED_MAX)(self._match_origin)

    def refusal(self, scope: Mapping[str, Any], headers: Mapping[bytes, bytes]) -> PreparedRefusal | None:
        """Return why a request is not answered, ``None`` if it is."""
        host = headers.get(b"host")
        if host is not None:
            local = scope.get("server")
            if not self._allows_host(host, local[0] if local else ""):
                return _HOST_REFUSED
        origin = headers.get(b"origin")
        if origin is not None:
            return None if self._is_same_origin(origin, host) or self._allows_origin(origin) else _ORIGIN_REFUSED
        # A page's simple requests have no Origin, but every browser since 2023 says where they come from.
        site = headers.get(b"sec-fetch-site")
        if site is None or site.lower() in _OWN_SITES or _is_navigation(scope, headers):
            return None
        return _ORIGIN_REFUSED

    def cors_headers(self, headers: Mapping[bytes, bytes]) -> Headers:
        """Return the CORS headers that let a page read the response."""
        origin = headers.get(b"origin")
        if origin is None or not self._allows_origin(origin):
            return [_VARY]
        return [_VARY, (b"access-control-allow-origin", origin), (b"access-control-expose-headers", _RESPONSE_HEADERS)]

    @staticmethod
    def is_preflight(scope: Mapping[str, Any], headers: Mapping[bytes, bytes]) -> bool:
        """Return whether a browser asks what a page may do (Fetch standard, CORS preflight)."""
        return scope["method"] == "OPTIONS" and b"origin" in headers and b"access-control-request-method" in headers

    def _match_host(self, host: bytes, local: str) -> bool:
        found = _HOST.fullmatch(host.decode("latin-1").lower())
        if found is None:
            return False
        name = found[1].rstrip(".")
        address = _address(name)
        if address is not None and (address.is_loopback or address == _address(local)):
            # A rebound page has a name. An address in Host is one that its user or a program wrote.
            return True
        text = str(address) if address is not None else name
        return any(_matches(text, pattern) for pattern in self._hosts)

    def _match_origin(self, origin: bytes) -> bool:
        text = origin.decode("latin-1").lower()
        for pattern in self._origins:
            scheme, _, rest = pattern.partition("://*.")
            below = rest and text.startswith(f"{scheme}://") and text.endswith(f".{rest}")
            if pattern in ("*", text) or below:
                return True
        return False

    @staticmethod
    def _is_same_origin(origin: bytes, host: bytes | None) -> bool:
        """Return whether a page of this very server asks; a proxy in front may speak TLS for it."""
        scheme, _, authority = origin.lower().partition(b"://")
        if host is None or scheme not in _PORTS:
            return False
        own = host.lower()
        return authority == own or own in (authority + _PORTS[scheme], authority.removesuffix(_PORTS[scheme]))


#: Headers of the answer to a preflight.
PREFLIGHT_HEADERS: Final[Headers] = [
    (b"access-control-allow-methods", _METHODS),
    (b"access-control-allow-headers", _REQUEST_HEADERS),
    (b"access-control-max-age", _MAX_AGE_S),
]

_VARY: Final = (b"vary", b"Origin")
_OWN_SITES: Final = frozenset({b"none", b"same-origin"})
_PORTS: Final = {b"http": b":80", b"https": b":443"}

_HOST_REFUSED: Final = PreparedRefusal(
    Invalid(
        "the server does not answer for this Host; name it in PENSTOCK_ALLOWED_HOSTS if it should",
        field="Host",
        code="host_not_allowed",
    )
)
_ORIGIN_REFUSED: Final = PreparedRefusal(
    Invalid(
        "pages of this origin may not use the server; name it in PENSTOCK_CORS_ORIGINS if they should",
        field="Origin",
        code="origin_not_allowed",
    )
)


def _is_navigation(scope: Mapping[str, Any], headers: Mapping[bytes, bytes]) -> bool:
    """Return whether a person follows a link: what comes is shown to them, and no page can read it."""
    return scope["method"] in ("GET", "HEAD") and headers.get(b"sec-fetch-mode", b"").lower() == b"navigate"


def _parts(text: str) -> list[str]:
    return [part.strip().lower() for part in text.split(",") if part.strip()]


def _host_pattern(part: str) -> str:
    """Return a host as it is compared; ``*.a.example`` says the same as ``.a.example``."""
    found = _HOST.fullmatch(part.removeprefix("*") if part.startswith("*.") else part)
    name = found[1].rstrip(".") if found is not None else ""
    if not name or "/" in name:
        raise Invalid(
            f"PENSTOCK_ALLOWED_HOSTS: {part!r} is no name, address, .name or *", field="concurrency.http.allowed_hosts"
        )
    return str(_address(name) or name)


def _origin_pattern(part: str) -> str:
    if _ORIGIN.fullmatch(part) is None:
        raise Invalid(
            f"PENSTOCK_CORS_ORIGINS: {part!r} is no origin, such as https://app.example:8443, and not *",
            field="concurrency.http.cors_origins",
        )
    return part


def _matches(name: str, pattern: str) -> bool:
    if pattern.startswith("."):
        return name == pattern[1:] or name.endswith(pattern)
    return pattern in ("*", name)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return an address, of IPv6 without brackets and zone, and as IPv4 where it is one in disguise."""
    try:
        address = ipaddress.ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
