"""Token vectors in bytes."""

import numpy as np
import pytest

from penstock.kernel.late_interaction import max_cosines, maxsim, quantize

DIM = 64


def unit_rows(rows: int, seed: int = 0, dim: int = DIM) -> np.ndarray:
    """Return ``float32 [rows, dim]``, L2-normalised."""
    vectors = np.random.default_rng(seed).normal(size=(rows, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("dim", [2, 8, 64])
def test_levels_are_near_what_they_stand_for(dim):
    vectors = unit_rows(200, dim=dim)
    found = quantize(vectors)
    assert found.dtype == np.int8
    lengths = np.linalg.norm(found.astype(int), axis=1, keepdims=True)
    assert ((found / lengths) * vectors).sum(axis=1).min() > (0.999 if dim == DIM else 0.7)


def test_no_rows_have_no_levels():
    assert quantize(np.empty((0, DIM), np.float32)).shape == (0, DIM)


def test_similarity_is_maxsim():
    query, document = unit_rows(5, 1), unit_rows(40, 2)
    exact = float((query @ document.T).max(axis=1).mean())
    assert maxsim(quantize(query), quantize(document)) == pytest.approx(exact, abs=0.005)
    assert maxsim(quantize(query), quantize(query)) == pytest.approx(1, abs=0.01)
    assert maxsim(quantize(query), quantize(-query)) < 0.5


def test_maxima_tell_what_each_token_finds_in_each_document():
    query, documents = unit_rows(7, 3), [unit_rows(rows, rows) for rows in (1, 50, 3)]
    found = max_cosines(quantize(query), [quantize(document) for document in documents])
    assert (found.dtype, found.shape) == (np.float32, (3, 7))
    exact = np.stack([(query @ document.T).max(axis=1) for document in documents])
    np.testing.assert_allclose(found, exact, atol=0.02)


def test_without_documents_there_are_no_maxima():
    assert max_cosines(quantize(unit_rows(7)), []).shape == (0, 7)
