"""Rescoring: every candidate of either arm gets both exact scores, the best of them a closer look, then one mixture.

Where one arm is much weaker, a fusion by rank loses to the better arm alone: it trusts places, not scores (DESIGN §3).
Knowing every exact score mends that at the price of one look-up by id. The closer look is late interaction: the query's
tokens against the text's (:mod:`penstock.kernel.late`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from penstock.search.fusion import best_first
from penstock.stores.contract import Arm, Scored

#: The name of the scores by token vectors, beside those of the arms.
LATE: Final = "late"

#: Candidates whose tokens are compared. On three collections 30 find the same ten hits as all 200 do.
LATE_CANDIDATES: Final = 50

#: Share of MaxSim in the likeness of two texts, beside the cosine of the texts as wholes.
LATE_SHARE: Final = 1 / 3

#: Weight of ``BM25 / best BM25`` beside the likeness.
SPARSE_SHARE: Final = 0.15


def missing(candidates: Sequence[Scored], known: Mapping[str, float]) -> list[str]:
    """Return the candidates whose score is not known yet."""
    return [scored.point for scored in candidates if scored.point not in known]


def mixture(
    candidates: Sequence[Scored], scores: Mapping[str, Mapping[str, float]], weights: Mapping[str, float]
) -> list[Scored]:
    """Return the candidates by ``likeness + 0.15 · BM25 / max BM25``.

    The likeness is the cosine of the texts as wholes, with a third of MaxSim in it where there is any.

    Args:
        candidates: What the fusion kept.
        scores: Exact scores by arm (and ``LATE``) and point. One without a sparse score shares no term with the query;
            one whose tokens were not compared is taken to be as unlike by them as the least of those that were.
        weights: The request's weights of the arms.
    """
    dense, sparse, late = (scores.get(name, {}) for name in (Arm.DENSE, Arm.SPARSE, LATE))
    best = max(sparse.values(), default=0.0)
    scale = SPARSE_SHARE * weights.get(Arm.SPARSE, 1.0) / best if best > 0 else 0.0
    share = weights.get(Arm.DENSE, 1.0)
    unlike = min(late.values(), default=0.0)
    part = LATE_SHARE if late else 0.0

    def score(point: str) -> float:
        likeness = (1 - part) * dense.get(point, 0.0) + part * late.get(point, unlike)
        return share * likeness + scale * sparse.get(point, 0.0)

    return best_first({c.point: score(c.point) for c in candidates})
