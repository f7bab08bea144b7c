"""Token vectors in unsigned bytes, and the similarity of two texts by them (MaxSim). Pure.

Late interaction compares every token of a query with every token of a document (Khattab and Zaharia 2020,
arXiv:2004.12832): ``MaxSim(Q, D) = mean over q in Q of max over d in D of q · d``.

The search engine's bytes are unsigned. A token vector is therefore made to lie in the hyperplane whose components
sum to zero, and a component ``x`` is kept as ``round(SCALE · x) + ZERO``, rounded such that the levels of one vector
still sum to zero. With bytes ``q'`` of a query's token and ``d'`` of a document's,

    q' · d' = SCALE² · (q · d) + ZERO · Σ q'

so the best ``d'`` for a ``q'`` is the best ``d`` for ``q``, and the similarity comes back by one subtraction.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

TokenVectors = NDArray[np.uint8]
"""Token vectors of one text, ``uint8 [rows, late]``."""

#: The byte of a component that is 0.
ZERO: Final = 128

#: Levels for a component of 1. Components of a unit vector of 64 spread evenly are .125 on average; beyond .496, four
#: times that, they are cut. One level is .4 % of a cosine's range.
SCALE: Final = 256

_LEVEL_MAX: Final = 127


def levels(vectors: NDArray[np.float32]) -> TokenVectors:
    """Return unit vectors as bytes.

    Args:
        vectors: ``float32 [rows, late]``, L2-normalised, each row's sum zero.

    Returns:
        ``uint8 [rows, late]``; each row less ``ZERO`` sums to zero.
    """
    exact = np.clip(vectors * np.float32(SCALE), -_LEVEL_MAX, _LEVEL_MAX)
    rounded = np.rint(exact)
    # Rounding leaves a few levels over: take them from the components that were rounded furthest that way.
    over = rounded.sum(axis=1)
    while np.any(over):
        step = np.sign(over)
        room = np.abs(rounded - step[:, None]) <= _LEVEL_MAX
        gain = np.where(room, (rounded - exact) * step[:, None], -np.inf)
        rows = np.flatnonzero(step)
        rounded[rows, gain[rows].argmax(axis=1)] -= step[rows]
        over = rounded.sum(axis=1)
    found: TokenVectors = (rounded + ZERO).astype(np.uint8)
    return found


def cosine(total: float, query: TokenVectors) -> float:
    """Return the similarity for a sum over the query's tokens of the best product of bytes.

    Args:
        total: ``Σ over q' of max over d' of q' · d'``, as the engine gives it.
        query: The query's token vectors, at least one.

    Returns:
        Between -1 and 1, but for rounding.
    """
    return (total - ZERO * int(query.sum(dtype=np.int64))) / (SCALE * SCALE * len(query))


def similarity(query: TokenVectors, document: TokenVectors) -> float:
    """Return MaxSim of two texts, each with at least one token vector."""
    # Whole numbers below 2²⁴: exact in float32, whose product is the fast one.
    products = (query.astype(np.float32) - ZERO) @ (document.astype(np.float32) - ZERO).T
    return float(products.max(axis=1).mean()) / (SCALE * SCALE)
