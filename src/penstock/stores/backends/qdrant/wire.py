"""Points, queries and filters as a Qdrant server reads them, and its answers as ours. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from penstock.kernel.ids import point_id
from penstock.kernel.vectors import SparseVector
from penstock.ranking.records import Arm, Scored
from penstock.stores.backends import layout, records
from penstock.stores.backends.qdrant.schema import Stated
from penstock.stores.records import ArmQuery, Condition, Filter, Point

#: How vectors are searched; without it the scores of dense ones would be those of the bytes.
_SEARCHING: Final = {"quantization": {"rescore": True, "oversampling": layout.OVERSAMPLING}}


def point(one: Point, kept: Stated) -> dict[str, Any]:
    """Return a point with the vectors that its collection keeps."""
    vectors: dict[str, Any] = {
        Arm.DENSE.value: _floats(one.dense),
        kept.sparse_name: _sparse(one.sparse),
    }
    stored = one.payload
    payload = records.record(stored, one.late if kept.late else None)
    return {"id": point_id(stored.id, stored.chunk), "vector": vectors, "payload": payload}


def read(stored: Any, kept: Stated) -> Point:
    """Return a point that was read whole."""
    vectors = stored["vector"]
    terms = vectors.get(kept.sparse_name) or {"indices": [], "values": []}
    return Point(
        records.payload(stored["payload"]),
        np.array(vectors[Arm.DENSE.value], np.float32),
        SparseVector(np.array(terms["indices"], np.uint32), np.array(terms["values"], np.float32)),
        records.tokens(stored["payload"]),
    )


def answerable(query: ArmQuery) -> bool:
    """Return whether a query can find anything, so that it is worth asking."""
    if query.among is not None and not query.among:
        return False
    return not isinstance(query.vector, SparseVector) or len(query.vector.indices) > 0


def search(query: ArmQuery, kept: Stated) -> dict[str, Any]:
    """Return a query of one arm."""
    must = _must(query.filter)
    if query.among is not None:
        must.append({"has_id": list(query.among)})
    asked: dict[str, Any] = {"limit": query.limit, "params": _SEARCHING, "with_payload": False, "with_vector": False}
    if must:
        asked["filter"] = {"must": must}
    vector = query.vector
    if isinstance(vector, SparseVector):
        return {**asked, "query": _sparse(vector), "using": kept.sparse_name}
    return {**asked, "query": _floats(vector), "using": Arm.DENSE.value}


def scored(found: Any) -> list[Scored]:
    """Return hits."""
    return [Scored(str(one["id"]), float(one["score"])) for one in found["points"]]


def filtered(conditions: Filter | Sequence[Condition]) -> dict[str, Any]:
    """Return a filter; without a condition it lets everything through."""
    return {"must": _must(conditions)}


def _must(conditions: Sequence[Condition]) -> list[dict[str, Any]]:
    return [tested for condition in conditions if (tested := _condition(condition)) is not None]


def _condition(condition: Condition) -> dict[str, Any] | None:
    match records.tested(condition):
        case records.OneOf(field, values):
            # A list of both is refused; a field of ours holds either integers or strings.
            wanted = int if field == records.CHUNK else str
            return {"key": field, "match": {"any": [value for value in values if type(value) is wanted]}}
        case records.Begins(field, prefix):
            return {"key": field, "match": {"prefix": prefix}}
        case records.Between(field, bounds, _):
            return {"key": field, "range": bounds}
        case None:
            return None


def _floats(vector: Any) -> list[float]:
    floats: list[float] = np.asarray(vector, np.float32).tolist()
    return floats


def _sparse(vector: SparseVector) -> dict[str, Any]:
    return {"indices": vector.indices.tolist(), "values": np.asarray(vector.values, np.float32).tolist()}
