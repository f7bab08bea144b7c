"""Codec between the store's records and those of :mod:`penstock.stores.backends.edge.ipc`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from penstock.kernel.late_interaction import TokenVectors
from penstock.kernel.vectors import DenseVectors, SparseVector
from penstock.ranking.retrieval import RetrievalQuery
from penstock.stores.backends.edge import ipc
from penstock.stores.data_model import ArmQuery, Filter, Point, RetrievedHit

#: Bytes of hits that are decoded before others have the event loop: some 3 ms where they are metadata of many keys.
SLICE_BYTES: Final = 262_144

_FOUND: Final = msgspec.msgpack.Decoder(RetrievedHit)


def pack_vector(vector: DenseVectors | SparseVector) -> ipc.WireDenseVector | ipc.WireSparseVector:
    """Return a vector in its wire form."""
    return _sparse(vector) if isinstance(vector, SparseVector) else _dense(vector)


def pack_token_vectors(vectors: NDArray[Any]) -> ipc.WireTokenVectors:
    """Return token vectors as they travel."""
    return ipc.WireTokenVectors(np.ascontiguousarray(vectors).tobytes(), len(vectors))


def _dense(vector: NDArray[Any]) -> ipc.WireDenseVector:
    return ipc.WireDenseVector(np.ascontiguousarray(vector, "<f4").tobytes())


def _sparse(vector: SparseVector) -> ipc.WireSparseVector:
    indices = np.ascontiguousarray(vector.indices, "<u4").tobytes()
    return ipc.WireSparseVector(indices, np.ascontiguousarray(vector.values, "<f4").tobytes())


def pack_point(point: Point) -> ipc.WirePoint:
    """Return a point in its wire form."""
    late = None if point.token_vectors is None else pack_token_vectors(point.token_vectors)
    return ipc.WirePoint(point.payload, _dense(point.dense), _sparse(point.sparse), late)


def pack_retrieval(collection: str, query: RetrievalQuery, filter: Filter) -> ipc.Retrieve:
    """Return a retrieval in its wire form."""
    return ipc.Retrieve(
        collection,
        query.limit,
        query.candidates,
        None if query.dense is None else _dense(query.dense),
        None if query.sparse is None else _sparse(query.sparse),
        None if query.token_vectors is None else pack_token_vectors(query.token_vectors),
        dict(query.weights),
        query.fusion,
        query.rerank,
        query.text,
        query.explain,
        list(filter),
    )


def unpack_retrieval(command: ipc.Retrieve) -> RetrievalQuery:
    """Return a retrieval as the ranking sees it."""
    return RetrievalQuery(
        command.limit,
        command.candidates,
        None if command.dense is None else unpack_dense(command.dense),
        None if command.sparse is None else unpack_sparse(command.sparse),
        None if command.tokens is None else unpack_token_vectors(command.tokens),
        command.weights,
        command.fusion,
        command.rerank,
        command.query,
        command.explain,
    )


async def unpack_hits(hits: Sequence[msgspec.Raw]) -> list[RetrievedHit]:
    """Decode hits; the event loop is released after each ``SLICE_BYTES``."""
    unpacked, size = [], 0
    for one in hits:
        unpacked.append(_FOUND.decode(one))
        size += len(memoryview(one))
        if size >= SLICE_BYTES:
            size = 0
            await asyncio.sleep(0)
    return unpacked


def unpack_dense(vector: ipc.WireDenseVector) -> DenseVectors:
    """Return ``float32 [dim]``."""
    return np.frombuffer(vector.data, "<f4")


def unpack_sparse(vector: ipc.WireSparseVector) -> SparseVector:
    """Return a sparse vector."""
    return SparseVector(np.frombuffer(vector.indices, "<u4"), np.frombuffer(vector.values, "<f4"))


def unpack_token_vectors(vectors: ipc.WireTokenVectors) -> TokenVectors:
    """Return ``int8 [rows, token_dim]``."""
    return np.frombuffer(vectors.data, np.int8).reshape(vectors.rows, -1)


def unpack_vector(vector: ipc.WireDenseVector | ipc.WireSparseVector) -> DenseVectors | SparseVector:
    """Return a vector in the contract's form."""
    return unpack_sparse(vector) if isinstance(vector, ipc.WireSparseVector) else unpack_dense(vector)


def unpack_point(point: ipc.WirePoint) -> Point:
    """Return a point from its wire form."""
    late = None if point.token_vectors is None else unpack_token_vectors(point.token_vectors)
    return Point(point.payload, unpack_dense(point.dense), unpack_sparse(point.sparse), late)


def pack_search(query: ArmQuery) -> ipc.WireArmQuery:
    """Return a query of one arm in its wire form."""
    among = None if query.among is None else list(query.among)
    return ipc.WireArmQuery(pack_vector(query.vector), query.limit, list(query.filter), among)
