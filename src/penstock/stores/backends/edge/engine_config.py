"""Engine settings of a generation: HNSW graph, segments, quantisation. See ``docs/benchmarks/store.md``.

A collection adopts changed settings with its next generation.
"""

from __future__ import annotations

from typing import Final

import qdrant_edge as qe

from penstock.ranking.retrieval import Arm
from penstock.stores.backends.layout import (
    DELETED_SHARE,
    FULL_SCAN_KB,
    HNSW_EF_CONSTRUCT,
    HNSW_M,
    INDEXING_KB,
    LEARNED_SPARSE,
    OVERSAMPLING,
    QUANTILE,
)

#: Threads that build a graph; the others are left to searches and models.
INDEXING_THREADS: Final = 1

#: Threads of each open collection that look at its segments side by side; there are few, and one thread asks.
SEARCH_THREADS: Final = 2

#: Parameters of a search; without them the scores of dense vectors would be those of their int8 form.
SEARCH_PARAMS: Final = qe.SearchParams(
    quantization=qe.QuantizationSearchParams(rescore=True, oversampling=OVERSAMPLING)
)


#: Parameters of exact scoring of known candidates: there are so few that their full vectors are compared.
EXACT_SEARCH_PARAMS: Final = qe.SearchParams(quantization=qe.QuantizationSearchParams(ignore=True))


def dense_params(dim: int) -> qe.EdgeVectorParams:
    """Return the settings of dense vectors: kept as they are and, once indexed, also as int8 in memory."""
    quantised = qe.ScalarQuantizationConfig(qe.ScalarType.Int8, quantile=QUANTILE, memory=qe.Memory.Pinned)
    return qe.EdgeVectorParams(size=dim, distance=qe.Distance.Dot, quantization_config=quantised)


def sparse_params(*, learned_sparse: bool) -> dict[str, qe.EdgeSparseVectorParams]:
    """Return the sparse vectors of a shard by name: the engine weighs those of BM25 by how rare a term is."""
    params = {Arm.SPARSE.value: qe.EdgeSparseVectorParams(modifier=qe.Modifier.Idf)}
    if learned_sparse:
        params[LEARNED_SPARSE] = qe.EdgeSparseVectorParams()
    return params


def optimizer_config(*, learned_sparse: bool = False) -> qe.EdgeConfig:
    """Return the settings under which a copy is optimised; the vectors stay as they are."""
    return qe.EdgeConfig(
        # The engine wants the sparse vectors named; all others stay as they were made.
        max_search_threads=SEARCH_THREADS,
        sparse_vectors=sparse_params(learned_sparse=learned_sparse),
        hnsw_config=qe.HnswIndexConfig(
            m=HNSW_M,
            ef_construct=HNSW_EF_CONSTRUCT,
            full_scan_threshold=FULL_SCAN_KB,
            max_indexing_threads=INDEXING_THREADS,
        ),
        optimizers=qe.EdgeOptimizersConfig(
            deleted_threshold=DELETED_SHARE,
            default_segment_number=1,
            indexing_threshold=INDEXING_KB,
        ),
    )
