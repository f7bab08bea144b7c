from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.search.fusion import RRF_K, best_first, minmax, rrf
from penstock.stores.contract import Scored


def ranking(*points: str) -> list[Scored]:
    return [Scored(point, 1.0 / (rank + 1)) for rank, point in enumerate(points)]


ids = st.lists(st.sampled_from("abcdefghij"), unique=True)


@st.composite
def rankings(draw):
    arms = {}
    for arm in ("dense", "sparse"):
        points = draw(ids)
        scores = draw(st.lists(st.floats(-1e6, 1e6), min_size=len(points), max_size=len(points)))
        arms[arm] = [Scored(p, s) for p, s in zip(points, sorted(scores, reverse=True), strict=True)]
    return arms


weights = st.fixed_dictionaries({"dense": st.floats(0, 1000), "sparse": st.floats(0, 1000)})


def test_rrf_has_the_values_of_the_paper():
    fused = rrf({"dense": ranking("a", "b"), "sparse": ranking("b", "c")}, {})
    exact = {"a": Fraction(1, 61), "b": Fraction(1, 62) + Fraction(1, 61), "c": Fraction(1, 62)}
    assert [scored.point for scored in fused] == ["b", "a", "c"]
    assert {scored.point: scored.score for scored in fused} == pytest.approx({p: float(s) for p, s in exact.items()})


def test_rrf_counts_ranks_from_one():
    assert rrf({"dense": ranking("a")}, {}, k=0) == [Scored("a", 1.0)]
    assert RRF_K == 60


def test_rrf_puts_agreement_before_one_arms_first_place():
    both = rrf({"dense": ranking("x", "a"), "sparse": ranking("y", "a")}, {})
    assert both[0].point == "a"


def test_rrf_breaks_ties_by_id():
    fused = rrf({"dense": ranking("b", "a"), "sparse": ranking("a", "b")}, {})
    assert [scored.point for scored in fused] == ["a", "b"]


def test_rrf_weights_count_and_a_missing_one_is_one():
    arms = {"dense": ranking("a", "b"), "sparse": ranking("b", "a")}
    assert rrf(arms, {"dense": 2})[0].point == "a"
    assert rrf(arms, {"dense": 0.5})[0].point == "b"
    assert rrf(arms, {"dense": 0})[0] == Scored("b", 1 / 61)


def test_minmax_scales_each_arm_to_its_own_range():
    arms = {
        "dense": [Scored("a", 0.9), Scored("b", 0.7), Scored("c", 0.5)],
        "sparse": [Scored("b", 30.0), Scored("d", 10.0)],
    }
    assert {s.point: s.score for s in minmax(arms, {})} == pytest.approx({"b": 1.5, "a": 1.0, "c": 0.0, "d": 0.0})


def test_minmax_gives_equal_scores_one_and_passes_over_an_empty_arm():
    assert minmax({"dense": [Scored("b", 3), Scored("a", 3)], "sparse": []}, {}) == [Scored("a", 1), Scored("b", 1)]


@given(rankings(), weights)
def test_fusion_returns_every_point_once_best_first(arms, weight):
    for fuse in (rrf, minmax):
        fused = fuse(arms, weight)
        assert sorted(s.point for s in fused) == sorted({s.point for arm in arms.values() for s in arm})
        assert fused == sorted(fused, key=lambda s: (-s.score, s.point))


@given(rankings(), weights)
def test_rrf_sees_ranks_only(arms, weight):
    stretched = {arm: [Scored(s.point, -rank) for rank, s in enumerate(found)] for arm, found in arms.items()}
    assert rrf(arms, weight) == rrf(stretched, weight)


@given(rankings(), weights, st.floats(0, 2000))
def test_rrf_scores_stay_below_the_sum_of_the_weights(arms, weight, k):
    highest = sum(weight.values()) / (1 + int(k))
    assert all(0 <= s.score <= highest * (1 + 1e-9) for s in rrf(arms, weight, int(k)))


@given(ids)
def test_one_arm_alone_keeps_its_order(points):
    assert [s.point for s in rrf({"dense": ranking(*points)}, {})] == points


@given(rankings())
def test_swapping_the_arms_changes_nothing(arms):
    swapped = {"sparse": arms["dense"], "dense": arms["sparse"]}
    assert rrf(arms, {}) == rrf(swapped, {})
    assert minmax(arms, {}) == minmax(swapped, {})


@given(st.dictionaries(st.text(), st.floats(allow_nan=False)))
def test_best_first_orders_by_score_then_id(scores):
    ordered = best_first(scores)
    assert {s.point: s.score for s in ordered} == scores
    assert ordered == sorted(ordered, key=lambda s: (-s.score, s.point))
