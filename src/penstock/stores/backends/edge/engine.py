"""One collection in the engine: our records to the engine's and back, its errors to ours."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import qdrant_edge as qe

from penstock.kernel.errors import Broken, PenstockError, Unavailable
from penstock.kernel.ids import point_id
from penstock.stores.backends.edge import wire
from penstock.stores.contract import (
    Arm,
    ChunkPayload,
    Condition,
    Head,
    HeadPage,
    Match,
    Prefix,
    Range,
    Scalar,
    Scored,
)

#: Booleans of the metadata once more as keywords: the binding turns a boolean match value into
#: the number 1, which matches nothing (qdrant-edge-py 0.9.0).
FLAGS: Final = "flags"

_PLAIN_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_HEAD_FIELDS: Final = ["id", "hash", "chunks", "path"]


class Shard:
    """An open shard of the engine. Synchronous; owned by the store process's one thread."""

    def __init__(self, shard: qe.EdgeShard) -> None:
        self._shard = shard

    @classmethod
    def create(cls, path: Path, dim: int) -> Shard:
        """Create a shard with named vectors ``dense`` and ``sparse`` and its payload indexes."""
        config = qe.EdgeConfig(
            vectors={Arm.DENSE: qe.EdgeVectorParams(size=dim, distance=qe.Distance.Dot)},
            sparse_vectors={Arm.SPARSE: qe.EdgeSparseVectorParams(modifier=qe.Modifier.Idf)},
        )
        with _translated():
            shard = qe.EdgeShard.create(str(path), config)
            for key, params in _INDEXES.items():
                shard.update(qe.UpdateOperation.create_field_index(key, params))
            shard.flush()
        return cls(shard)

    @classmethod
    def load(cls, path: Path) -> Shard:
        """Open a shard that is there.

        Raises:
            Unavailable: Another process holds it (``store_locked``), or it cannot be read.
        """
        with _translated():
            return cls(qe.EdgeShard.load(str(path)))

    def close(self) -> None:
        """Flush and close."""
        with _translated():
            self._shard.flush()
            self._shard.close()

    def upsert(self, points: Iterable[wire.WirePoint]) -> None:
        """Write points in one operation of the engine's log."""
        self._update(qe.UpdateOperation.upsert_points([_point(p) for p in points]))

    def trim(self, document: str, chunks: int) -> None:
        """Delete the document's chunks numbered ``chunks`` and above."""
        surplus = _filter([Match("id", [document]), Range("chunk", gte=float(chunks))])
        self._update(qe.UpdateOperation.delete_points_by_filter(surplus))

    def seal(self, head: Head) -> None:
        """Write the head's hash and count."""
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
        """Answer several one-arm queries as one planned batch."""
        with _translated():
            batch = qe.QueryBatchRequest([_query(s) for s in searches])
            found = self._shard.query_batch(batch)
        return [[Scored(str(p.id), p.score) for p in hits] for hits in found]

    def fetch(self, points: Sequence[str]) -> dict[str, ChunkPayload]:
        """Return the payloads of the points that exist."""
        with _translated():
            ids: list[qe.PointId] = [*points]
            records = self._shard.retrieve(ids, with_payload=True, with_vector=False)
        return {str(r.id): _payload(r.payload) for r in records}

    def heads(self, conditions: Sequence[Condition], after: str | None, limit: int) -> HeadPage:
        """Return a page of heads in the order of their point ids."""
        request = qe.ScrollRequest(
            offset=after,
            limit=limit,
            filter=_filter([*conditions, Match("chunk", [0])]),
            with_payload=_HEAD_FIELDS,
            with_vector=False,
        )
        with _translated():
            records, following = self._shard.scroll(request)
        return HeadPage([_head(r.payload) for r in records], str(following) if following else None)

    def find(self, documents: Sequence[str]) -> list[Head]:
        """Return the heads of those of the documents that exist."""
        ids: list[qe.PointId] = [point_id(document, 0) for document in documents]
        with _translated():
            records = self._shard.retrieve(ids, with_payload=_HEAD_FIELDS, with_vector=False)
        return [_head(r.payload) for r in records]

    def _update(self, operation: qe.UpdateOperation) -> None:
        with _translated():
            self._shard.update(operation)


_INDEXES: Final[dict[str, Any]] = {
    "id": qe.KeywordIndexParams(),
    "path": qe.KeywordIndexParams(prefix=True),
    "language": qe.KeywordIndexParams(),
    "chunk": qe.IntegerIndexParams(lookup=True, range=True),
    FLAGS: qe.KeywordIndexParams(),
}


