"""Token vectors for late interaction, pooled and quantised from a model's projected tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from penstock.kernel.late_interaction import quantize
from penstock.kernel.messages import TextKind

if TYPE_CHECKING:
    from penstock.kernel.late_interaction import TokenVectors
    from penstock.models.contract import Floats

#: Components of a token vector at most.
TOKEN_DIM_MAX: Final = 64

#: Neighbouring tokens of a document that share a vector. Half the space at hardly any loss (DESIGN §3).
POOL_FACTOR: Final = 2


def token_dim_for(hidden: int) -> int:
    """Return the components of a token vector of a model that is ``hidden`` wide."""
    return min(TOKEN_DIM_MAX, hidden)


def pool_token_vectors(rows: Floats, kind: TextKind) -> TokenVectors:
    """Return one text's token vectors in bytes.

    Args:
        rows: Its tokens as the graph projects them, ``float32 [tokens, token_dim]``, L2-normalised.
        kind: A query keeps every token, a document the direction between each two neighbours.

    Returns:
        ``int8 [tokens, token_dim]``, or half as many rows, rounded up.
    """
    if kind is TextKind.DOCUMENT:
        rows = np.add.reduceat(rows, np.arange(0, len(rows), POOL_FACTOR), axis=0)
        rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return quantize(rows)
