"""Records around arrays."""

import numpy as np

from penstock.kernel.vectors import SparseVector


def test_a_sparse_vector_is_equal_to_itself_only() -> None:
    # Comparing arrays field by field would raise; identity is what sets and tests can rely on.
    indices, values = np.array([1], np.uint32), np.array([0.5], np.float32)
    vector = SparseVector(indices, values)
    assert vector == vector  # noqa: PLR0124
    assert vector != SparseVector(indices, values)