class _translated:  # noqa: N801 - a context manager reads best in lower case
    """Turn the engine's untyped errors into ours. One table for the backend: ``_ERRORS``."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, PenstockError) or not isinstance(error, Exception):
            return
        text = str(error)
        for pattern, code, detail in _ERRORS:
            if pattern in text:
                raise Unavailable(detail, dependency="store", code=code) from error
        raise Broken(f"the store engine failed: {text}", code="store_failed") from error


_ERRORS: Final = (
    ("WouldBlock", "store_locked", "another process holds this data directory's store"),
    ("No space left", "disk_full", "the disk of the data directory is full"),
    ("StorageFull", "disk_full", "the disk of the data directory is full"),
)


def _point(point: wire.WirePoint) -> qe.Point:
    payload = msgspec.to_builtins(point.payload)
    flags = list(_flags("metadata", point.payload.metadata))
    if flags:
        payload[FLAGS] = flags
    vectors = {
        Arm.DENSE.value: np.frombuffer(point.dense.data, "<f4").tolist(),
        Arm.SPARSE.value: _sparse(point.sparse),
    }
    return qe.Point(point_id(point.payload.id, point.payload.chunk), vectors, payload)


def _flags(path: str, value: object) -> Iterable[str]:
    """Yield ``path=true`` or ``path=false`` for every boolean below ``value``."""
    if isinstance(value, bool):
        yield f"{path}={str(value).lower()}"
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _flags(f"{path}.{key}", inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _flags(path, inner)


def _sparse(vector: wire.Sparse) -> qe.SparseVector:
    return qe.SparseVector(np.frombuffer(vector.indices, "<u4").tolist(), np.frombuffer(vector.values, "<f4").tolist())


def _payload(payload: dict[str, Any] | None) -> ChunkPayload:
    fields = dict(payload or {})
    fields.pop(FLAGS, None)
    return msgspec.convert(fields, ChunkPayload)


def _head(payload: dict[str, Any] | None) -> Head:
    fields = payload or {}
    return Head(
        id=fields.get("id", ""),
        hash=fields.get("hash", ""),
        chunks=fields.get("chunks", 0),
        path=fields.get("path", ""),
    )


def _query(search: wire.Search) -> qe.QueryRequest:
    conditions: list[Any] = [_condition(c) for c in search.filter]
    if search.among is not None:
        conditions.append(qe.HasIdCondition(set(search.among)))
    if isinstance(search.vector, wire.Dense):
        query = qe.Query.Nearest(np.frombuffer(search.vector.data, "<f4").tolist(), using="dense")
    else:
        query = qe.Query.Nearest(_sparse(search.vector), using="sparse")
    return qe.QueryRequest(
        limit=search.limit,
        query=query,
        filter=qe.Filter(must=conditions) if conditions else None,
        with_payload=False,
        with_vector=False,
    )


def _filter(conditions: Sequence[Condition]) -> qe.Filter:
    return qe.Filter(must=[_condition(c) for c in conditions])


def _condition(condition: Condition) -> Any:
    key = _json_path(condition.key)
    if isinstance(condition, Prefix):
        return qe.FieldCondition(key, match=qe.MatchPrefix(condition.prefix))
    if isinstance(condition, Range):
        return qe.FieldCondition(key, range=_range(condition))
    either: list[Any] = [_equal(condition.key, value) for value in condition.values]
    return either[0] if len(either) == 1 else qe.Filter(should=either)


def _equal(key: str, value: Scalar) -> qe.FieldCondition:
    """Match one value: the engine compares strings and integers, not floats or booleans."""
    if isinstance(value, bool):
        return qe.FieldCondition(FLAGS, match=qe.MatchValue(f"{key}={str(value).lower()}"))
    if isinstance(value, float):
        return qe.FieldCondition(_json_path(key), range=qe.RangeFloat(gte=value, lte=value))
    return qe.FieldCondition(_json_path(key), match=qe.MatchValue(value))


def _range(condition: Range) -> qe.RangeFloat | qe.RangeDateTime:
    bounds: dict[str, Any] = {
        name: bound for name in ("gt", "gte", "lt", "lte") if (bound := getattr(condition, name)) is not None
    }
    if any(isinstance(bound, str) for bound in bounds.values()):
        return qe.RangeDateTime(**bounds)
    return qe.RangeFloat(**bounds)


def _json_path(key: str) -> str:
    """Quote the parts of a path that the engine would not read as plain names."""
    parts = key.split(".")
    return ".".join(p if _PLAIN_KEY.fullmatch(p) else f'"{p}"' for p in parts)
