import numpy as np
import pytest

from penstock.ranking.program import (
    LATE_INTERACTION,
    SPARSE_HALF_SCORE,
    SPARSE_SHARE,
    late_interaction_scores,
    mix_scores,
)

CANDIDATES = ["a", "b", "c"]


def mixed(candidates=CANDIDATES, weights=None, **scores):
    return mix_scores(candidates, scores, weights or {})


def test_mixture_adds_a_share_of_bm25_to_the_cosine():
    found = mixed(dense={"a": 0.5, "b": 0.6, "c": 0.4}, sparse={"a": 10.0, "c": 5.0})
    share = SPARSE_SHARE * 10 / (10 + SPARSE_HALF_SCORE)
    wanted = {"a": 0.5 + share, "b": 0.6, "c": 0.4 + share / 2}
    assert found == pytest.approx(wanted)
    assert list(found) == ["a", "b", "c"]


def test_two_fifths_of_the_likeness_are_that_of_the_tokens():
    found = mixed(dense={"a": 0.5, "b": 0.6, "c": 0.4}, **{LATE_INTERACTION: {"a": 1.0, "b": 0.1, "c": 0.9}})
    assert found == pytest.approx({"a": 0.7, "b": 0.4, "c": 0.6})


def test_a_point_whose_tokens_were_not_compared_is_as_unlike_as_the_least_that_was():
    found = mixed(dense={"a": 0.5, "b": 0.6, "c": 0.4}, **{LATE_INTERACTION: {"a": 1.0, "c": 0.1}})
    assert found == pytest.approx({"a": 0.7, "b": 0.4, "c": 0.28})


def test_a_token_counts_for_as_much_as_the_best_stands_out_by_it():
    maxima = np.array([[0.9, 0.5, 0.0], [0.3, 0.5, 0.1], [0.3, 0.5, 0.2]], np.float32)
    found = late_interaction_scores(maxima)
    assert (found.dtype, found.shape) == (np.float32, (3,))
    # The first token stands out by .4, the second by nothing, the third by .1.
    assert found == pytest.approx(maxima @ np.array([0.8, 0.0, 0.2]), abs=1e-4)


def test_where_no_token_stands_out_all_count_alike():
    assert late_interaction_scores(np.array([[0.9, 0.5, 0.1]], np.float32)) == pytest.approx([0.5])


def test_mixture_takes_an_unknown_score_for_nothing_shared():
    assert mixed(CANDIDATES[:1]) == {"a": 0.0}


def test_mixture_heeds_the_weights():
    found = mixed(CANDIDATES[:1], {"dense": 2.0, "sparse": 3.0}, dense={"a": 0.5}, sparse={"a": 10.0}, late={"a": 1.0})
    assert found["a"] == pytest.approx(1.4 + 3 * SPARSE_SHARE * 10 / (10 + SPARSE_HALF_SCORE))


def test_mixture_keeps_negative_cosines_in_order():
    found = mixed(dense={"a": -0.1, "b": -0.3, "c": 0.0}, sparse={"a": 0.0})
    assert list(found) == ["c", "a", "b"]
