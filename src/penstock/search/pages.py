"""Pages of an answer, and the cursors that name them. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from penstock.kernel.errors import Invalid
from penstock.search.request import CURSOR_CHARACTERS, LEFT_OUT, SearchRequest


class Page(NamedTuple):
    """Place of a page: how many hits stand before it, and the digest of the last of them if a cursor told it."""

    begin: int
    after: bytes = b""

    def find_begin(self, points: Sequence[str]) -> tuple[int, bool]:
        """Return where the page begins in an order, and whether the order has changed since the page before.

        Where it has, the page begins after the hit that was the last one shown, wherever that is now; if it is gone,
        at the same place.
        """
        if not self.after or (len(points) >= self.begin and _point_digest(points[self.begin - 1]) == self.after):
            return self.begin, False
        places = (place for place, point in enumerate(points, 1) if _point_digest(point) == self.after)
        return next(places, self.begin), True


#: Version, digest of the request, hits so far, digest of the last one; then a checksum.
_CURSOR: Final = struct.Struct(">B8sH8s")
_CURSOR_VERSION: Final = 1
_CHECKSUM_BYTES: Final = 5

#: Fields of a request that do not decide about the order of its hits.
_ORDERLESS: Final = {
    "limit": 10,
    "explain": False,
    "strict": False,
    **dict.fromkeys(("offset", "cursor", "highlights", "facets"), LEFT_OUT),
}


def make_cursor(request: SearchRequest, hits: int, last_point: str) -> str:
    """Return the cursor of the page after so many hits."""
    body = _CURSOR.pack(_CURSOR_VERSION, _order_digest(request), hits, _point_digest(last_point))
    return base64.urlsafe_b64encode(body + _digest(body, _CHECKSUM_BYTES)).decode()


def requested_page(request: SearchRequest) -> Page:
    """Return the page that a request's cursor names, or its first one.

    Raises:
        Invalid: The cursor is not whole, or belongs to another search (``invalid_cursor``).
    """
    if request.cursor is LEFT_OUT:
        return Page(0)
    try:
        # What is no cursor may be as long as a body.
        data = base64.b64decode(request.cursor[: CURSOR_CHARACTERS + 1], altchars=b"-_", validate=True)
        version, order, hits, after = _CURSOR.unpack(data[:-_CHECKSUM_BYTES])
    except (ValueError, binascii.Error, struct.error):
        version, order, hits, after, data = 0, b"", 0, b"", b""
    if version != _CURSOR_VERSION or _digest(data[:-_CHECKSUM_BYTES], _CHECKSUM_BYTES) != data[-_CHECKSUM_BYTES:]:
        detail = "`cursor` must be the `next` of an answer, and this one was cut or changed; search again without it"
        raise Invalid(detail, field="cursor", code="invalid_cursor")
    if order != _order_digest(request):
        detail = (
            "`cursor` belongs to another search: repeat that one with every field but `limit`, `offset`, `explain` and"
            " `strict` as it was, or search without a cursor"
        )
        raise Invalid(detail, field="cursor", code="invalid_cursor")
    return Page(hits, after)


def _order_digest(request: SearchRequest) -> bytes:
    return _digest(msgspec.msgpack.encode(msgspec.structs.replace(request, **_ORDERLESS)), 8)


def _point_digest(point: str) -> bytes:
    return _digest(point.encode(), 8)


def _digest(data: bytes, size: int) -> bytes:
    return hashlib.blake2b(data, digest_size=size).digest()
