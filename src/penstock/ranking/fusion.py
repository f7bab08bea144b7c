"""Fusion of several rankings into one, by rank (RRF) or by score. Pure functions over point ids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from penstock.ranking.retrieval import P, Ranking

#: Reciprocal rank fusion's constant, ranks counted from 1. Cormack, Clarke, Büttcher: Reciprocal
#: rank fusion outperforms Condorcet and individual rank learning methods, SIGIR 2009.
RRF_K: Final = 60

#: By how much more a later arm's ranks count. Two ranks that follow on each other differ by a hundred times more.
TIE_BREAK_SHARE: Final = 1e-5


def rrf(rankings: Mapping[str, Ranking[P]], weights: Mapping[str, float], k: int = RRF_K) -> Ranking[P]:
    """Fuse by rank: ``score(d) = Σ weight / (k + rank(d))``, ranks from 1.

    Args:
        rankings: Each arm's points, best first.
        weights: Weight by arm; an arm that is not named counts 1.
        k: The constant.

    Two points found at the same ranks, each by one arm, would be equal, and there are many such pairs. So a later arm's
    ranks count ``TIE_BREAK_SHARE`` more, which changes no other order.

    Returns:
        Every point of any arm, best first.
    """
    scores: dict[P, float] = {}
    stretch = 1.0
    for arm, ranking in rankings.items():
        weight = weights.get(arm, 1.0)
        for rank, point in enumerate(ranking, 1):
            scores[point] = scores.get(point, 0.0) + weight / (k + rank * stretch)
        stretch += TIE_BREAK_SHARE
    return sort_best_first(scores)


def minmax(rankings: Mapping[str, Ranking[P]], weights: Mapping[str, float]) -> Ranking[P]:
    """Fuse by score: each arm's scores scaled to 0…1, then a weighted sum.

    A point that an arm did not find counts 0 there. An arm whose scores are all equal gives
    each of its points 1.

    Returns:
        Every point of any arm, best first; equal scores in the order of their ids.
    """
    scores: dict[P, float] = {}
    for arm, ranking in rankings.items():
        if not ranking:
            continue
        weight = weights.get(arm, 1.0)
        low = min(ranking.values())
        span = max(ranking.values()) - low
        for point, score in ranking.items():
            share = (score - low) / span if span > 0 else 1.0
            scores[point] = scores.get(point, 0.0) + weight * share
    return sort_best_first(scores)


def in_one_order(ranking: Ranking[P]) -> Ranking[P]:
    """Return a ranking with equal scores by id: a store may put them in another order after each index build."""
    return ranking if len(set(ranking.values())) == len(ranking) else sort_best_first(ranking)


def sort_best_first(scores: Mapping[P, float]) -> Ranking[P]:
    """Return points by falling score, equal ones by id, so that the same query gives the same order."""
    return {point: -negated for negated, point in sorted([(-score, point) for point, score in scores.items()])}
