"""Rescoring: every candidate of either arm gets both arms' exact scores, then one mixture.

Where one arm is much weaker, a fusion by rank loses to the better arm alone: it trusts places, not
scores (DESIGN §3). Knowing both exact scores of every candidate mends that at the price of two
look-ups by id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from penstock.search.fusion import best_first
from penstock.stores.contract import Arm, Scored

#: Weight of ``BM25 / best BM25`` beside a raw cosine (DESIGN §3, one recipe for all collections).
SPARSE_SHARE: Final = 0.15


def missing(candidates: Sequence[Scored], known: Mapping[str, float]) -> list[str]:
    """Return the candidates whose score in an arm is not known yet."""
    return [scored.point for scored in candidates if scored.point not in known]


def mixture(
    candidates: Sequence[Scored],
    dense: Mapping[str, float],
    sparse: Mapping[str, float],
    weights: Mapping[str, float],
) -> list[Scored]:
    """Return the candidates by ``dense cosine + 0.15 · BM25 / max BM25``.

    Args:
        candidates: What the fusion kept.
        dense: Exact cosines by point.
        sparse: Exact BM25 scores by point; a point without one shares no term with the query.
        weights: The request's weights of the arms.
    """
    best = max(sparse.values(), default=0.0)
    scale = SPARSE_SHARE * weights.get(Arm.SPARSE, 1.0) / best if best > 0 else 0.0
    share = weights.get(Arm.DENSE, 1.0)
    return best_first({c.point: share * dense.get(c.point, 0.0) + scale * sparse.get(c.point, 0.0) for c in candidates})
