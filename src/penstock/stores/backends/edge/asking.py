"""Our questions to the engine as its own: vectors, conditions, known candidates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import qdrant_edge as qe

from penstock.kernel.vectors import DenseVectors, SparseVector
from penstock.ranking.records import Arm
from penstock.stores.backends import records
from penstock.stores.backends.edge import tuning
from penstock.stores.records import Condition


def question(
    vector: DenseVectors | SparseVector,
    limit: int,
    sparse_name: str,
    *,
    filter: Sequence[Condition] = (),
    among: Iterable[qe.PointId] | None = None,
) -> qe.QueryRequest:
    """Return what one arm is asked, or what known candidates are measured by.

    Args:
        vector: What is looked for.
        limit: Points wanted.
        sparse_name: The name of the shard's sparse vectors.
        filter: Conditions that all must hold.
        among: Only these points.
    """
    held: list[Any] = [condition(one) for one in filter]
    if among is not None:
        held.append(qe.HasIdCondition(set(among)))
    return qe.QueryRequest(
        limit=limit,
        params=tuning.SEARCHING if among is None else tuning.MEASURING,
        query=nearest(vector, sparse_name),
        filter=qe.Filter(must=held) if held else None,
        with_payload=False,
        with_vector=False,
    )


def nearest(vector: DenseVectors | SparseVector, sparse_name: str) -> qe.Query:
    """Return a vector as the engine looks for it."""
    if isinstance(vector, SparseVector):
        return qe.Query.Nearest(sparse(vector), using=sparse_name)
    return qe.Query.Nearest(vector.tolist(), using=Arm.DENSE.value)


def sparse(vector: SparseVector) -> qe.SparseVector:
    """Return a sparse vector as the engine's."""
    return qe.SparseVector(vector.indices.tolist(), vector.values.tolist())


def conditions(filter: Sequence[Condition]) -> qe.Filter:
    """Return conditions that all must hold."""
    return qe.Filter(must=[condition(one) for one in filter])


def condition(wanted: Condition) -> Any:
    """Return a condition as the engine's."""
    match records.tested(wanted):
        case records.OneOf(field, values):
            return qe.FieldCondition(field, match=qe.MatchAny(values))
        case records.Begins(field, prefix):
            return qe.FieldCondition(field, match=qe.MatchPrefix(prefix))
        case records.Between(field, bounds, timed):
            return qe.FieldCondition(field, range=qe.RangeDateTime(**bounds) if timed else qe.RangeFloat(**bounds))
        case None:
            return qe.Filter()
