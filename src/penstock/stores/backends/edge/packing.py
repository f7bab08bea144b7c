"""Records of ours as they travel to the store process and back (:mod:`penstock.stores.backends.edge.wire`)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from penstock.kernel.late import TokenVectors
from penstock.kernel.vectors import DenseVectors, SparseVector
from penstock.ranking.records import Retrieval
from penstock.stores.backends.edge import wire
from penstock.stores.records import ArmQuery, Filter, Found, Point

#: Bytes of hits that are decoded before others have the event loop: some 3 ms where they are metadata of many keys.
SLICE_BYTES: Final = 262_144

_FOUND: Final = msgspec.msgpack.Decoder(Found)


def pack_vector(vector: DenseVectors | SparseVector) -> wire.Dense | wire.Sparse:
    """Return a vector as it travels."""
    return _sparse(vector) if isinstance(vector, SparseVector) else _dense(vector)


def pack_late(vectors: NDArray[Any]) -> wire.Late:
    """Return token vectors as they travel."""
    return wire.Late(np.ascontiguousarray(vectors).tobytes(), len(vectors))


def _dense(vector: NDArray[Any]) -> wire.Dense:
    return wire.Dense(np.ascontiguousarray(vector, "<f4").tobytes())


def _sparse(vector: SparseVector) -> wire.Sparse:
    indices = np.ascontiguousarray(vector.indices, "<u4").tobytes()
    return wire.Sparse(indices, np.ascontiguousarray(vector.values, "<f4").tobytes())


def pack_point(point: Point) -> wire.WirePoint:
    """Return a point as it travels."""
    late = None if point.late is None else pack_late(point.late)
    return wire.WirePoint(point.payload, _dense(point.dense), _sparse(point.sparse), late)


def pack_retrieval(collection: str, wanted: Retrieval, filter: Filter) -> wire.Retrieve:
    """Return a retrieval as it travels."""
    return wire.Retrieve(
        collection,
        wanted.limit,
        wanted.candidates,
        None if wanted.dense is None else _dense(wanted.dense),
        None if wanted.sparse is None else _sparse(wanted.sparse),
        None if wanted.tokens is None else pack_late(wanted.tokens),
        dict(wanted.weights),
        wanted.fusion,
        wanted.rerank,
        wanted.query,
        wanted.explain,
        list(filter),
    )


def unpack_retrieval(command: wire.Retrieve) -> Retrieval:
    """Return a retrieval as the ranking sees it."""
    return Retrieval(
        command.limit,
        command.candidates,
        None if command.dense is None else unpack_dense(command.dense),
        None if command.sparse is None else unpack_sparse(command.sparse),
        None if command.tokens is None else unpack_late(command.tokens),
        command.weights,
        command.fusion,
        command.rerank,
        command.query,
        command.explain,
    )


async def unpack_hits(hits: Sequence[msgspec.Raw]) -> list[Found]:
    """Return hits as stores tell them; others have the event loop after each ``SLICE_BYTES``."""
    unpacked, size = [], 0
    for one in hits:
        unpacked.append(_FOUND.decode(one))
        size += len(memoryview(one))
        if size >= SLICE_BYTES:
            size = 0
            await asyncio.sleep(0)
    return unpacked


def unpack_dense(vector: wire.Dense) -> DenseVectors:
    """Return ``float32 [dim]``."""
    return np.frombuffer(vector.data, "<f4")


def unpack_sparse(vector: wire.Sparse) -> SparseVector:
    """Return a sparse vector."""
    return SparseVector(np.frombuffer(vector.indices, "<u4"), np.frombuffer(vector.values, "<f4"))


def unpack_late(vectors: wire.Late) -> TokenVectors:
    """Return ``int8 [rows, late]``."""
    return np.frombuffer(vectors.data, np.int8).reshape(vectors.rows, -1)


def unpack_vector(vector: wire.Dense | wire.Sparse) -> DenseVectors | SparseVector:
    """Return a vector as the contract has it."""
    return unpack_sparse(vector) if isinstance(vector, wire.Sparse) else unpack_dense(vector)


def unpack_point(point: wire.WirePoint) -> Point:
    """Return a point that has travelled."""
    late = None if point.late is None else unpack_late(point.late)
    return Point(point.payload, unpack_dense(point.dense), unpack_sparse(point.sparse), late)


def pack_search(query: ArmQuery) -> wire.Search:
    """Return a query of one arm as it travels."""
    among = None if query.among is None else list(query.among)
    return wire.Search(pack_vector(query.vector), query.limit, list(query.filter), among)
