"""Exact search and recall."""

import numpy as np
import pytest

from bench import exact
from bench.corpus import in_rows
from penstock.kernel.vectors import SparseVector


def _sparse(*rows):
    return in_rows([SparseVector(np.array([*row], np.uint32), np.array([*row.values()], np.float32)) for row in rows])


def test_dense_rows_come_by_falling_inner_product():
    vectors = np.array([[1, 0], [0.6, 0.8], [0, 1]], np.float32)
    asked = np.array([[1, 0], [0, 1]], np.float32)
    assert exact.dense(vectors, asked, 2) == [[0, 1], [2, 1]]


def test_a_rare_term_weighs_more_than_a_common_one():
    documents = _sparse({1: 1.0}, {1: 1.0, 2: 1.0}, {1: 1.0}, {3: 1.0})
    assert exact.sparse(documents, _sparse({1: 1.0, 2: 1.0}), 4)[0][0] == 1


def test_a_row_that_shares_no_term_is_not_found():
    assert exact.sparse(_sparse({1: 1.0}, {2: 1.0}), _sparse({2: 1.0}), 10) == [[1]]


def test_the_fusion_prefers_what_both_arms_found():
    assert exact.hybrid([[4, 7]], [[7, 5]], 1) == [[7]]


def test_recall_counts_the_exact_first_and_skips_queries_without_any():
    assert exact.recall([[1, 2, 9], [5]], [[1, 3], []], 2) == pytest.approx(0.5)
