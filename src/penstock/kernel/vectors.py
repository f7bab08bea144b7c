"""Array records that several rooms share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock.kernel.late_interaction import TokenVectors

DenseVectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Embeddings:
    """Result of one run of a dense model: dense vectors and, if asked for, token vectors.

    Attributes:
        dense: ``float32 [n, dim]``, L2-normalised.
        late: Token vectors of each text, ``int8 [rows, token_dim]`` (:mod:`penstock.kernel.late_interaction`); ``None``
            where they were not asked for, or the model has none.
    """

    dense: DenseVectors
    late: Sequence[TokenVectors] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class SparseVector:
    """A sparse vector.

    Attributes:
        indices: ``uint32 [nnz]``, distinct.
        values: ``float32 [nnz]``.
    """

    indices: NDArray[np.uint32]
    values: NDArray[np.float32]
