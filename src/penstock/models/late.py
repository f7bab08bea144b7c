"""From a model's projected tokens to the token vectors that are kept and compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from penstock.kernel.late import levels
from penstock.kernel.messages import TextKind

if TYPE_CHECKING:
    from penstock.kernel.late import TokenVectors
    from penstock.models.contract import Floats

#: Components of a token vector at most.
LATE_DIM: Final = 64

#: Neighbouring tokens of a document that share a vector. Half the space, and hardly a loss (DESIGN §3).
POOLED: Final = 2


def late_dim(hidden: int) -> int:
    """Return the components of a token vector of a model that is ``hidden`` wide."""
    return min(LATE_DIM, hidden)


def token_vectors(rows: Floats, kind: TextKind) -> TokenVectors:
    """Return one text's token vectors in bytes.

    Args:
        rows: Its tokens as the graph projects them, ``float32 [tokens, late]``, L2-normalised.
        kind: A query keeps every token, a document the direction between each two neighbours.

    Returns:
        ``int8 [tokens, late]``, or half as many rows, rounded up.
    """
    if kind is TextKind.DOCUMENT:
        rows = np.add.reduceat(rows, np.arange(0, len(rows), POOLED), axis=0)
        rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return levels(rows)
