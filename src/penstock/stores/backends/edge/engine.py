"""One collection in the engine: our records to the engine's and back, its errors to ours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import qdrant_edge as qe

from penstock.kernel.errors import Broken, Invalid, PenstockError, Unavailable
from penstock.kernel.ids import point_id
from penstock.kernel.late import TokenVectors
from penstock.kernel.vectors import SparseVector
from penstock.ranking.records import Arm, Scored
from penstock.stores.backends import records
from penstock.stores.backends.edge import asking, packing, tuning, wire
from penstock.stores.backends.layout import LEARNED
from penstock.stores.records import ChunkPayload, Condition, Head, HeadPage, Match, Point, Range


class Shard:
    """An open shard of the engine. Synchronous; owned by the store process's one thread.

    Attributes:
        sparse: The name of its sparse vectors.
    """

    def __init__(self, shard: qe.EdgeShard) -> None:
        self._shard = shard
        learned = _keeps(shard, qe.Query.Nearest(qe.SparseVector([0], [1.0]), using=LEARNED))
        self.sparse = LEARNED if learned else Arm.SPARSE.value

    @classmethod
    def create(cls, path: Path, dim: int, *, learned: bool = False) -> Shard:
        """Create a shard with its named vectors and payload indexes.

        Args:
            path: Its directory.
            dim: Components of a dense vector.
            learned: Whether sparse vectors say themselves what a term is worth.
        """
        vectors = {Arm.DENSE.value: tuning.dense(dim)}
        config = qe.EdgeConfig(
            vectors=vectors,
            sparse_vectors=tuning.sparse_vectors(learned=learned),
            max_search_threads=tuning.SEARCH_THREADS,
        )
        with _translated():
            shard = qe.EdgeShard.create(str(path), config)
            for key, params in _INDEXES.items():
                shard.update(qe.UpdateOperation.create_field_index(key, params))
            shard.flush()
        return cls(shard)

    @classmethod
    def load(cls, path: Path, config: qe.EdgeConfig | None = None) -> Shard:
        """Open a shard that is there.

        Args:
            path: Its directory.
            config: Settings that it takes over from now on, if any.

        Raises:
            Unavailable: Another process holds it (``store_locked``), or it cannot be read.
        """
        with _translated():
            return cls(qe.EdgeShard.load(str(path), config))

    @property
    def learned(self) -> bool:
        """Whether its sparse vectors say themselves what a term is worth."""
        return self.sparse == LEARNED

    def close(self, *, changed: bool = True) -> None:
        """Flush and close.

        Args:
            changed: Whether there is anything to flush: it takes as long as everything else, also where there is not.
        """
        with _translated():
            if changed:
                self._shard.flush()
            self._shard.close()

    def upsert(self, points: Iterable[wire.WirePoint]) -> None:
        """Write points in one operation of the engine's log."""
        self._update(qe.UpdateOperation.upsert_points([_point(p, self.sparse) for p in points]))

    def trim(self, document: str, chunks: int) -> None:
        """Delete the document's chunks numbered ``chunks`` and above."""
        surplus = asking.conditions([Match("id", [document]), Range("chunk", gte=float(chunks))])
        self._update(qe.UpdateOperation.delete_points_by_filter(surplus))

    def seal(self, head: Head) -> None:
        """Write the head's hash and count.

        Raises:
            Unavailable: There is no head any more (``write_conflict``).
        """
        if not self.find([head.id]):
            raise Unavailable(
                "the document was deleted while it was being written; send it again",
                dependency="store",
                code="write_conflict",
            )
        fields = {"hash": head.hash, "chunks": head.chunks}
        self._update(qe.UpdateOperation.set_payload([point_id(head.id, 0)], fields))

    def delete(self, conditions: Sequence[Condition]) -> int:
        """Delete the chunks that match; return how many documents that were."""
        documents = self.count([*conditions, Match("chunk", [0])])
        self._update(qe.UpdateOperation.delete_points_by_filter(asking.conditions(conditions)))
        return documents

    def count(self, conditions: Sequence[Condition] = ()) -> int:
        """Count the points that match."""
        with _translated():
            return self._shard.count(qe.CountRequest(exact=True, filter=asking.conditions(conditions)))

    def known(self, points: Sequence[str]) -> list[str]:
        """Return those of the points that exist."""
        with _translated():
            found = self._shard.retrieve(list(points), with_payload=False, with_vector=False)
        return [str(one.id) for one in found]

    def search(self, searches: Sequence[wire.Search]) -> list[list[Scored]]:
        """Answer several one-arm queries as one planned batch."""
        asked = [
            asking.question(packing.unpack_vector(s.vector), s.limit, self.sparse, filter=s.filter, among=s.among)
            for s in searches
        ]
        return [[Scored(str(point.id), point.score) for point in found] for found in self.query(asked)]

    def query(self, questions: list[qe.QueryRequest]) -> list[list[qe.ScoredPoint]]:
        """Answer questions as one planned batch, each best first."""
        with _translated():
            return self._shard.query_batch(qe.QueryBatchRequest(questions))

    def tokens(self, points: Sequence[qe.PointId]) -> dict[Any, TokenVectors]:
        """Return the token vectors of the points that exist and have some, by the engine's ids."""
        with _translated():
            found = self._shard.retrieve(list(points), with_payload=[records.TOKENS], with_vector=False)
        kept = ((id, records.tokens(one.payload)) for id, one in _by_id(points, found))
        return {id: tokens for id, tokens in kept if tokens is not None}

    def fetch(self, points: Sequence[qe.PointId]) -> dict[Any, ChunkPayload]:
        """Return the payloads of the points that exist, by the engine's ids."""
        with _translated():
            found = self._shard.retrieve(list(points), with_payload=records.FIELDS, with_vector=False)
        return {id: records.payload(one.payload) for id, one in _by_id(points, found)}

    def heads(self, conditions: Sequence[Condition], after: str | None, limit: int) -> HeadPage:
        """Return a page of heads in the order of their point ids."""
        request = qe.ScrollRequest(
            offset=after,
            limit=limit,
            filter=asking.conditions([*conditions, Match("chunk", [0])]),
            with_payload=records.HEAD_FIELDS,
            with_vector=False,
        )
        with _translated():
            found, following = self._shard.scroll(request)
        return HeadPage([records.head(r.payload) for r in found], str(following) if following else None)

    def find(self, documents: Sequence[str]) -> list[Head]:
        """Return the heads of those of the documents that exist."""
        ids: list[qe.PointId] = [point_id(document, 0) for document in documents]
        with _translated():
            found = self._shard.retrieve(ids, with_payload=records.HEAD_FIELDS, with_vector=False)
        return [records.head(r.payload) for r in found]

    def read_points(self, after: str | None, limit: int) -> wire.WirePage:
        """Return a page of whole points in the order of their ids."""
        request = qe.ScrollRequest(offset=after, limit=limit, with_payload=True, with_vector=True)
        with _translated():
            found, following = self._shard.scroll(request)
        points = [_read(one.payload, one.vector, self.sparse) for one in found]
        return wire.WirePage(points, str(following) if following else None)

    def flush(self) -> None:
        """Write everything through to the files; they do not change until the next update."""
        with _translated():
            self._shard.flush()

    def optimize(self) -> None:
        """Build segments and graphs; takes seconds to minutes, in which the interpreter stands still."""
        with _translated():
            self._shard.optimize()

    def points(self) -> int:
        """Return about how many points there are, at once: without looking at them."""
        with _translated():
            return self._shard.info().points_count

    def _update(self, operation: qe.UpdateOperation) -> None:
        with _translated():
            self._shard.update(operation)


