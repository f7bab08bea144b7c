"""Whether two stores hold the same collection: by count, by whole points, by what they find. Reads only."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from penstock.kernel.context import Context
from penstock.kernel.ids import point_id
from penstock.policies.jitter import Random
from penstock.ranking.records import Scored
from penstock.stores.contract import MovableStore
from penstock.stores.records import ArmQuery, Point

#: Points looked at whole and asked for by their own vectors.
SAMPLES: Final = 20

#: Hits of each query that are compared.
TOP: Final = 10

#: Share of one store's best hits that the other's must hold, on average over the samples. Not all: a graph finds
#: nearly everything, and BM25 weighs terms by what a store has counted, deleted chunks included until it cleans up.
AGREEMENT_MIN: Final = 0.9

#: Scores nearer than this are a tie: which of them is the last of the best is chance.
TIE: Final = 1e-4


@dataclass(frozen=True, slots=True)
class Comparison:
    """What comparing has shown.

    Attributes:
        chunks: Points of the source and of the target.
        documents: Documents of both.
        samples: Points looked at.
        differing: Samples that the target does not hold as the source does, by id.
        dense: Share of the best dense hits that both find, 1 without a sample.
        sparse: The same of the sparse ones.
    """

    chunks: tuple[int, int]
    documents: tuple[int, int]
    samples: int
    differing: tuple[str, ...]
    dense: float
    sparse: float

    @property
    def same(self) -> bool:
        """Whether both hold and find the same."""
        return not self.faults

    @property
    def faults(self) -> list[str]:
        """What differs, in words."""
        found = [
            f"{what}: {ours:,} in the source, {theirs:,} in the target"
            for what, (ours, theirs) in (("chunks", self.chunks), ("documents", self.documents))
            if ours != theirs
        ]
        if self.differing:
            found.append(f"{len(self.differing)} of {self.samples} samples differ, {self.differing[0]} for instance")
        found += [
            f"of the best {TOP} {arm} hits both find {share:.0%} only"
            for arm, share in (("dense", self.dense), ("sparse", self.sparse))
            if share < AGREEMENT_MIN
        ]
        return found


async def compare(
    source: MovableStore, target: MovableStore, collection: str, target_collection: str, luck: Random
) -> Comparison:
    """Compare a collection of two stores.

    Args:
        source: One of them.
        target: The other.
        collection: Its name in the source.
        target_collection: Its name in the target.
        luck: Chooses the samples.

    Raises:
        PenstockError: One of them does not answer.
    """
    ctx = Context.background("migrate")
    ours, theirs = await source.collection(collection, ctx), await target.collection(target_collection, ctx)
    samples = await _samples(source, collection, luck, ctx)
    differing, dense, sparse = [], [], []
    for one in samples:
        place = point_id(one.payload.id, one.payload.chunk)
        page = await target.points(target_collection, place, 1, ctx)
        if not page.points or not same(one, page.points[0]):
            differing.append(place)
        queries = [ArmQuery(one.dense, TOP), ArmQuery(one.sparse, TOP)]
        found = await source.search_all(collection, queries, ctx)
        again = await target.search_all(target_collection, queries, ctx)
        dense.append(agreement(found[0], again[0]))
        sparse.append(agreement(found[1], again[1]))
    return Comparison(
        chunks=(ours.chunks, theirs.chunks),
        documents=(ours.documents, theirs.documents),
        samples=len(samples),
        differing=tuple(differing),
        dense=sum(dense) / len(dense) if dense else 1.0,
        sparse=sum(sparse) / len(sparse) if sparse else 1.0,
    )


async def _samples(store: MovableStore, collection: str, luck: Random, ctx: Context) -> list[Point]:
    """Return points at random: ids are digests, so that the next one after a random id is any."""
    found: dict[str, Point] = {}
    for _ in range(SAMPLES):
        where = str(uuid.UUID(int=int(luck() * 2**64) << 64))
        page = await store.points(collection, where, 1, ctx)
        points = page.points or (await store.points(collection, None, 1, ctx)).points
        found |= {point_id(one.payload.id, one.payload.chunk): one for one in points}
    return list(found.values())


def same(one: Point, other: Point) -> bool:
    """Whether two points are the same, every vector included."""
    if one.payload != other.payload or (one.late is None) is not (other.late is None):
        return False
    if one.late is not None and other.late is not None and not np.array_equal(one.late, other.late):
        return False
    ours, theirs = (dict(zip(p.sparse.indices.tolist(), p.sparse.values.tolist(), strict=True)) for p in (one, other))
    return np.array_equal(one.dense, other.dense) and ours == theirs


def agreement(found: Sequence[Scored], again: Sequence[Scored]) -> float:
    """Return which share of hits is among others; one that ties with the last counts as being there."""
    if not found:
        return 1.0
    there, last = {hit.point for hit in again}, found[-1].score
    return sum(hit.point in there or hit.score - last < TIE for hit in found) / len(found)
