"""A collection's points read by id: token vectors and payloads, from the engine or as they were read before.

To read 64 points' token vectors takes the engine longer than to find them; a search needs them every time, and
searches come back to the same points.
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from penstock.kernel.ids import point_id
from penstock.kernel.late import TokenVectors
from penstock.stores.backends.edge import wire
from penstock.stores.backends.edge.engine import Shard
from penstock.stores.backends.edge.point_cache import PointCache
from penstock.stores.backends.edge.updates import Update
from penstock.stores.records import ChunkPayload

#: What a payload takes up beside its texts and metadata, and what a byte of metadata as JSON becomes in memory at most:
#: a list of small numbers, four bytes each, is one of objects of forty.
PAYLOAD_BYTES: Final = 1000
METADATA_TIMES: Final = 16


class PointReader:
    """Reads points by the numbers in their ids.

    What is remembered is exact: every update tells what it changes (:meth:`note`), before anybody reads again.

    Args:
        shard: Where the points are; another generation of the same points may take its place.
        cache: Remembers, also for other collections.

    Attributes:
        shard: As given.
    """

    def __init__(self, shard: Shard, cache: PointCache) -> None:
        self.shard = shard
        self._cache = cache
        self._tokens = self._payloads = -1
        self.forget()

    def tokens(self, points: Sequence[int]) -> dict[int, TokenVectors]:
        """Return the token vectors of the points that exist and have some, in the order of the points."""
        known = self._cache.find(self._tokens, points)
        if len(known) < len(points):
            unknown = _ids(points, known)
            found = self.shard.tokens(unknown)
            for one in unknown:
                vectors = known[one.int] = found.get(one)
                # That there are none is worth remembering too.
                self._cache.keep(self._tokens, one.int, vectors, 0 if vectors is None else vectors.nbytes)
        return {point: vectors for point in points if (vectors := known[point]) is not None}

    def fetch(self, points: Sequence[int]) -> dict[int, ChunkPayload]:
        """Return the payloads of the points that exist, in the order of the points."""
        known = self._cache.find(self._payloads, points)
        if len(known) < len(points):
            for one, payload in self.shard.fetch(_ids(points, known)).items():
                known[one.int] = payload
                self._cache.keep(self._payloads, one.int, payload, _payload_bytes(payload))
        return {point: known[point] for point in points if point in known}

    def note(self, command: Update) -> None:
        """Forget what an update changes, whether it has succeeded or not."""
        if isinstance(command, wire.Upsert):
            changed = [number(point_id(point.payload.id, point.payload.chunk)) for point in command.points]
        elif isinstance(command, wire.Seal):
            changed = [number(point_id(command.head.id, 0))]
        else:
            self.forget()
            return
        self._cache.drop(self._tokens, changed)
        self._cache.drop(self._payloads, changed)

    def forget(self) -> None:
        """Forget everything: which points a filter has deleted is not known."""
        self._tokens, self._payloads = self._cache.space(), self._cache.space()


def number(point: str) -> int:
    """Return the number in a point's id."""
    return uuid.UUID(point).int


def _payload_bytes(payload: ChunkPayload) -> int:
    """Return about how much memory a payload takes up, or more."""
    texts = sum(sys.getsizeof(text) for text in (payload.id, payload.path, payload.symbol, payload.text))
    metadata = METADATA_TIMES * len(msgspec.json.encode(payload.metadata)) if payload.metadata else 0
    return PAYLOAD_BYTES + texts + metadata


def _ids(points: Sequence[int], known: Mapping[int, object]) -> list[uuid.UUID]:
    """Return the engine's ids of those points that are not known yet."""
    return [uuid.UUID(int=point) for point in points if point not in known]
