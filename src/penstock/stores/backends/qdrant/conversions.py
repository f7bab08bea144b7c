"""Conversions of points, queries and filters to a Qdrant server's JSON, and of its answers back. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from penstock.kernel.context import point_id
from penstock.kernel.vectors import SparseVector
from penstock.ranking.retrieval import Arm, ScoredPoint
from penstock.stores.backends import layout, payload_format
from penstock.stores.backends.qdrant.collection_schema import CollectionMetadata
from penstock.stores.backends.qdrant.point_memory import REVISION_FIELD, new_revision
from penstock.stores.data_model import ArmQuery, Condition, Filter, Point, SparseReplacement

#: Parameters of a search; without them the scores of dense vectors would be those of their int8 form.
_SEARCHING: Final = {"quantization": {"rescore": True, "oversampling": layout.OVERSAMPLING}}


def encode_point(stored_point: Point, metadata: CollectionMetadata) -> dict[str, Any]:
    """Return a point with the vectors that its collection keeps."""
    vectors: dict[str, Any] = {metadata.sparse_vector_name: _sparse(stored_point.sparse)}
    if stored_point.dense is not None:
        vectors[Arm.DENSE.value] = _floats(stored_point.dense)
    stored = stored_point.payload
    payload = payload_format.encode_payload(stored, stored_point.token_vectors if metadata.token_dim else None)
    payload[REVISION_FIELD] = new_revision()
    return {"id": point_id(stored.id, stored.chunk), "vector": vectors, "payload": payload}


def encode_sparse_replacement(point: str, replaced: SparseReplacement, metadata: CollectionMetadata) -> dict[str, Any]:
    """Return a point's new sparse vector."""
    return {"id": point, "vector": {metadata.sparse_vector_name: _sparse(replaced.sparse)}}


def decode_point(stored: Any, metadata: CollectionMetadata) -> Point:
    """Return a point that was read whole."""
    vectors = stored["vector"]
    terms, dense = vectors.get(metadata.sparse_vector_name) or {"indices": [], "values": []}, vectors.get(Arm.DENSE)
    return Point(
        payload_format.decode_payload(stored["payload"]),
        None if dense is None else np.array(dense, np.float32),
        SparseVector(np.array(terms["indices"], np.uint32), np.array(terms["values"], np.float32)),
        payload_format.decode_token_vectors(stored["payload"]),
    )


def can_match(query: ArmQuery) -> bool:
    """Return whether a query can find anything, so that it is worth asking."""
    if query.among is not None and not query.among:
        return False
    return not isinstance(query.vector, SparseVector) or len(query.vector.indices) > 0


def encode_query(query: ArmQuery, metadata: CollectionMetadata) -> dict[str, Any]:
    """Return a query of one arm."""
    must = _must(query.filter)
    if query.among is not None:
        must.append({"has_id": list(query.among)})
    asked: dict[str, Any] = {"limit": query.limit, "params": _SEARCHING, "with_payload": False, "with_vector": False}
    if must:
        asked["filter"] = {"must": must}
    vector = query.vector
    if isinstance(vector, SparseVector):
        return {**asked, "query": _sparse(vector), "using": metadata.sparse_vector_name}
    return {**asked, "query": _floats(vector), "using": Arm.DENSE.value}


def decode_hits(found: Any) -> list[ScoredPoint]:
    """Return hits."""
    return [ScoredPoint(str(one["id"]), float(one["score"])) for one in found["points"]]


def encode_filter(conditions: Filter | Sequence[Condition]) -> dict[str, Any]:
    """Return a filter; without a condition it matches everything."""
    return {"must": _must(conditions)}


def pending_filter(conditions: Filter | Sequence[Condition] = ()) -> dict[str, Any]:
    """Return the filter of points without a dense vector under which all conditions hold."""
    return {"must": _must(conditions), "must_not": [{"has_vector": Arm.DENSE.value}]}


def _must(conditions: Sequence[Condition]) -> list[dict[str, Any]]:
    return [tested for condition in conditions if (tested := _condition(condition)) is not None]


def _condition(condition: Condition) -> dict[str, Any] | None:
    match payload_format.to_field_test(condition):
        case payload_format.FieldIn(field, values):
            # A list of both is refused; a field of ours holds either integers or strings.
            wanted = int if field == payload_format.CHUNK_FIELD else str
            return {"key": field, "match": {"any": [value for value in values if type(value) is wanted]}}
        case payload_format.FieldNotIn(field, values):
            return {"key": field, "match": {"except": values}}
        case payload_format.FieldStartsWith(field, prefix):
            return {"key": field, "match": {"prefix": prefix}}
        case payload_format.FieldInRange(field, bounds, _):
            return {"key": field, "range": bounds}
        case None:
            return None


def _floats(vector: Any) -> list[float]:
    floats: list[float] = np.asarray(vector, np.float32).tolist()
    return floats


def _sparse(vector: SparseVector) -> dict[str, Any]:
    return {"indices": vector.indices.tolist(), "values": np.asarray(vector.values, np.float32).tolist()}
