"""More like this: the stored vectors of a document or of one of its chunks in the place of a query's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock.kernel.context import Context, point_id, run_all
from penstock.kernel.errors import Invalid, Rejected, truncated
from penstock.kernel.vectors import SparseVector
from penstock.search.degradation import RETRY_AFTER_S
from penstock.search.request import Like
from penstock.stores.commands import GetDocuments, ScrollPoints
from penstock.stores.contract import VectorStore
from penstock.stores.data_model import Point

#: Chunks of a document that stand for the whole: its first ones.
CHUNKS_MAX: Final = 8

#: Terms that are looked for, those of the largest weight.
TERMS_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class StoredVectors:
    """Vectors to search by.

    Attributes:
        dense: ``float32 [dim]``, L2-normalised.
        sparse: A query's weights.
    """

    dense: NDArray[np.float32]
    sparse: SparseVector


async def read_vectors(store: VectorStore, collection: str, like: Like, ctx: Context) -> StoredVectors:
    """Return the vectors of a chunk, or the means of a document's first ``CHUNKS_MAX`` chunks.

    Raises:
        Invalid: There is no such document (``document_not_found``) or chunk (``chunk_not_found``).
        Rejected: Its dense vectors have not been made yet (``vectors_pending``).
    """
    head = (await store.run(GetDocuments(collection, [like.id]), ctx)).get(like.id)
    if head is None:
        detail = f"collection {collection!r} has no document {truncated(like.id)!r}"
        raise Invalid(detail, field="like.id", code="document_not_found")
    numbers = range(min(head.chunks or 1, CHUNKS_MAX)) if like.chunk is None else [like.chunk]
    points: dict[int, Point] = {}

    async def read(number: int) -> None:
        # Points are read with their vectors in the order of their ids: this one, or else the one after it.
        page = await store.run(ScrollPoints(collection, point_id(like.id, number), 1), ctx)
        points.update((number, one) for one in page.points if (one.payload.id, one.payload.chunk) == (like.id, number))

    await run_all([read(number) for number in numbers])
    if not points:
        detail = f"document {truncated(like.id)!r} has no chunk {numbers[0]}"
        raise Invalid(detail, field="like.chunk", code="chunk_not_found")
    dense = [one.dense for number in sorted(points) if (one := points[number]).dense is not None]
    if not dense:
        detail = f"the vectors of document {truncated(like.id)!r} are still being made; try again in a moment"
        raise Rejected(detail, code="vectors_pending", retry_after_s=RETRY_AFTER_S)
    return _mean(dense, [points[number] for number in sorted(points)])


def _mean(vectors: list[NDArray[np.float32]], points: list[Point]) -> StoredVectors:
    dense = np.asarray(np.mean(vectors, axis=0), np.float32)
    length = float(np.linalg.norm(dense))
    indices, places = np.unique(np.concatenate([point.sparse.indices for point in points]), return_inverse=True)
    values = np.zeros(len(indices), np.float32)
    np.add.at(values, places, np.concatenate([point.sparse.values for point in points]))
    kept = np.sort(np.argsort(-values, kind="stable")[:TERMS_MAX])
    sparse = SparseVector(indices[kept].astype(np.uint32), (values[kept] / len(points)).astype(np.float32))
    return StoredVectors(dense / length if length else dense, sparse)
