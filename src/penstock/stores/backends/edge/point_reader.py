"""A collection's points read by id: token vectors and payloads, from the engine or as they were read before.

The engine takes longer to read 64 points' token vectors than to find the points. Every search needs token vectors, and
searches come back to the same points.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence

from penstock.kernel.context import point_id
from penstock.kernel.late_interaction import TokenVectors
from penstock.stores.backends.edge.engine import Shard, Update
from penstock.stores.backends.point_cache import PointCache, payload_memory_bytes
from penstock.stores.commands import ReplaceSparse, SealDocument, UpsertPoints
from penstock.stores.data_model import ChunkPayload


class PointReader:
    """Reads points by the numbers in their ids.

    The cache is exact: every update invalidates what it changes (:meth:`invalidate`) before the next read.

    Args:
        shard: Where the points are; another generation of the same points may take its place.
        cache: Remembers, also for other collections.
    """

    def __init__(self, shard: Shard, cache: PointCache) -> None:
        self.shard = shard
        self._cache = cache
        self._tokens = self._payloads = -1
        self.invalidate_all()

    def fetch_token_vectors(self, points: Sequence[int]) -> dict[int, TokenVectors]:
        """Return the token vectors of the points that exist and have some, in the order of the points."""
        known = self._cache.get(self._tokens, points)
        if len(known) < len(points):
            unknown = _ids(points, known)
            found = self.shard.fetch_token_vectors(unknown)
            for one in unknown:
                vectors = known[one.int] = found.get(one)
                # That there are none is worth remembering too.
                self._cache.put(self._tokens, one.int, vectors, 0 if vectors is None else vectors.nbytes)
        return {point: vectors for point in points if (vectors := known[point]) is not None}

    def fetch_payloads(self, points: Sequence[int]) -> dict[int, ChunkPayload]:
        """Return the payloads of the points that exist, in the order of the points."""
        known = self._cache.get(self._payloads, points)
        if len(known) < len(points):
            for one, payload in self.shard.fetch_payloads(_ids(points, known)).items():
                known[one.int] = payload
                self._cache.put(self._payloads, one.int, payload, payload_memory_bytes(payload))
        return {point: known[point] for point in points if point in known}

    def invalidate(self, command: Update) -> None:
        """Drop the cached values that an update changes, whether it has succeeded or not."""
        if isinstance(command, ReplaceSparse):
            return
        if isinstance(command, UpsertPoints):
            changed = [point_number(point_id(point.payload.id, point.payload.chunk)) for point in command.points]
        elif isinstance(command, SealDocument):
            changed = [point_number(point_id(command.document.id, 0))]
        else:
            self.invalidate_all()
            return
        self._cache.drop(self._tokens, changed)
        self._cache.drop(self._payloads, changed)

    def invalidate_all(self) -> None:
        """Drop all cached values: it is not known which points a filter has deleted."""
        self._tokens, self._payloads = self._cache.new_namespace(), self._cache.new_namespace()


def point_number(point: str) -> int:
    """Return the number in a point's id."""
    return uuid.UUID(point).int


def _ids(points: Sequence[int], known: Mapping[int, object]) -> list[uuid.UUID]:
    """Return the engine's ids of those points that are not known yet."""
    return [uuid.UUID(int=point) for point in points if point not in known]
