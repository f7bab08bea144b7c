"""Payloads of a search's hits, read best first up to a number of bytes. Pure: whoever reads hands in what was read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Generic

import msgspec

from penstock.ranking.records import P
from penstock.stores.records import ChunkPayload

#: Bytes of texts and metadata in one answer at most. A thousand hits of ordinary chunks have 1 to 2 MB. With the most
#: metadata that a document may have, 64 KB, it is reached after 64 hits.
ANSWER_BYTES_MAX: Final = 4_194_304

#: Points read in the first step; how large they are tells how many are read in the next. Most searches need one step.
FIRST_POINTS: Final = 64


class HitReading(Generic[P]):
    """What is read of the points of an answer, and what is read next.

    Args:
        points: The hits, best first.
        bytes_max: Bytes at most; the best hit is read whatever its size.

    Bounds: ``bytes_max``, and what one step reads beyond it: ``FIRST_POINTS`` payloads, or about ``bytes_max``.

    Attributes:
        payloads: Those of the points that exist and fit, in the order of the points.
        cut: Whether some did not fit.
    """

    def __init__(self, points: Sequence[P], bytes_max: int = ANSWER_BYTES_MAX) -> None:
        self.payloads: dict[P, ChunkPayload] = {}
        self.cut = False
        self._points: Sequence[P] = points
        self._next = 0
        self._left = bytes_max
        self._bytes = 0

    def __repr__(self) -> str:
        return f"<HitReading {self._next}/{len(self._points)} points, {self._bytes} bytes{', cut' if self.cut else ''}>"

    def points(self) -> Sequence[P]:
        """Return the points to read next; empty when all is read that will be."""
        if self.cut:
            return ()
        count = FIRST_POINTS
        if self.payloads:
            each = max(1, self._bytes // len(self.payloads))
            count = max(1, self._left // each)
        return self._points[self._next : self._next + count]

    def take(self, read: Mapping[P, ChunkPayload]) -> None:
        """Take in the payloads of those of the points that exist."""
        asked = self.points()
        self._next += len(asked)
        for point in asked:
            payload = read.get(point)
            if payload is None:
                continue
            size = bytes_about(payload)
            if self.payloads and size > self._left:
                self.cut = True
                return
            self.payloads[point] = payload
            self._bytes += size
            self._left -= size


def bytes_about(payload: ChunkPayload) -> int:
    """Return about how many bytes a payload adds to an answer."""
    metadata = len(msgspec.json.encode(payload.metadata)) if payload.metadata else 2
    return len(payload.id) + len(payload.path) + len(payload.symbol) + len(payload.text) + metadata
