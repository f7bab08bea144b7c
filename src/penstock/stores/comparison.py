"""Comparison of a collection in two stores: counts, whole points and search results. Reads only."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from penstock.kernel.context import Context, point_id
from penstock.policies.jitter import Rng
from penstock.ranking.retrieval import ScoredPoint
from penstock.stores.commands import DescribeCollection, ScrollPoints, SearchBatch
from penstock.stores.contract import VectorStore
from penstock.stores.data_model import ArmQuery, Point

#: Points looked at whole and asked for by their own vectors.
SAMPLE_POINTS: Final = 20

#: Hits of each query that are compared.
TOP_K: Final = 10

#: Share of one store's best hits that the other's must hold, on average over the samples. Not all: a graph finds
#: nearly everything, and BM25 weighs terms by what a store has counted, deleted chunks included until it cleans up.
OVERLAP_MIN: Final = 0.9

#: Scores nearer than this are a tie: which of them is the last of the best is chance.
SCORE_TIE: Final = 1e-4


@dataclass(frozen=True, slots=True)
class CollectionComparison:
    """Result of comparing a collection in two stores.

    Attributes:
        chunks: Points of the source and of the target.
        documents: Documents of both.
        samples: Points looked at.
        differing_points: Samples that the target does not hold as the source does, by id.
        dense_overlap: Share of the best dense hits that both find, 1 without a sample.
        sparse_overlap: The same of the sparse ones.
    """

    chunks: tuple[int, int]
    documents: tuple[int, int]
    samples: int
    differing_points: tuple[str, ...]
    dense_overlap: float
    sparse_overlap: float

    @property
    def matches(self) -> bool:
        """True if both stores hold and find the same."""
        return not self.differences

    @property
    def differences(self) -> list[str]:
        """The differences, in words."""
        found = [
            f"{what}: {ours:,} in the source, {theirs:,} in the target"
            for what, (ours, theirs) in (("chunks", self.chunks), ("documents", self.documents))
            if ours != theirs
        ]
        if self.differing_points:
            found.append(
                f"{len(self.differing_points)} of {self.samples} samples differ,"
                f" {self.differing_points[0]} for instance"
            )
        found += [
            f"of the best {TOP_K} {arm} hits both find {share:.0%} only"
            for arm, share in (("dense", self.dense_overlap), ("sparse", self.sparse_overlap))
            if share < OVERLAP_MIN
        ]
        return found


async def compare_collections(
    source: VectorStore, target: VectorStore, collection: str, target_collection: str, rng: Rng
) -> CollectionComparison:
    """Compare a collection of two stores.

    Raises:
        PenstockError: One of them does not answer.
    """
    ctx = Context.background("migrate")
    ours, theirs = (
        await source.run(DescribeCollection(collection), ctx),
        await target.run(DescribeCollection(target_collection), ctx),
    )
    samples = await _samples(source, collection, rng, ctx)
    differing: list[str] = []
    dense: list[float] = []
    sparse: list[float] = []
    for one in samples:
        place = point_id(one.payload.id, one.payload.chunk)
        page = await target.run(ScrollPoints(target_collection, place, 1), ctx)
        if not page.points or not same_point(one, page.points[0]):
            differing.append(place)
        vectors = [vector for vector in (one.sparse, one.dense) if vector is not None]
        queries = [ArmQuery(vector, TOP_K) for vector in vectors]
        found = await source.run(SearchBatch(collection, queries), ctx)
        again = await target.run(SearchBatch(target_collection, queries), ctx)
        for overlaps, ours_found, theirs_found in zip((sparse, dense), found, again, strict=False):
            overlaps.append(hit_overlap(ours_found, theirs_found))
    return CollectionComparison(
        chunks=(ours.chunks, theirs.chunks),
        documents=(ours.documents, theirs.documents),
        samples=len(samples),
        differing_points=tuple(differing),
        dense_overlap=sum(dense) / len(dense) if dense else 1.0,
        sparse_overlap=sum(sparse) / len(sparse) if sparse else 1.0,
    )


async def _samples(store: VectorStore, collection: str, rng: Rng, ctx: Context) -> list[Point]:
    """Return random points: ids are digests, so the point that follows a random id is a random one."""
    found: dict[str, Point] = {}
    for _ in range(SAMPLE_POINTS):
        where = str(uuid.UUID(int=int(rng() * 2**64) << 64))
        page = await store.run(ScrollPoints(collection, where, 1), ctx)
        points = page.points or (await store.run(ScrollPoints(collection, None, 1), ctx)).points
        found |= {point_id(one.payload.id, one.payload.chunk): one for one in points}
    return list(found.values())


def same_point(one: Point, other: Point) -> bool:
    """Return whether two points are equal, every vector included."""
    if one.payload != other.payload:
        return False
    arrays = (one.dense, other.dense), (one.token_vectors, other.token_vectors)
    if not all(ours is theirs or np.array_equal(ours, theirs) for ours, theirs in arrays):  # type: ignore[arg-type]
        return False
    ours, theirs = (dict(zip(p.sparse.indices.tolist(), p.sparse.values.tolist(), strict=True)) for p in (one, other))
    return ours == theirs


def hit_overlap(source_hits: Sequence[ScoredPoint], target_hits: Sequence[ScoredPoint]) -> float:
    """Return the share of the source's hits that the target also has; a tie with the last hit counts as shared."""
    if not source_hits:
        return 1.0
    there, last = {hit.point for hit in target_hits}, source_hits[-1].score
    return sum(hit.point in there or hit.score - last < SCORE_TIE for hit in source_hits) / len(source_hits)
