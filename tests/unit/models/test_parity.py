"""How close two sets of vectors are, and what that does to rankings."""

from __future__ import annotations

import numpy as np
import pytest

from penstock.models.parity import (
    COSINE_MEAN_MIN,
    COSINE_MIN,
    TEXTS,
    Closeness,
    closeness,
    exact_rankings,
    split_batches,
)


def _turned(angle: float) -> np.ndarray:
    return np.array([np.cos(angle), np.sin(angle)], np.float32)


def test_equal_vectors_are_close() -> None:
    vectors = np.stack([_turned(0.1), _turned(2.0)])
    found = closeness(vectors, vectors)
    assert (found.mean, found.least) == pytest.approx((1.0, 1.0), abs=1e-6)
    assert found.within_bounds


def test_the_worst_text_is_named() -> None:
    exact = np.stack([_turned(0.0)] * 3)
    found = closeness(np.stack([_turned(0.1), _turned(0.5), _turned(0.2)]), exact)
    assert found.worst == 1
    assert found.least == pytest.approx(np.cos(0.5), abs=1e-6)
    assert not found.within_bounds


def test_one_text_far_off_is_enough_to_break_the_bound() -> None:
    assert Closeness(COSINE_MEAN_MIN, COSINE_MIN, 0).within_bounds
    assert not Closeness(0.999, COSINE_MIN - 0.001, 0).within_bounds
    assert not Closeness(COSINE_MEAN_MIN - 0.001, 0.97, 0).within_bounds


def test_rankings_are_by_cosine_and_ties_keep_their_order() -> None:
    documents = np.stack([_turned(0.5), _turned(0.1), _turned(0.5)])
    assert exact_rankings(documents[1:2], documents, 5) == [[1, 0, 2]]
    assert exact_rankings(documents[1:2], documents, 2) == [[1, 0]]


def test_batches_hold_every_text_once() -> None:
    assert split_batches("abcde", 2) == ["ab", "cd", "e"]
    assert split_batches([], 2) == []


def test_the_built_in_texts_are_all_different_and_the_empty_one_is_there() -> None:
    assert len(set(TEXTS)) == len(TEXTS)
    assert "" in TEXTS
