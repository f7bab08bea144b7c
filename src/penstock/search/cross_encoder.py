"""The cross-encoder in a search: how many texts it reads, and the order that follows from its scores. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from penstock.models.contract import Reranker
from penstock.ranking.fusion import sort_best_first
from penstock.ranking.retrieval import P, Ranking, StageRank
from penstock.stores.data_model import RetrievedHit


def reorder_hits(
    found: Sequence[RetrievedHit], order: Ranking[str], stages: Mapping[str, Ranking[str]]
) -> list[RetrievedHit]:
    """Return hits in another order; hits with explanations also get the ranks of the given stages."""
    by_point = {one.point: one for one in found}
    ranks = {name: {point: rank for rank, point in enumerate(stage, 1)} for name, stage in stages.items()}

    def moved(point: str, score: float) -> RetrievedHit:
        one = by_point[point]
        further = {name: StageRank(ranks[name].get(point), stage.get(point)) for name, stage in stages.items()}
        return RetrievedHit(point, score, one.payload, {**one.stage_ranks, **further} if one.stage_ranks else {})

    return [moved(point, score) for point, score in order.items()]


#: The range that scores are spread over where the candidates' own range is none, as a share of their size.
SCORE_RANGE_MIN: Final = 1e-3


def texts_to_read(texts: int, candidates: int, full_candidates: int) -> int:
    """Return how many texts are read where fewer candidates are taken: the same share of them, at least one."""
    return max(1, min(texts, texts * candidates // full_candidates))


def reorder_by_relevance(ranked: Ranking[P], relevance: Sequence[float]) -> Ranking[P]:
    """Return the ranking with its first ones in the order of their relevance.

    Their scores are spread over the range that those had before: whatever scale the model has (logits, probabilities),
    they stay above those that it has not read, and later factors on scores have the same effect as before.

    Args:
        ranked: Best first.
        relevance: The model's scores of the first ones, higher is better.
    """
    points, scores = list(ranked), list(ranked.values())
    read = points[: len(relevance)]
    if not read:
        return dict(ranked)
    low, high = scores[len(read) - 1], scores[0]
    high = max(high, low + SCORE_RANGE_MIN * max(abs(low), 1.0))
    least, most = min(relevance), max(relevance)
    span = most - least

    def spread(score: float) -> float:
        return low + (high - low) * ((score - least) / span if span > 0 else 0.0)

    first = sort_best_first({point: spread(score) for point, score in zip(read, relevance, strict=True)})
    return {**first, **{point: ranked[point] for point in points[len(read) :]}}


#: Hits that a cross-encoder may be given, and to which signals are applied after it.
CROSS_ENCODER_HITS: Final = 50

#: The share of the time left that a cross-encoder may take.
CROSS_ENCODER_TIME_SHARE: Final = 0.5


@dataclass(frozen=True, slots=True)
class CrossEncoder:
    """A cross-encoder, and how many texts of a search it reads."""

    reranker: Reranker
    texts: int
