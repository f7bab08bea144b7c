"""Token vectors in bytes."""

import numpy as np
import pytest

from penstock.kernel.late import ZERO, cosine, levels, similarity

DIM = 64


def unit_rows(rows: int, seed: int = 0, dim: int = DIM) -> np.ndarray:
    """Return ``float32 [rows, dim]``, L2-normalised, each of sum zero."""
    vectors = np.random.default_rng(seed).normal(size=(rows, dim))
    vectors -= vectors.mean(axis=1, keepdims=True)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("dim", [2, 8, 64])
def test_levels_sum_to_zero_and_are_near_what_they_stand_for(dim):
    vectors = unit_rows(200, dim=dim)
    found = levels(vectors)
    assert found.dtype == np.uint8
    centred = found.astype(int) - ZERO
    assert (centred.sum(axis=1) == 0).all()
    assert np.abs(centred).max() <= 127
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    assert ((centred / lengths) * vectors).sum(axis=1).min() > (0.999 if dim == DIM else 0.8)


def test_no_rows_have_no_levels():
    assert levels(np.empty((0, DIM), np.float32)).shape == (0, DIM)


def test_similarity_is_maxsim():
    query, document = unit_rows(5, 1), unit_rows(40, 2)
    exact = float((query @ document.T).max(axis=1).mean())
    assert similarity(levels(query), levels(document)) == pytest.approx(exact, abs=0.005)
    assert similarity(levels(query), levels(query)) == pytest.approx(1, abs=0.01)
    assert similarity(levels(query), levels(-query)) < 0.5


def test_unsigned_products_rank_and_measure_as_signed_ones_do():
    query, document = levels(unit_rows(7, 3)), levels(unit_rows(50, 4))
    products = query.astype(np.int64) @ document.astype(np.int64).T
    total = float(products.max(axis=1).sum())
    assert cosine(total, query) == pytest.approx(similarity(query, document), abs=1e-6)
