"""Rescoring: every candidate of either arm gets both exact scores, the best of them a closer look, then one mixture.

Where one arm is much weaker, a fusion by rank loses to the better arm alone: it trusts places, not scores (DESIGN §3).
Knowing every exact score mends that at the price of one look-up by id. The closer look is late interaction: the query's
tokens against the text's (:mod:`penstock.kernel.late`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from penstock.kernel.vectors import DenseVectors
from penstock.search.fusion import best_first
from penstock.stores.contract import Arm, Scored

#: The name of the scores by token vectors, beside those of the arms.
LATE: Final = "late"

#: Candidates whose tokens are compared. On three collections 30 find the same ten hits as all 200 do.
LATE_CANDIDATES: Final = 50

#: Share of MaxSim in the likeness of two texts, beside the cosine of the texts as wholes.
LATE_SHARE: Final = 0.4

#: Most weight of ``BM25 / best BM25`` beside the likeness.
SPARSE_SHARE: Final = 0.2

#: The best BM25 score at which that weight is half its most: few or common words in common are weak evidence.
SPARSE_HALF: Final = 10.0

#: The name of the cosines to the query moved towards its best hits.
FEEDBACK: Final = "feedback"

#: Best hits that the query is moved towards, and how far (Rocchio's relevance feedback, here without a judge).
FEEDBACK_HITS: Final = 2
FEEDBACK_SHARE: Final = 0.3


def moved(query: DenseVectors, hits: Sequence[DenseVectors]) -> DenseVectors:
    """Return ``query + FEEDBACK_SHARE · mean of the hits``, L2-normalised, ``float32 [dim]``.

    Args:
        query: ``float32 [dim]``, L2-normalised.
        hits: The vectors of the best hits, at least one, of the same kind.
    """
    toward: DenseVectors = (query + FEEDBACK_SHARE * np.mean(hits, axis=0)).astype(np.float32)
    length = np.linalg.norm(toward)
    return toward / length if length > 0 else query


def missing(candidates: Sequence[Scored], known: Mapping[str, float]) -> list[str]:
    """Return the candidates whose score is not known yet."""
    return [scored.point for scored in candidates if scored.point not in known]


def mixture(
    candidates: Sequence[Scored], scores: Mapping[str, Mapping[str, float]], weights: Mapping[str, float]
) -> list[Scored]:
    """Return the candidates by ``likeness + 0.2 · best / (best + 10) · BM25 / best``.

    The likeness is the cosine of the texts as wholes, with two fifths of MaxSim in it where there is any; ``best`` is
    the best BM25 score of a candidate.

    Args:
        candidates: What the fusion kept.
        scores: Exact scores by arm (``LATE``, ``FEEDBACK``) and point. Feedback's stand in for the dense ones. A point
            without a sparse score shares no term with the query; one whose tokens were not compared is taken to be as
            unlike by them as the least of those that were.
        weights: The request's weights of the arms.
    """
    dense, sparse, late = (scores.get(name, {}) for name in (Arm.DENSE, Arm.SPARSE, LATE))
    dense = scores.get(FEEDBACK) or dense
    best = max(sparse.values(), default=0.0)
    scale = SPARSE_SHARE * weights.get(Arm.SPARSE, 1.0) / (best + SPARSE_HALF) if best > 0 else 0.0
    share = weights.get(Arm.DENSE, 1.0)
    unlike = min(late.values(), default=0.0)
    part = LATE_SHARE if late else 0.0

    def score(point: str) -> float:
        likeness = (1 - part) * dense.get(point, 0.0) + part * late.get(point, unlike)
        return share * likeness + scale * sparse.get(point, 0.0)

    return best_first({c.point: score(c.point) for c in candidates})
