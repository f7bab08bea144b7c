"""The bare engine that Penstock is built on: ``qdrant-edge-py`` in this process, nothing around it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import qdrant_edge as qe

from bench.corpus import Corpus
from bench.peers.contract import CANDIDATES, HITS, Query

UPSERT_POINTS: Final = 500
#: The engine counts ranks from 0: the 60 of the paper is 61 there.
RRF_K: Final = 61


class Engine:
    """One shard, hybrid by prefetch and rank fusion.

    Args:
        optimised: Whether the engine's optimiser runs after filling: one segment, with a graph.
    """

    hybrid = True
    batches = True

    def __init__(self, *, optimised: bool) -> None:
        self.text = f"qdrant-edge-py, {'optimised: one segment with an HNSW graph' if optimised else 'as filled'}"
        self._optimised = optimised
        self._shard: qe.EdgeShard | None = None

    def fill(self, corpus: Corpus, directory: str) -> None:
        """Write every row in some hundred at a time, then optimise if wanted."""
        Path(directory).mkdir(parents=True)
        config = qe.EdgeConfig(
            vectors={"dense": qe.EdgeVectorParams(size=corpus.dense.shape[1], distance=qe.Distance.Dot)},
            sparse_vectors={"sparse": qe.EdgeSparseVectorParams(modifier=qe.Modifier.Idf)},
        )
        self._shard = shard = qe.EdgeShard.create(directory, config)
        for first in range(0, len(corpus.texts), UPSERT_POINTS):
            rows = range(first, min(first + UPSERT_POINTS, len(corpus.texts)))
            shard.update(qe.UpdateOperation.upsert_points([_point(corpus, row) for row in rows]))
        shard.flush()
        if self._optimised:
            shard.optimize()

    def search(self, queries: Sequence[Query], *, hybrid: bool) -> list[list[int]]:
        """Ask all of them as one batch."""
        assert self._shard is not None
        asked = [_hybrid(query) if hybrid else _dense(query) for query in queries]
        return [[int(str(hit.id)) for hit in hits] for hits in self._shard.query_batch(qe.QueryBatchRequest(asked))]


def _point(corpus: Corpus, row: int) -> qe.Point:
    terms, weights = corpus.sparse.row(row)
    vectors = {"dense": corpus.dense[row].tolist(), "sparse": qe.SparseVector(terms.tolist(), weights.tolist())}
    return qe.Point(row, vectors, {"id": str(row), "chunk": 0, "text": corpus.texts[row]})


def _dense(query: Query) -> qe.QueryRequest:
    nearest = qe.Query.Nearest(query.dense.tolist(), using="dense")
    return qe.QueryRequest(limit=HITS, query=nearest, with_payload=True, with_vector=False)


def _hybrid(query: Query) -> qe.QueryRequest:
    words = qe.SparseVector(query.terms.tolist(), query.weights.tolist())
    arms = [
        qe.Prefetch(CANDIDATES, qe.Query.Nearest(query.dense.tolist(), using="dense")),
        qe.Prefetch(CANDIDATES, qe.Query.Nearest(words, using="sparse")),
    ]
    fusion = qe.Fusion.Rrf(RRF_K)
    return qe.QueryRequest(limit=HITS, prefetches=arms, query=fusion, with_payload=True, with_vector=False)
