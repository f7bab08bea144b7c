import numpy as np
import pytest

from penstock.search.rescoring import FEEDBACK, LATE, SPARSE_HALF, SPARSE_SHARE, missing, mixture, moved
from penstock.stores.contract import Scored

CANDIDATES = [Scored("a", 0), Scored("b", 0), Scored("c", 0)]


def mixed(candidates=CANDIDATES, weights=None, **scores):
    return mixture(candidates, scores, weights or {})


def test_missing_are_the_candidates_without_a_score():
    assert missing(CANDIDATES, {"b": 0.0}) == ["a", "c"]


def test_mixture_adds_a_share_of_bm25_to_the_cosine():
    found = mixed(dense={"a": 0.5, "b": 0.6, "c": 0.4}, sparse={"a": 10.0, "c": 5.0})
    share = SPARSE_SHARE * 10 / (10 + SPARSE_HALF)
    wanted = {"a": 0.5 + share, "b": 0.6, "c": 0.4 + share / 2}
    assert {s.point: s.score for s in found} == pytest.approx(wanted)
    assert [s.point for s in found] == ["a", "b", "c"]


def test_two_fifths_of_the_likeness_are_that_of_the_tokens():
    found = mixed(dense={"a": 0.5, "b": 0.6, "c": 0.4}, **{LATE: {"a": 1.0, "b": 0.1, "c": 0.9}})
    assert {s.point: s.score for s in found} == pytest.approx({"a": 0.7, "b": 0.4, "c": 0.6})


def test_a_point_whose_tokens_were_not_compared_is_as_unlike_as_the_least_that_was():
    found = mixed(dense={"a": 0.5, "b": 0.6, "c": 0.4}, **{LATE: {"a": 1.0, "c": 0.1}})
    assert {s.point: s.score for s in found} == pytest.approx({"a": 0.7, "b": 0.4, "c": 0.28})


def test_cosines_to_the_moved_query_stand_in_for_those_to_the_query():
    found = mixed(dense={"a": 0.5, "b": 0.6, "c": 0.4}, **{FEEDBACK: {"a": 0.7, "b": 0.65, "c": 0.5}})
    assert {s.point: s.score for s in found} == {"a": 0.7, "b": 0.65, "c": 0.5}


def test_the_moved_query_lies_between_the_query_and_its_hits():
    query, hits = np.array([1, 0], np.float32), [np.array([0, 1], np.float32), np.array([0, -1], np.float32)]
    assert moved(query, hits).tolist() == [1, 0]
    found = moved(query, hits[:1])
    assert found.dtype == np.float32
    assert found == pytest.approx([1 / np.hypot(1, 0.3), 0.3 / np.hypot(1, 0.3)])


def test_a_query_that_its_hits_cancel_is_left_as_it_is():
    nothing = np.zeros(2, np.float32)
    assert moved(nothing, [nothing]).tolist() == [0, 0]


def test_mixture_takes_an_unknown_score_for_nothing_shared():
    assert mixed(CANDIDATES[:1]) == [Scored("a", 0.0)]


def test_mixture_heeds_the_weights():
    found = mixed(CANDIDATES[:1], {"dense": 2.0, "sparse": 3.0}, dense={"a": 0.5}, sparse={"a": 10.0}, late={"a": 1.0})
    assert found[0].score == pytest.approx(1.4 + 3 * SPARSE_SHARE / 2)


def test_mixture_keeps_negative_cosines_in_order():
    found = mixed(dense={"a": -0.1, "b": -0.3, "c": 0.0}, sparse={"a": 0.0})
    assert [s.point for s in found] == ["c", "a", "b"]
