"""How the engine builds a generation: graph, segments, where things lie. See ``docs/benchmarks/store.md``.

A collection takes these settings over with its next generation, whenever it was made.
"""

from __future__ import annotations

from typing import Final

import qdrant_edge as qe

from penstock.ranking.records import Arm
from penstock.stores.backends.layout import (
    DELETED_SHARE,
    FULL_SCAN_KB,
    HNSW_EF_CONSTRUCT,
    HNSW_M,
    INDEXING_KB,
    LEARNED,
    OVERSAMPLING,
    QUANTILE,
)

#: Threads that build a graph; the others are left to searches and models.
THREADS: Final = 1

#: Threads of each open collection that look at its segments side by side; there are few, and one thread asks.
SEARCH_THREADS: Final = 2

#: How vectors are searched; without it the scores of dense ones would be those of the bytes.
SEARCHING: Final = qe.SearchParams(quantization=qe.QuantizationSearchParams(rescore=True, oversampling=OVERSAMPLING))


#: How known candidates are measured: there are so few that their vectors themselves are compared at once.
MEASURING: Final = qe.SearchParams(quantization=qe.QuantizationSearchParams(ignore=True))


def dense(dim: int) -> qe.EdgeVectorParams:
    """Return how dense vectors are kept: as they are, and once they are indexed also as bytes in memory."""
    quantised = qe.ScalarQuantizationConfig(qe.ScalarType.Int8, quantile=QUANTILE, memory=qe.Memory.Pinned)
    return qe.EdgeVectorParams(size=dim, distance=qe.Distance.Dot, quantization_config=quantised)


def sparse_vectors(*, learned: bool) -> dict[str, qe.EdgeSparseVectorParams]:
    """Return the sparse vectors of a shard by name: the engine weighs those of BM25 by how rare a term is."""
    params = {Arm.SPARSE.value: qe.EdgeSparseVectorParams(modifier=qe.Modifier.Idf)}
    if learned:
        params[LEARNED] = qe.EdgeSparseVectorParams()
    return params


def config(*, learned: bool = False) -> qe.EdgeConfig:
    """Return the settings under which a copy is optimised; the vectors stay as they are.

    Args:
        learned: Whether the shard's sparse vectors say themselves what a term is worth.
    """
    return qe.EdgeConfig(
        # The engine wants the sparse vectors named; all others stay as they were made.
        max_search_threads=SEARCH_THREADS,
        sparse_vectors=sparse_vectors(learned=learned),
        hnsw_config=qe.HnswIndexConfig(
            m=HNSW_M,
            ef_construct=HNSW_EF_CONSTRUCT,
            full_scan_threshold=FULL_SCAN_KB,
            max_indexing_threads=THREADS,
        ),
        optimizers=qe.EdgeOptimizersConfig(
            deleted_threshold=DELETED_SHARE,
            default_segment_number=1,
            indexing_threshold=INDEXING_KB,
        ),
    )
