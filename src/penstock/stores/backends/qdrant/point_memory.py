"""Points of a Qdrant server as a search reads them: whole ones from the server, unchanged ones from memory.

Each write gives a point a new random revision. A read names the revisions that are known, and the server answers with
the points that have another one. So what is remembered is never older than what the server would have answered, whoever
has written the point, and a repeated search carries no token vectors.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from penstock.kernel.late_interaction import TokenVectors
from penstock.stores.backends import payload_format
from penstock.stores.backends.point_cache import PointCache, payload_memory_bytes
from penstock.stores.data_model import ChunkPayload

#: Payload field of a point's revision. A point that was written before there were revisions has none, and is read from
#: the server each time.
REVISION_FIELD: Final = "rev"

#: Bits of a revision: JSON's integers end at 63.
_REVISION_BITS: Final = 62

#: Collections whose points are told apart; beyond that number all is read again.
COLLECTIONS_MAX: Final = 10_000


def new_revision() -> int:
    """Return a revision that no other write has."""
    return secrets.randbits(_REVISION_BITS)


class ReadPoint(NamedTuple):
    """A point as it was read.

    Attributes:
        revision: Its revision; ``None`` for a point without.
        payload: Its payload.
        token_vectors: Its token vectors; ``None`` for none.
        is_whole: Whether its token vectors were read too.
    """

    revision: int | None
    payload: ChunkPayload
    token_vectors: TokenVectors | None
    is_whole: bool


class PointMemory:
    """Points of all collections, by collection and id.

    Args:
        bytes_max: What they may take up; 0 to remember nothing.

    Bounds: ``bytes_max``, and the names of ``COLLECTIONS_MAX`` collections.
    """

    def __init__(self, bytes_max: int) -> None:
        self.cache = PointCache(bytes_max)
        self._namespaces: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"<PointMemory {self.cache!r}>"

    def known(self, collection: str, points: Sequence[str], *, whole: bool) -> dict[str, ReadPoint]:
        """Return what is remembered of the points, by point; ``whole`` leaves out those without token vectors."""
        found: dict[str, ReadPoint] = self.cache.get(self._namespace(collection), points)
        return {point: read for point, read in found.items() if read.is_whole or not whole}

    def put(self, collection: str, point: str, read: ReadPoint) -> None:
        """Remember a point."""
        if read.revision is not None:
            self.cache.put(self._namespace(collection), point, read, _bytes(read))

    def _namespace(self, collection: str) -> int:
        if collection not in self._namespaces:
            if len(self._namespaces) >= COLLECTIONS_MAX:
                self._namespaces.clear()
            self._namespaces[collection] = self.cache.new_namespace()
        return self._namespaces[collection]


def read_query(points: Sequence[str], known: Iterable[ReadPoint], *, whole: bool) -> dict[str, Any]:
    """Return the query that reads those of the points that exist and have another revision than the known ones."""
    fields = [*payload_format.CHUNK_PAYLOAD_FIELDS, REVISION_FIELD]
    condition: dict[str, Any] = {"must": [{"has_id": list(points)}]}
    if revisions := [one.revision for one in known]:
        condition["must_not"] = [{"key": REVISION_FIELD, "match": {"any": revisions}}]
    return {
        "filter": condition,
        "limit": len(points),
        "with_payload": [*fields, payload_format.TOKEN_VECTORS_FIELD] if whole else fields,
        "with_vector": False,
    }


def decode_read(stored: Mapping[str, Any], *, whole: bool) -> ReadPoint:
    """Return a point from a query's answer."""
    payload = stored["payload"]
    tokens = payload_format.decode_token_vectors(payload) if whole else None
    return ReadPoint(payload.get(REVISION_FIELD), payload_format.decode_payload(payload), tokens, whole)


def _bytes(read: ReadPoint) -> int:
    """Return about how much memory a point takes up, or more."""
    return payload_memory_bytes(read.payload) + (0 if read.token_vectors is None else read.token_vectors.nbytes)
