"""A cross-encoder reads the best candidates again: it decides their order, not which they are. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from penstock.ranking.fusion import best_first
from penstock.ranking.records import P, Ranking

#: The range that scores are spread over where the candidates' own range is none, as a share of their size.
RANGE_MIN: Final = 1e-3


def texts_read(texts: int, candidates: int, full: int) -> int:
    """Return how many texts are read where fewer candidates are taken: the same share of them, at least one.

    Args:
        texts: How many are read otherwise.
        candidates: Candidates taken from each arm.
        full: How many are taken otherwise.
    """
    return max(1, min(texts, texts * candidates // full))


def placed(ranked: Ranking[P], relevance: Sequence[float]) -> Ranking[P]:
    """Return the ranking with its first ones in the order of their relevance.

    Their scores are spread over the range that those had before: whatever scale the model has (logits, probabilities),
    they stay above those that it has not read, and what weighs scores afterwards weighs as before.

    Args:
        ranked: Best first.
        relevance: The model's scores of the first ones, higher is better.
    """
    points, scores = list(ranked), list(ranked.values())
    read = points[: len(relevance)]
    if not read:
        return dict(ranked)
    low, high = scores[len(read) - 1], scores[0]
    high = max(high, low + RANGE_MIN * max(abs(low), 1.0))
    least, most = min(relevance), max(relevance)
    span = most - least

    def spread(score: float) -> float:
        return low + (high - low) * ((score - least) / span if span > 0 else 0.0)

    first = best_first({point: spread(score) for point, score in zip(read, relevance, strict=True)})
    return {**first, **{point: ranked[point] for point in points[len(read) :]}}
