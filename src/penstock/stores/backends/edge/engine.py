"""One collection in the engine: our records to the engine's and back, its errors to ours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import compress
from pathlib import Path
from typing import Any, Final

import numpy as np
import qdrant_edge as qe

from penstock.kernel.errors import Broken, PenstockError, Unavailable
from penstock.kernel.ids import point_id
from penstock.kernel.late import cosine
from penstock.stores.backends import records
from penstock.stores.backends.edge import tuning, wire
from penstock.stores.backends.layout import LATE, LEARNED
from penstock.stores.contract import Arm, ChunkPayload, Condition, Head, HeadPage, Match, Range, Scored


class Shard:
    """An open shard of the engine. Synchronous; owned by the store process's one thread."""

    def __init__(self, shard: qe.EdgeShard) -> None:
        self._shard = shard
        self._late = _keeps(shard, qe.Query.Nearest([[0.0]], using=LATE))
        learned = _keeps(shard, qe.Query.Nearest(qe.SparseVector([0], [1.0]), using=LEARNED))
        self._sparse = LEARNED if learned else Arm.SPARSE.value

    @classmethod
    def create(cls, path: Path, dim: int, late: int = 0, *, learned: bool = False) -> Shard:
        """Create a shard with its named vectors and payload indexes.

        Args:
            path: Its directory.
            dim: Components of a dense vector.
            late: Components of a token vector; 0 for none.
            learned: Whether sparse vectors say themselves what a term is worth.
        """
        vectors = {Arm.DENSE.value: tuning.dense(dim)}
        if late:
            vectors[LATE] = _late_params(late)
        config = qe.EdgeConfig(vectors=vectors, sparse_vectors=tuning.sparse_vectors(learned=learned))
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
        return self._sparse == LEARNED

    def close(self) -> None:
        """Flush and close."""
        with _translated():
            self._shard.flush()
            self._shard.close()

    def upsert(self, points: Iterable[wire.WirePoint]) -> None:
        """Write points in one operation of the engine's log."""
        self._update(qe.UpdateOperation.upsert_points([_point(p, self._sparse, late=self._late) for p in points]))

    def trim(self, document: str, chunks: int) -> None:
        """Delete the document's chunks numbered ``chunks`` and above."""
        surplus = _filter([Match("id", [document]), Range("chunk", gte=float(chunks))])
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
        self._update(qe.UpdateOperation.delete_points_by_filter(_filter(conditions)))
        return documents

    def count(self, conditions: Sequence[Condition] = ()) -> int:
        """Count the points that match."""
        with _translated():
            return self._shard.count(qe.CountRequest(exact=True, filter=_filter(conditions)))

    def search(self, searches: Sequence[wire.Search]) -> list[list[Scored]]:
        """Answer several one-arm queries as one planned batch; token vectors find nothing where none are kept."""
        known = [self._late or not isinstance(s.vector, wire.Late) for s in searches]
        with _translated():
            batch = qe.QueryBatchRequest([_query(s, self._sparse) for s in compress(searches, known)])
            found = iter(self._shard.query_batch(batch))
        return [_scored(s, next(found)) if is_known else [] for s, is_known in zip(searches, known, strict=True)]

    def vectors(self, points: Sequence[str]) -> dict[str, bytes]:
        """Return the dense vectors of the points that exist, ``float32`` little-endian."""
        with _translated():
            ids: list[qe.PointId] = [*points]
            found: list[Any] = self._shard.retrieve(ids, with_payload=False, with_vector=[Arm.DENSE.value])
        return {str(r.id): np.array(r.vector[Arm.DENSE.value], "<f4").tobytes() for r in found}

    def fetch(self, points: Sequence[str]) -> dict[str, ChunkPayload]:
        """Return the payloads of the points that exist."""
        with _translated():
            ids: list[qe.PointId] = [*points]
            found = self._shard.retrieve(ids, with_payload=True, with_vector=False)
        return {str(r.id): records.payload(r.payload) for r in found}

    def heads(self, conditions: Sequence[Condition], after: str | None, limit: int) -> HeadPage:
        """Return a page of heads in the order of their point ids."""
        request = qe.ScrollRequest(
            offset=after,
            limit=limit,
            filter=_filter([*conditions, Match("chunk", [0])]),
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
        for pattern, code, detail in _ERRORS:
            if pattern in text:
                raise Unavailable(detail, dependency="store", code=code) from error
        raise Broken(f"the store engine failed: {text}", code="store_failed") from error


_ERRORS: Final = (
    ("WouldBlock", "store_locked", "another process holds this data directory's store"),
    ("No space left", "disk_full", "the disk of the data directory is full"),
    ("StorageFull", "disk_full", "the disk of the data directory is full"),
)


def _point(point: wire.WirePoint, sparse: str, *, late: bool) -> qe.Point:
    vectors: dict[str, Any] = {
        Arm.DENSE.value: np.frombuffer(point.dense.data, "<f4").tolist(),
        sparse: _sparse(point.sparse),
    }
    if late and point.late is not None:
        vectors[LATE] = _late(point.late)
    return qe.Point(point_id(point.payload.id, point.payload.chunk), vectors, records.record(point.payload))


def _late_params(late: int) -> qe.EdgeVectorParams:
    """Return how token vectors are kept: as bytes, compared by MaxSim, read from their file, in no graph."""
    return qe.EdgeVectorParams(
        size=late,
        distance=qe.Distance.Dot,
        multivector_config=qe.MultiVectorConfig(qe.MultiVectorComparator.MaxSim),
        datatype=qe.VectorStorageDatatype.Uint8,
        hnsw_config=qe.HnswIndexConfig(m=0, ef_construct=1, full_scan_threshold=0),
    )


#: What the engine says when it is asked for a vector that its shard does not have.
_NO_SUCH_VECTOR: Final = "Not existing vector name"


def _keeps(shard: qe.EdgeShard, query: qe.Query) -> bool:
    """Return whether a shard keeps vectors of a name: the engine tells when it is asked, though with too short one."""
    try:
        shard.query(qe.QueryRequest(limit=1, query=query))
    except Exception as error:  # noqa: BLE001 - the engine's errors have no narrower base
        return _NO_SUCH_VECTOR not in str(error)
    return True


def _late(vectors: wire.Late) -> Any:
    return np.frombuffer(vectors.data, np.uint8).reshape(vectors.rows, -1).tolist()


def _scored(search: wire.Search, found: Iterable[qe.ScoredPoint]) -> list[Scored]:
    """Return hits with the score that the contract promises."""
    if not isinstance(search.vector, wire.Late):
        return [Scored(str(p.id), p.score) for p in found]
    query = np.frombuffer(search.vector.data, np.uint8).reshape(search.vector.rows, -1)
    return [Scored(str(p.id), cosine(p.score, query)) for p in found]


def _sparse(vector: wire.Sparse) -> qe.SparseVector:
    return qe.SparseVector(np.frombuffer(vector.indices, "<u4").tolist(), np.frombuffer(vector.values, "<f4").tolist())


def _query(search: wire.Search, sparse: str) -> qe.QueryRequest:
    conditions: list[Any] = [_condition(c) for c in search.filter]
    if search.among is not None:
        conditions.append(qe.HasIdCondition(set(search.among)))
    if isinstance(search.vector, wire.Dense):
        query = qe.Query.Nearest(np.frombuffer(search.vector.data, "<f4").tolist(), using="dense")
    elif isinstance(search.vector, wire.Late):
        query = qe.Query.Nearest(_late(search.vector), using=LATE)
    else:
        query = qe.Query.Nearest(_sparse(search.vector), using=sparse)
    return qe.QueryRequest(
        limit=search.limit,
        params=tuning.SEARCHING,
        query=query,
        filter=qe.Filter(must=conditions) if conditions else None,
        with_payload=False,
        with_vector=False,
    )


def _filter(conditions: Sequence[Condition]) -> qe.Filter:
    return qe.Filter(must=[_condition(c) for c in conditions])


def _condition(condition: Condition) -> Any:
    match records.tested(condition):
        case records.OneOf(field, values):
            return qe.FieldCondition(field, match=qe.MatchAny(values))
        case records.Begins(field, prefix):
            return qe.FieldCondition(field, match=qe.MatchPrefix(prefix))
        case records.Between(field, bounds, timed):
            return qe.FieldCondition(field, range=qe.RangeDateTime(**bounds) if timed else qe.RangeFloat(**bounds))
        case None:
            return qe.Filter()
