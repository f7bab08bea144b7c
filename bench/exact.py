"""Exact search by looking at everything, and how much of it others find."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.corpus import Sparse
from penstock.ranking.fusion import rrf
from penstock.ranking.retrieval import Ranking

#: Candidates that each arm gives to the fusion.
CANDIDATES: Final = 100
#: Queries whose scores are held at once: 64 rows of a million floats are 256 MB.
ROWS_AT_ONCE: Final = 64


def dense(vectors: NDArray[np.float32], asked: NDArray[np.float32], k: int) -> list[list[int]]:
    """Return the rows of highest inner product for each query, best first.

    Args:
        vectors: ``float32 [n, dim]``.
        asked: ``float32 [queries, dim]``.
        k: Rows wanted.
    """
    found: list[list[int]] = []
    for first in range(0, len(asked), ROWS_AT_ONCE):
        scores = asked[first : first + ROWS_AT_ONCE] @ vectors.T
        found += [_best(row, k) for row in scores]
    return found


def sparse(documents: Sparse, asked: Sparse, k: int) -> list[list[int]]:
    """Return the rows of highest BM25 score for each query, best first; rows that share no term are left out.

    The engine's rule: query weight x document weight x ``ln(1 + (N - n + 0.5) / (n + 0.5))``.
    """
    order = np.argsort(documents.terms, kind="stable")
    rows = np.repeat(np.arange(len(documents)), np.diff(documents.starts))[order]
    terms, weights = documents.terms[order], documents.weights[order]
    found = []
    for number in range(len(asked)):
        scores = np.zeros(len(documents), np.float32)
        for term, weight in zip(*asked.row(number), strict=True):
            low, high = np.searchsorted(terms, term), np.searchsorted(terms, term, "right")
            holders = int(high - low)
            idf = np.log1p((len(documents) - holders + 0.5) / (holders + 0.5))
            np.add.at(scores, rows[low:high], weight * idf * weights[low:high])
        found.append([row for row in _best(scores, k) if scores[row] > 0])
    return found


def hybrid(dense_found: Sequence[list[int]], sparse_found: Sequence[list[int]], k: int) -> list[list[int]]:
    """Return both arms' rows fused by reciprocal rank."""
    return [
        list(rrf({"dense": _ranked(first), "sparse": _ranked(second)}, {}))[:k]
        for first, second in zip(dense_found, sparse_found, strict=True)
    ]


def recall(found: Sequence[Sequence[int]], exact: Sequence[Sequence[int]], k: int) -> float:
    """Return the mean share of the exact first ``k`` among the first ``k`` found; queries without any are left out."""
    shares = [len({*one[:k]} & {*best[:k]}) / len(best[:k]) for one, best in zip(found, exact, strict=True) if best]
    return sum(shares) / len(shares)


def _ranked(rows: Sequence[int]) -> Ranking[int]:
    return {row: -float(rank) for rank, row in enumerate(rows)}


def _best(scores: NDArray[np.float32], k: int) -> list[int]:
    some = np.argpartition(-scores, min(k, len(scores) - 1))[:k] if len(scores) > k else np.arange(len(scores))
    return [int(row) for row in some[np.argsort(-scores[some], kind="stable")]]
