"""Early refusals: whole requests that are refused before they are parsed, while the loop has all that it carries.

In a storm refusals are most of the work. One by the gate costs a parser, a task and a scope; one from here, a look at
the bytes. Nothing here admits: what is not plainly one whole request is left to the parser and the gate, and so are the
requests about the server itself, which are served in a storm too.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from penstock.core.traffic import Traffic
from penstock.http.gate_refusals import OVERLOAD_RETRY_S
from penstock.http.problem import ErrorFormat, PreparedRefusal
from penstock.http.request_context import time_limit_s
from penstock.kernel.context import new_id
from penstock.policies.jitter import Rng, jittered_retry_after_s

#: Bytes of a head that are looked at.
HEAD_BYTES_MAX: Final = 8192
_LENGTH_DIGITS_MAX: Final = 6

_REQUEST_LINE: Final = re.compile(rb"POST (/v1/[!-~]{1,256}) HTTP/1\.1\r\n")
_LENGTH: Final = b"\r\ncontent-length: "
_TIME_LIMIT: Final = b"\r\nx-request-timeout-ms: "
_REQUEST_ID: Final = b"\r\nx-request-id: "
_USABLE_ID: Final = re.compile(rb"[\x21-\x7e]{1,128}")
_CLOSE: Final = b"\r\nconnection: close\r\n"
_KEEP_ALIVE: Final = b"\r\nconnection: keep-alive\r\n"
#: Fields of requests that are framed, answered or counted in another way.
_LEFT_TO_THE_GATE: Final = re.compile(rb"\n(?:transfer-encoding|expect|upgrade|origin|traceparent)|[^\r]\n")


@dataclass(frozen=True, slots=True)
class EarlyRefusal:
    """A whole response.

    Attributes:
        response: Its bytes.
        closes: Whether the connection ends with it.
    """

    response: bytes
    closes: bool


class EarlyRefusals:
    """Refuses whole requests by their bytes while the load shedder is full.

    Clients are not told apart here, and keys not looked up: no client's request would be admitted.

    Args:
        traffic: Its load shedder decides.
        refuse: Counts a refusal, by address and path, and returns it with the format of the route's errors.
        rng: Draws for the jitter of ``Retry-After``.
    """

    def __init__(
        self, traffic: Traffic, refuse: Callable[[str, str], tuple[PreparedRefusal, ErrorFormat]], rng: Rng
    ) -> None:
        self._traffic = traffic
        self._refuse = refuse
        self._rng = rng

    def refuse(
        self, data: bytes, address: str, sent_s: float, now_s: float, default_headers: list[tuple[bytes, bytes]]
    ) -> EarlyRefusal | None:
        """Return the refusal of a request, ``None`` where it is left to the parser.

        Args:
            data: All that has been read of it.
            address: The client's.
            sent_s: When it reached this machine, on the loop's clock.
            now_s: On the loop's clock.
            default_headers: Headers of every response.
        """
        if not self._traffic.shedder.full or self._traffic.draining:
            return None
        line = _REQUEST_LINE.match(data)
        end = data.find(b"\r\n\r\n", 0, HEAD_BYTES_MAX)
        if line is None or end < 0:
            return None
        head = data[line.end() - 2 : end + 2].lower()
        if not _is_whole(head, len(data) - end - 4):
            return None
        closes = _CLOSE in head
        if not closes and b"\nconnection:" in head and _KEEP_ALIVE not in head:
            return None
        limit_s = time_limit_s(_field(data, head, line.end() - 2, _TIME_LIMIT))
        self._traffic.shedder.observe(now_s - sent_s, now_s, limit_s)
        self._traffic.note_overload(now_s)
        refusal, error_format = self._refuse(address, line[1].decode("ascii"))
        request_id = _request_id(data, head, line.end() - 2)
        seconds = jittered_retry_after_s(OVERLOAD_RETRY_S, self._rng())
        status, body, headers = refusal.render(request_id, seconds, error_format)
        fields = [*default_headers, *headers, (b"x-request-id", request_id)]
        if closes:
            fields.append((b"connection", b"close"))
        told = b"".join([b"%s: %s\r\n" % one for one in fields])
        return EarlyRefusal(b"%s%s\r\n%s" % (STATUS_LINE[status], told, body), closes)


def _is_whole(head: bytes, body_bytes: int) -> bool:
    """Return whether a head, in lower case, is plainly that of one request with a body of that many bytes."""
    at = head.find(_LENGTH)
    if at < 0 or head.count(b"content-length") != 1:
        return False
    length = head[at + len(_LENGTH) : head.find(b"\r", at + len(_LENGTH))]
    if not length.isdigit() or len(length) > _LENGTH_DIGITS_MAX or int(length) != body_bytes:
        return False
    return _LEFT_TO_THE_GATE.search(head) is None


def _request_id(data: bytes, head: bytes, first: int) -> bytes:
    """Return the caller's id if it is usable, else a new one."""
    said = _field(data, head, first, _REQUEST_ID)
    return said if said is not None and _USABLE_ID.fullmatch(said) else new_id().encode()


def _field(data: bytes, head: bytes, first: int, name: bytes) -> bytes | None:
    """Return a field's value as it was sent; the head, in lower case, begins at ``first``."""
    at = head.find(name)
    return None if at < 0 else data[first + at + len(name) : first + head.find(b"\r", at + len(name))]
