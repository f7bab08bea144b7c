"""Rescoring: the best candidates of either arm get both exact scores and a closer look, then one mixture.

Where one arm is much weaker, a fusion by rank loses to the better arm alone: it trusts places, not scores (DESIGN §3).
Knowing every exact score mends that at the price of one look-up by id. The closer look is late interaction: the query's
tokens against the text's (:mod:`penstock.kernel.late`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock.ranking.fusion import best_first
from penstock.ranking.records import Arm, P, Ranking

#: The name of the scores by token vectors, beside those of the arms.
LATE: Final = "late"

#: Candidates that are rescored, the best of the fusion; where more hits are wanted so many get both exact scores, and
#: these the comparison of tokens. On three collections it finds as good hits as with all 200.
CANDIDATES: Final = 64

#: Share of the likeness of their tokens in the likeness of two texts, beside the cosine of the texts as wholes.
LATE_SHARE: Final = 0.4

#: Most weight of ``BM25 / best BM25`` beside the likeness.
SPARSE_SHARE: Final = 0.25

#: The best BM25 score at which that weight is half its most: few or common words in common are weak evidence.
SPARSE_HALF: Final = 15.0

#: Least weight of a token: with one candidate none stands out.
TOKEN_WEIGHT_MIN: Final = 1e-6


def likeness(maxima: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the likeness of each candidate's tokens to the query's: MaxSim, with tokens that count differently.

    A token of the query counts for as much as the candidate that has it best stands out among them all: what everybody
    has (articles, the subject of the whole collection) tells them apart as little as what nobody has. With every token
    counting alike, nDCG@10 is half a point lower on each of three collections (``docs/benchmarks/quality.md``).

    Args:
        maxima: What each of the query's tokens finds in each candidate, ``float32 [candidates, tokens]``
            (:func:`penstock.kernel.late.maxima`).

    Returns:
        ``float32 [candidates]``.
    """
    weights = maxima.max(axis=0) - maxima.mean(axis=0) + np.float32(TOKEN_WEIGHT_MIN)
    found: NDArray[np.float32] = maxima @ (weights / weights.sum())
    return found


def mixture(
    candidates: Iterable[P], scores: Mapping[str, Mapping[P, float]], weights: Mapping[str, float]
) -> Ranking[P]:
    """Return the candidates by ``likeness + 0.25 · best / (best + 15) · BM25 / best``.

    The likeness is the cosine of the texts as wholes, with two fifths of that of their tokens in it where there is any;
    ``best`` is the best BM25 score of a candidate.

    Args:
        candidates: What the fusion kept.
        scores: Exact scores by arm (``LATE``) and point. A point without a sparse score shares no term with the query;
            one whose tokens were not compared is taken to be as unlike by them as the least of those that were.
        weights: The request's weights of the arms.
    """
    dense, sparse, late = (scores.get(name, {}) for name in (Arm.DENSE, Arm.SPARSE, LATE))
    best = max(sparse.values(), default=0.0)
    scale = SPARSE_SHARE * weights.get(Arm.SPARSE, 1.0) / (best + SPARSE_HALF) if best > 0 else 0.0
    share = weights.get(Arm.DENSE, 1.0)
    unlike = min(late.values(), default=0.0)
    part = LATE_SHARE if late else 0.0

    def score(point: P) -> float:
        likeness = (1 - part) * dense.get(point, 0.0) + part * late.get(point, unlike)
        return share * likeness + scale * sparse.get(point, 0.0)

    return best_first({point: score(point) for point in candidates})
