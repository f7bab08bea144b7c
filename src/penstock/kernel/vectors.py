"""Array records that several rooms share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DenseVectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class SparseVector:
    """A sparse vector.

    Attributes:
        indices: ``uint32 [nnz]``, distinct.
        values: ``float32 [nnz]``.
    """

    indices: NDArray[np.uint32]
    values: NDArray[np.float32]