_INDEXES: Final[dict[str, Any]] = {
    **{key: qe.KeywordIndexParams(prefix=prefix) for key, prefix in records.KEYWORDS.items()},
    records.CHUNK: qe.IntegerIndexParams(lookup=True, range=True),
}


class Panicked(Broken):
    """The engine panicked: its locks may be poisoned, so the process must end and start anew."""


#: What the binding raises then; no ``Exception``, and no name to import.
_PANIC: Final = "PanicException"


class _translated:  # noqa: N801 - a context manager reads best in lower case
    """Turn the engine's untyped errors into ours. One table for the backend: ``_ERRORS``."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, PenstockError):
            return
        text = str(error)
        if type(error).__name__ == _PANIC:
            raise Panicked(f"the store engine failed: {text}", code="store_failed") from error
        if not isinstance(error, Exception):
            return
        if any(sign in text.lower() for sign in _REFUSALS):
            raise Invalid(f"the store engine takes no such request: {text[:SAID_CHARACTERS_MAX]}") from error
        for pattern, code, detail in _ERRORS:
            if pattern in text:
                raise Unavailable(detail, dependency="store", code=code) from error
        raise Broken(f"the store engine failed: {text}", code="store_failed") from error


#: How the engine says that it is the request that is wrong.
_REFUSALS: Final = ("wrong input", "bad request", "bad input", "validation error", "malformed", "forbidden")

#: How much of what the engine says of a wrong request is told on.
SAID_CHARACTERS_MAX: Final = 200

_ERRORS: Final = (
    ("WouldBlock", "store_locked", "another process holds this data directory's store"),
    ("No space left", "disk_full", "the disk of the data directory is full"),
    ("StorageFull", "disk_full", "the disk of the data directory is full"),
    ("Read-only file system", "disk_read_only", "the disk of the data directory is read-only; nothing is written"),
)


def _point(point: wire.WirePoint, sparse: str) -> qe.Point:
    vectors: dict[str, Any] = {
        Arm.DENSE.value: packing.unpack_dense(point.dense).tolist(),
        sparse: asking.sparse(packing.unpack_sparse(point.sparse)),
    }
    tokens = None if point.late is None else packing.unpack_late(point.late)
    return qe.Point(point_id(point.payload.id, point.payload.chunk), vectors, records.record(point.payload, tokens))


def _read(payload: dict[str, Any] | None, vectors: Any, sparse: str) -> wire.WirePoint:
    """Return a point that the engine gives whole."""
    terms = vectors[sparse]
    return packing.pack_point(
        Point(
            records.payload(payload),
            np.array(vectors[Arm.DENSE.value], np.float32),
            SparseVector(np.array(terms.indices, np.uint32), np.array(terms.values, np.float32)),
            records.tokens(payload),
        )
    )


def _by_id(points: Sequence[qe.PointId], found: Sequence[qe.Record]) -> Iterable[tuple[Any, qe.Record]]:
    """Return records with their ids. They come in the order asked for; to ask each for its id takes longer."""
    return zip(points, found, strict=True) if len(found) == len(points) else ((one.id, one) for one in found)


#: What the engine says when it is asked for a vector that its shard does not have.
_NO_SUCH_VECTOR: Final = "Not existing vector name"


def _keeps(shard: qe.EdgeShard, query: qe.Query) -> bool:
    """Return whether a shard keeps vectors of a name: the engine tells when it is asked, though with too short one."""
    try:
        shard.query(qe.QueryRequest(limit=1, query=query))
    except Exception as error:  # noqa: BLE001 - the engine's errors have no narrower base
        return _NO_SUCH_VECTOR not in str(error)
    return True
