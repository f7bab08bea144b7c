"""``qdrant-client``'s local mode: the client's own search in this process, in Python and NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from qdrant_client import QdrantClient, models

from bench.corpus import Corpus
from bench.peers.contract import CANDIDATES, HITS, Query

NAME: Final = "bench"
UPSERT_POINTS: Final = 1000
#: It counts ranks from 0, as the engine does.
RRF_K: Final = 61


class QdrantLocal:
    """A collection in memory, hybrid by prefetch and rank fusion."""

    text = "qdrant-client, local mode in memory"
    hybrid = True
    batches = True

    def __init__(self) -> None:
        self._client = QdrantClient(":memory:")

    def fill(self, corpus: Corpus, directory: str) -> None:  # noqa: ARG002 - it keeps nothing on disk
        """Write every row."""
        self._client.create_collection(
            NAME,
            vectors_config={
                "dense": models.VectorParams(size=corpus.dense.shape[1], distance=models.Distance.DOT),
            },
            sparse_vectors_config={"sparse": models.SparseVectorParams(modifier=models.Modifier.IDF)},
        )
        for first in range(0, len(corpus.texts), UPSERT_POINTS):
            rows = range(first, min(first + UPSERT_POINTS, len(corpus.texts)))
            self._client.upsert(NAME, [_point(corpus, row) for row in rows])

    def search(self, queries: Sequence[Query], *, hybrid: bool) -> list[list[int]]:
        """Ask all of them as one batch."""
        asked = [_hybrid(query) if hybrid else _dense(query) for query in queries]
        answers = self._client.query_batch_points(NAME, asked)
        return [[int(point.id) for point in answer.points] for answer in answers]


def _sparse(query: Query) -> models.SparseVector:
    return models.SparseVector(indices=query.terms.tolist(), values=query.weights.tolist())


def _point(corpus: Corpus, row: int) -> models.PointStruct:
    terms, weights = corpus.sparse.row(row)
    sparse = models.SparseVector(indices=terms.tolist(), values=weights.tolist())
    payload = {"id": str(row), "chunk": 0, "text": corpus.texts[row]}
    return models.PointStruct(id=row, vector={"dense": corpus.dense[row].tolist(), "sparse": sparse}, payload=payload)


def _dense(query: Query) -> models.QueryRequest:
    return models.QueryRequest(query=query.dense.tolist(), using="dense", limit=HITS, with_payload=True)


def _hybrid(query: Query) -> models.QueryRequest:
    arms = [
        models.Prefetch(query=query.dense.tolist(), using="dense", limit=CANDIDATES),
        models.Prefetch(query=_sparse(query), using="sparse", limit=CANDIDATES),
    ]
    fusion = models.RrfQuery(rrf=models.Rrf(k=RRF_K))
    return models.QueryRequest(prefetch=arms, query=fusion, limit=HITS, with_payload=True)
