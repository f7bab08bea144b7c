"""Checks of vectors and scores that other programs computed. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from penstock.kernel.vectors import DenseVectors, SparseVector

#: Terms of a sparse vector kept at most, the heaviest; the others weigh next to nothing and cost as much.
TERMS_MAX: Final = 1024


def finite_array(numbers: Any, what: str) -> DenseVectors:
    """Return numbers, nested in lists or not, as ``float32``.

    Raises:
        ValueError: One is not finite, or too large to be.
    """
    with np.errstate(over="ignore"):
        array: DenseVectors = np.array(numbers, np.float32)
    if not np.isfinite(array).all():
        raise ValueError(f"{what} is not finite")
    return array


def checked_sparse_vector(indices: Sequence[int], values: Sequence[float]) -> SparseVector:
    """Return the heaviest ``TERMS_MAX`` terms of positive weight, by index.

    Raises:
        ValueError: An index is negative, too large or there twice, or a weight is not finite.
    """
    weights = finite_array(values, "a weight")
    try:
        terms = np.array(indices, np.int64)
    except OverflowError:
        raise ValueError("a term's index is too large") from None
    if len(terms) and (terms.min() < 0 or terms.max() >= 2**32 or len(np.unique(terms)) < len(terms)):
        raise ValueError("a term's index is there twice, negative or too large")
    heaviest = np.argsort(-weights, kind="stable")[:TERMS_MAX]
    kept = heaviest[weights[heaviest] > 0]
    kept = kept[np.argsort(terms[kept])]
    return SparseVector(terms[kept].astype(np.uint32), weights[kept])
