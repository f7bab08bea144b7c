"""Builds the engine's query objects from vectors, conditions and known candidates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import qdrant_edge as qe

from penstock.kernel.vectors import DenseVectors, SparseVector
from penstock.ranking.retrieval import Arm
from penstock.stores.backends import payload_format
from penstock.stores.backends.edge import engine_config
from penstock.stores.data_model import Condition


def arm_query_request(
    vector: DenseVectors | SparseVector,
    limit: int,
    sparse_name: str,
    *,
    filter: Sequence[Condition] = (),
    among: Iterable[qe.PointId] | None = None,
) -> qe.QueryRequest:
    """Return the query of one arm, or the one that scores known candidates exactly."""
    held: list[Any] = [engine_condition(one) for one in filter]
    if among is not None:
        held.append(qe.HasIdCondition(set(among)))
    return qe.QueryRequest(
        limit=limit,
        params=engine_config.SEARCH_PARAMS if among is None else engine_config.EXACT_SEARCH_PARAMS,
        query=nearest_query(vector, sparse_name),
        filter=qe.Filter(must=held) if held else None,
        with_payload=False,
        with_vector=False,
    )


def nearest_query(vector: DenseVectors | SparseVector, sparse_name: str) -> qe.Query:
    """Return the nearest-neighbour query for a vector."""
    if isinstance(vector, SparseVector):
        return qe.Query.Nearest(engine_sparse_vector(vector), using=sparse_name)
    return qe.Query.Nearest(vector.tolist(), using=Arm.DENSE.value)


def engine_sparse_vector(vector: SparseVector) -> qe.SparseVector:
    """Return a sparse vector as the engine's."""
    return qe.SparseVector(vector.indices.tolist(), vector.values.tolist())


def engine_filter(filter: Sequence[Condition]) -> qe.Filter:
    """Return the filter under which all conditions must hold."""
    return qe.Filter(must=[engine_condition(one) for one in filter])


def pending_filter(filter: Sequence[Condition], among: Sequence[str] | None = None) -> qe.Filter:
    """Return the filter of points without a dense vector under which all conditions hold, among some if given."""
    held: list[Any] = [engine_condition(one) for one in filter]
    if among is not None:
        held.append(qe.HasIdCondition(set(among)))
    return qe.Filter(must=held, must_not=[qe.HasVectorCondition(Arm.DENSE.value)])


def engine_condition(wanted: Condition) -> Any:
    """Return a condition as the engine's."""
    match payload_format.to_field_test(wanted):
        case payload_format.FieldIn(field, values):
            return qe.FieldCondition(field, match=qe.MatchAny(values))
        case payload_format.FieldNotIn(field, values):
            return qe.FieldCondition(field, match=qe.MatchExcept(values))
        case payload_format.FieldStartsWith(field, prefix):
            return qe.FieldCondition(field, match=qe.MatchPrefix(prefix))
        case payload_format.FieldInRange(field, bounds, timed):
            return qe.FieldCondition(field, range=qe.RangeDateTime(**bounds) if timed else qe.RangeFloat(**bounds))
        case None:
            return qe.Filter()
