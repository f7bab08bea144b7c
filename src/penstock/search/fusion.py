"""Fusion: several rankings into one. Pure functions over point ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from penstock.stores.contract import Scored

#: Reciprocal rank fusion's constant, ranks counted from 1. Cormack, Clarke, Büttcher: Reciprocal
#: rank fusion outperforms Condorcet and individual rank learning methods, SIGIR 2009.
RRF_K: Final = 60


def rrf(rankings: Mapping[str, Sequence[Scored]], weights: Mapping[str, float], k: int = RRF_K) -> list[Scored]:
    """Fuse by rank: ``score(d) = Σ weight / (k + rank(d))``, ranks from 1.

    Args:
        rankings: Each arm's points, best first.
        weights: Of the arms; one that is not named counts 1.
        k: The constant.

    Returns:
        Every point of any arm, best first; equal scores in the order of their ids.
    """
    scores: dict[str, float] = {}
    for arm, ranking in rankings.items():
        weight = weights.get(arm, 1.0)
        for rank, scored in enumerate(ranking, 1):
            scores[scored.point] = scores.get(scored.point, 0.0) + weight / (k + rank)
    return best_first(scores)


def minmax(rankings: Mapping[str, Sequence[Scored]], weights: Mapping[str, float]) -> list[Scored]:
    """Fuse by score: each arm's scores scaled to 0…1, then a weighted sum.

    A point that an arm did not find counts 0 there. An arm whose scores are all equal gives
    each of its points 1.

    Returns:
        Every point of any arm, best first; equal scores in the order of their ids.
    """
    scores: dict[str, float] = {}
    for arm, ranking in rankings.items():
        if not ranking:
            continue
        weight = weights.get(arm, 1.0)
        low = min(scored.score for scored in ranking)
        span = max(scored.score for scored in ranking) - low
        for scored in ranking:
            share = (scored.score - low) / span if span > 0 else 1.0
            scores[scored.point] = scores.get(scored.point, 0.0) + weight * share
    return best_first(scores)


def best_first(scores: Mapping[str, float]) -> list[Scored]:
    """Return points by falling score; equal ones by id, so that answers do not flicker."""
    ordered = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
    return [Scored(point, score) for point, score in ordered]
