import pytest

from penstock.search.rescoring import SPARSE_SHARE, missing, mixture
from penstock.stores.contract import Scored

CANDIDATES = [Scored("a", 0), Scored("b", 0), Scored("c", 0)]


def test_missing_are_the_candidates_without_a_score():
    assert missing(CANDIDATES, {"b": 0.0}) == ["a", "c"]


def test_mixture_adds_a_share_of_bm25_to_the_cosine():
    mixed = mixture(CANDIDATES, {"a": 0.5, "b": 0.6, "c": 0.4}, {"a": 10.0, "c": 5.0}, {})
    wanted = {"a": 0.5 + SPARSE_SHARE, "b": 0.6, "c": 0.4 + SPARSE_SHARE / 2}
    assert {s.point: s.score for s in mixed} == pytest.approx(wanted)
    assert [s.point for s in mixed] == ["a", "b", "c"]


def test_mixture_takes_an_unknown_score_for_nothing_shared():
    assert mixture(CANDIDATES[:1], {}, {}, {}) == [Scored("a", 0.0)]


def test_mixture_heeds_the_weights():
    mixed = mixture(CANDIDATES[:1], {"a": 0.5}, {"a": 8.0}, {"dense": 2.0, "sparse": 3.0})
    assert mixed[0].score == pytest.approx(1.0 + 3 * SPARSE_SHARE)


def test_mixture_keeps_negative_cosines_in_order():
    mixed = mixture(CANDIDATES, {"a": -0.1, "b": -0.3, "c": 0.0}, {"a": 0.0}, {})
    assert [s.point for s in mixed] == ["c", "a", "b"]
