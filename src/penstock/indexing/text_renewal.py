"""Renewal of a collection's BM25 vectors to the newest version of their text, in place, while it is searched.

1. The collection's record says that it is being renewed. From then on documents are written in the new version, and
   queries have the terms of both.
2. Every point is read, and gets a new sparse vector if its own differs. This is repeated until a whole pass finds
   nothing to replace: a document that was written meanwhile is then right as well.
3. The record says the new version.

After a crash in between the record still says that the collection is being renewed, and a second renewal ends it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from penstock.kernel.context import Context
from penstock.kernel.errors import Unavailable
from penstock.kernel.messages import TextKind
from penstock.kernel.vectors import SparseVector
from penstock.models.contract import SparseEncoder
from penstock.stores.commands import DescribeCollection, ReplaceSparse, ScrollPoints, SetTextVersion
from penstock.stores.contract import VectorStore, check_usable
from penstock.stores.data_model import TEXT_FOLDED, TEXT_PLAIN, Point, SparseReplacement

#: Points read and renewed at once.
PAGE_POINTS: Final = 128

#: Passes over a collection; two are enough unless documents are written by those who do not know of the renewal.
PASSES_MAX: Final = 10


@dataclass(frozen=True, slots=True)
class TextRenewal:
    """Renewal of collections.

    Attributes:
        store: Holds the points.
        sparse: Makes sparse vectors.
        compose_sparse: A chunk's text, path and symbol as the sparse model wants them in a version.
        forget: Called with the collection's name when its version has changed.
        settle_s: Seconds after which every other server has learnt of the change, and ended what it wrote before.
    """

    store: VectorStore
    sparse: SparseEncoder
    compose_sparse: Callable[[str, str, str, int], str]
    forget: Callable[[str], None]
    settle_s: float = 0.0

    async def run(self, collection: str, ctx: Context) -> int:
        """Renew a collection and return the number of chunks whose vectors were replaced.

        Raises:
            CollectionDamaged: It is damaged.
            Unavailable: Too much is written to it (``write_conflict``); or the store or the model does not answer.
            Invalid: There is no such collection.

        Cancellation: The collection stays searchable; run it again to end it.
        """
        info = await self.store.run(DescribeCollection(collection), ctx)
        check_usable(info)
        if info.text_version == TEXT_FOLDED:
            return 0
        renewed = 0
        # Vectors of a learned model are the same in every version.
        if not info.sparse:
            await self._record(collection, TEXT_PLAIN, ctx, renewing=True)
            # Updates are applied in order: when this is answered, so are those of writers that knew the version before.
            await self._record(collection, TEXT_PLAIN, ctx, renewing=True)
            await asyncio.sleep(self.settle_s)
            renewed = await self._until_clean(collection, ctx)
        await self._record(collection, TEXT_FOLDED, ctx, renewing=False)
        return renewed

    async def _record(self, collection: str, text: int, ctx: Context, *, renewing: bool) -> None:
        try:
            await self.store.run(SetTextVersion(collection, text, renewing), ctx)
        finally:
            self.forget(collection)

    async def _until_clean(self, collection: str, ctx: Context) -> int:
        renewed = 0
        for _ in range(PASSES_MAX):
            replaced = await self._pass(collection, ctx)
            if not replaced:
                return renewed
            renewed += replaced
        raise Unavailable(
            f"collection {collection!r} is written to by a server that does not know of its renewal;"
            " bring all servers to this release, and renew it again",
            dependency="store",
            code="write_conflict",
        )

    async def _pass(self, collection: str, ctx: Context) -> int:
        """Replace the vectors that differ, page by page, and return how many did."""
        replaced, after = 0, None
        while True:
            page = await self.store.run(ScrollPoints(collection, after, PAGE_POINTS), ctx)
            points = await self._outdated(page.points, ctx)
            if points:
                await self.store.run(ReplaceSparse(collection, points), ctx)
            replaced += len(points)
            after = page.next
            if after is None:
                return replaced

    async def _outdated(self, points: Sequence[Point], ctx: Context) -> list[SparseReplacement]:
        """Return new vectors of those points whose own are of another version."""
        asked = [(point, (point.payload.text, point.payload.path, point.payload.symbol)) for point in points]
        # ASCII is the same in every version.
        asked = [(point, parts) for point, parts in asked if not all(map(str.isascii, parts))]
        if not asked:
            return []
        texts = []
        for _, parts in asked:
            texts.append(self.compose_sparse(*parts, TEXT_FOLDED))
            await asyncio.sleep(0)
        vectors = await self.sparse.encode(texts, TextKind.DOCUMENT, ctx)
        return [
            SparseReplacement(point.payload.id, point.payload.chunk, vector)
            for (point, _), vector in zip(asked, vectors, strict=True)
            if not _same(point.sparse, vector)
        ]


def _same(one: SparseVector, other: SparseVector) -> bool:
    if len(one.indices) != len(other.indices):
        return False
    ours, theirs = np.argsort(one.indices), np.argsort(other.indices)
    return np.array_equal(one.indices[ours], other.indices[theirs]) and np.allclose(
        one.values[ours], other.values[theirs]
    )
