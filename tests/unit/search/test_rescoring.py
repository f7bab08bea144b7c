import pytest

from penstock.search.rescoring import LATE, SPARSE_SHARE, missing, mixture
from penstock.stores.contract import Scored

CANDIDATES = [Scored("a", 0), Scored("b", 0), Scored("c", 0)]


def mixed(candidates=CANDIDATES, weights=None, **scores):
    return mixture(candidates, scores, weights or {})


def test_missing_are_the_candidates_without_a_score():
    assert missing(CANDIDATES, {"b": 0.0}) == ["a", "c"]


def test_mixture_adds_a_share_of_bm25_to_the_cosine():
    found = mixed(dense={"a": 0.5, "b": 0.6, "c": 0.4}, sparse={"a": 10.0, "c": 5.0})
    wanted = {"a": 0.5 + SPARSE_SHARE, "b": 0.6, "c": 0.4 + SPARSE_SHARE / 2}
    assert {s.point: s.score for s in found} == pytest.approx(wanted)
    assert [s.point for s in found] == ["a", "b", "c"]


def test_a_third_of_the_likeness_is_that_of_the_tokens():
    found = mixed(dense={"a": 0.5, "b": 0.6, "c": 0.4}, **{LATE: {"a": 0.8, "b": 0.3, "c": 0.7}})
    assert {s.point: s.score for s in found} == pytest.approx({"a": 0.6, "b": 0.5, "c": 0.5})


def test_a_point_whose_tokens_were_not_compared_is_as_unlike_as_the_least_that_was():
    found = mixed(dense={"a": 0.5, "b": 0.6, "c": 0.4}, **{LATE: {"a": 0.8, "c": 0.1}})
    assert {s.point: s.score for s in found} == pytest.approx({"a": 0.6, "b": 1.3 / 3, "c": 0.3})


def test_mixture_takes_an_unknown_score_for_nothing_shared():
    assert mixed(CANDIDATES[:1]) == [Scored("a", 0.0)]


def test_mixture_heeds_the_weights():
    found = mixed(CANDIDATES[:1], {"dense": 2.0, "sparse": 3.0}, dense={"a": 0.5}, sparse={"a": 8.0}, late={"a": 0.8})
    assert found[0].score == pytest.approx(1.2 + 3 * SPARSE_SHARE)


def test_mixture_keeps_negative_cosines_in_order():
    found = mixed(dense={"a": -0.1, "b": -0.3, "c": 0.0}, sparse={"a": 0.0})
    assert [s.point for s in found] == ["c", "a", "b"]
