"""Token vectors in bytes, and MaxSim, the similarity of two texts by their token vectors. Pure.

Late interaction compares every token of a query with every token of a document (Khattab and Zaharia 2020,
arXiv:2004.12832): ``MaxSim(Q, D) = mean over q in Q of max over d in D of q · d``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

TokenVectors = NDArray[np.int8]
"""Token vectors of one text, ``int8 [rows, token_dim]``."""

#: Levels for a component of 1. Components of a unit vector of 64 spread evenly are .125 on average; beyond .492, four
#: times that, they are cut. One level is .4 % of a cosine's range.
SCALE: Final = 128

#: The highest level, and less the lowest: with 64 added to it a level is one character of ASCII.
LEVEL_MAX: Final = 63


def quantize(vectors: NDArray[np.float32]) -> TokenVectors:
    """Return unit vectors as bytes.

    Args:
        vectors: ``float32 [rows, token_dim]``, L2-normalised.

    Returns:
        ``int8 [rows, token_dim]``, none beyond ``LEVEL_MAX``.
    """
    found: TokenVectors = np.clip(np.rint(vectors * np.float32(SCALE)), -LEVEL_MAX, LEVEL_MAX).astype(np.int8)
    return found


def max_cosines(query: TokenVectors, documents: Sequence[TokenVectors]) -> NDArray[np.float32]:
    """Return, for each document and query token, the cosine of the most similar token of the document.

    Args:
        query: The query's token vectors, at least one.
        documents: The token vectors of each document, at least one each.

    Returns:
        ``float32 [documents, tokens]``.
    """
    if not documents:
        return np.empty((0, len(query)), np.float32)
    # Whole numbers below 2²⁴: exact in float32, whose product is the fast one.
    products = np.concatenate(documents).astype(np.float32) @ query.astype(np.float32).T
    first = np.cumsum([0, *(len(document) for document in documents[:-1])])
    found: NDArray[np.float32] = np.maximum.reduceat(products, first, axis=0)
    return found / np.float32(SCALE * SCALE)


def maxsim(query: TokenVectors, document: TokenVectors) -> float:
    """Return MaxSim of two texts, each with at least one token vector."""
    return float(max_cosines(query, [document]).mean())
