"""Validation of a request's head, as RFC 9112 requires of a server."""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

import httptools

from penstock.kernel.errors import Expired, Invalid

Headers = list[tuple[bytes, bytes]]

#: Fields that say who is asked, whose page asks, where a request ends and whether its body will come.
CHECKED_HEADERS: Final = frozenset({b"host", b"origin", b"content-length", b"transfer-encoding", b"expect"})

#: RFC 3986 §3.2: a registered name or an address, then a port. User information has no place in ``Host``.
_AUTHORITY: Final = re.compile(rb"\A(?:\[[0-9A-Za-z:.%_~-]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]+)(?::[0-9]{0,5})?")

#: A request line as RFC 9112 §3 has it; the parser stops at a method that it does not know.
_REQUEST_LINE: Final = re.compile(rb"\A(?:\r\n)*[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64} [!-~]+ HTTP/([0-9])\.[0-9]\r\n")

#: What the parser says of the preface of HTTP/2 (RFC 9113 §3.4).
_HTTP2_PREFACE_ERROR: Final = "Pause on PRI/Upgrade"

#: Bytes of a refused request that are looked at to say what is wrong.
_LINE_BYTES_MAX: Final = 4096


class MalformedRequest(Invalid):
    """The request violates RFC 9112, so the beginning of the next one is unknown."""

    code = "malformed_request"


class NotImplementedByServer(Invalid):
    """A method or a transfer coding that the server does not know."""

    code = "not_implemented"


class VersionNotSupported(Invalid):
    """The request has another major version of HTTP than 1."""

    code = "http_version_not_supported"


class HeadTimeout(Expired):
    """The head of a request did not arrive in time."""

    code = "head_timeout"

    def __init__(self) -> None:
        super().__init__("head", "the head of the request did not arrive in time")


class RequestTarget(NamedTuple):
    """A request's target.

    Attributes:
        path: Percent-encoded.
        query: Without its question mark.
    """

    path: bytes
    query: bytes


def check_version(version: str) -> None:
    """Refuse what is not HTTP/1; a higher minor version is read as 1.1 (RFC 9110 §2.5).

    Raises:
        MalformedRequest: The request line has no version.
        VersionNotSupported: The version is another.
    """
    if version.startswith("1."):
        return
    if version.startswith("0."):
        raise MalformedRequest("the request line has no HTTP version; send HTTP/1.1", field="request line")
    raise VersionNotSupported(f"the server speaks HTTP/1.1, not HTTP/{version}", field="request line")


def parse_target(url: bytes, method: str, headers: Headers) -> RequestTarget:
    """Return a request's target; the authority in an absolute one replaces ``Host`` (RFC 9112 §3.2.2).

    Raises:
        NotImplementedByServer: The method is ``CONNECT``.
        MalformedRequest: The target is none of the forms of RFC 9112 §3.2.
    """
    if method == "CONNECT":
        raise NotImplementedByServer("the server is no proxy: it takes no CONNECT", field="method")
    if b"#" in url:
        raise MalformedRequest("the request's target has a fragment; leave out what follows the #", field="target")
    if url[:1] == b"/":
        path, _, query = url.partition(b"?")
        return RequestTarget(path, query)
    try:
        parsed = httptools.parse_url(url)
    except httptools.HttpParserInvalidURLError:
        raise MalformedRequest("the request's target is no path", field="target") from None
    if url[:1] != b"*":
        _replace_host(parsed, url, headers)
    if url[:1] == b"*" and (method != "OPTIONS" or url != b"*"):
        raise MalformedRequest("the target * goes with OPTIONS only", field="target")
    return RequestTarget(parsed.path or b"/", parsed.query or b"")


def _replace_host(parsed: Any, url: bytes, headers: Headers) -> None:
    """Put the authority of an absolute target where ``Host`` is."""
    if parsed.userinfo is not None or (parsed.schema or b"").lower() not in (b"http", b"https"):
        raise MalformedRequest("the request's target is neither a path nor an http URL", field="target")
    authority = url.partition(b"://")[2].partition(b"/")[0].partition(b"?")[0]
    for number, (name, _) in enumerate(headers):
        if name == b"host":
            headers[number] = (name, authority)


def check_headers(version: str, headers: Headers) -> int:
    """Check who is asked and how the body ends; return ``Content-Length``, which the parser has checked, or 0.

    Args:
        version: Of HTTP.
        headers: Fields whose names are in :data:`CHECKED_HEADERS`.

    Raises:
        MalformedRequest: One of them is missing, doubled or cannot be read.
        NotImplementedByServer: The body has a transfer coding beside ``chunked``.
    """
    hosts, origins, length, codings = 0, 0, 0, []
    for name, value in headers:
        if name == b"host":
            hosts += 1
            if _AUTHORITY.fullmatch(value) is None:
                raise MalformedRequest("Host is no name or address with an optional port", field="Host")
        elif name == b"origin":
            origins += 1
        elif name == b"content-length":
            length = int(value)
        elif name == b"transfer-encoding":
            codings.append(value)
    if hosts > 1 or (not hosts and version != "1.0"):
        raise MalformedRequest(f"a request has one Host, not {hosts}", field="Host")
    if origins > 1:
        # Which of them is believed must not depend on who reads.
        raise MalformedRequest(f"a request has one Origin at most, not {origins}", field="Origin")
    if codings:
        _check_codings(version, codings)
    return length


def _check_codings(version: str, codings: list[bytes]) -> None:
    if version == "1.0":
        raise MalformedRequest("HTTP/1.0 has no Transfer-Encoding", field="Transfer-Encoding")
    names = [name.strip().lower() for name in b",".join(codings).split(b",")]
    if names[-1] != b"chunked" or names.count(b"chunked") > 1:
        raise MalformedRequest("a request's last transfer coding is chunked, once", field="Transfer-Encoding")
    if len(names) > 1:
        raise NotImplementedByServer(
            "the only transfer coding that the server knows is chunked", field="Transfer-Encoding"
        )


def parser_error(piece: bytes | memoryview, error: Exception) -> Invalid:
    """Return what is wrong with a request that the parser gave up."""
    if str(error) == _HTTP2_PREFACE_ERROR:
        return VersionNotSupported("the server speaks HTTP/1.1, not HTTP/2", field="request line")
    line = _REQUEST_LINE.match(bytes(piece[:_LINE_BYTES_MAX]))
    if line is not None and line[1] != b"1":
        return VersionNotSupported(f"the server speaks HTTP/1.1, not HTTP/{line[1].decode()}", field="request line")
    if line is not None and isinstance(error, httptools.HttpParserInvalidMethodError):
        return NotImplementedByServer("the server does not know this method", field="method")
    reason = str(error).rstrip(".") or "it cannot be parsed"
    return MalformedRequest(f"the request cannot be read: {reason}; see RFC 9112", field="request")
