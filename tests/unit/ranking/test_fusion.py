from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.ranking.fusion import RRF_K, minmax, rrf, sort_best_first
from penstock.ranking.retrieval import Ranking


def ranking(*points: str) -> Ranking[str]:
    return {point: 1.0 / (rank + 1) for rank, point in enumerate(points)}


ids = st.lists(st.sampled_from("abcdefghij"), unique=True)


@st.composite
def rankings(draw):
    arms = {}
    for arm in ("dense", "sparse"):
        points = draw(ids)
        scores = draw(st.lists(st.floats(-1e6, 1e6), min_size=len(points), max_size=len(points)))
        arms[arm] = dict(zip(points, sorted(scores, reverse=True), strict=True))
    return arms


weights = st.fixed_dictionaries({"dense": st.floats(0, 1000), "sparse": st.floats(0, 1000)})


def test_rrf_has_the_values_of_the_paper():
    fused = rrf({"dense": ranking("a", "b"), "sparse": ranking("b", "c")}, {})
    exact = {"a": Fraction(1, 61), "b": Fraction(1, 62) + Fraction(1, 61), "c": Fraction(1, 62)}
    assert list(fused) == ["b", "a", "c"]
    assert fused == pytest.approx({p: float(s) for p, s in exact.items()}, rel=1e-4)


def test_rrf_counts_ranks_from_one():
    assert rrf({"dense": ranking("a")}, {}, k=0) == {"a": 1.0}
    assert RRF_K == 60


def test_rrf_puts_agreement_before_one_arms_first_place():
    both = rrf({"dense": ranking("x", "a"), "sparse": ranking("y", "a")}, {})
    assert next(iter(both)) == "a"


def test_rrf_decides_ties_for_the_first_arm():
    assert list(rrf({"dense": ranking("b"), "sparse": ranking("a")}, {})) == ["b", "a"]
    assert list(rrf({"dense": ranking("d", "b"), "sparse": ranking("c", "a")}, {})) == ["d", "c", "b", "a"]
    far = {f"{rank}": 0.0 for rank in range(1000)}
    assert list(rrf({"dense": far, "sparse": {f"s{point}": 0.0 for point in far}}, {}))[:3] == ["0", "s0", "1"]


def test_rrf_weights_count_and_a_missing_one_is_one():
    arms = {"dense": ranking("a", "b"), "sparse": ranking("b", "a")}
    assert list(rrf(arms, {"dense": 2})) == ["a", "b"]
    assert list(rrf(arms, {"dense": 0.5})) == ["b", "a"]
    assert rrf(arms, {"dense": 0})["b"] == pytest.approx(1 / 61)


def test_minmax_scales_each_arm_to_its_own_range():
    arms = {
        "dense": {"a": 0.9, "b": 0.7, "c": 0.5},
        "sparse": {"b": 30.0, "d": 10.0},
    }
    assert minmax(arms, {}) == pytest.approx({"b": 1.5, "a": 1.0, "c": 0.0, "d": 0.0})


def test_minmax_gives_equal_scores_one_and_passes_over_an_empty_arm():
    assert list(minmax({"dense": {"b": 3, "a": 3}, "sparse": {}}, {}).items()) == [("a", 1), ("b", 1)]


@given(rankings(), weights)
def test_fusion_returns_every_point_once_best_first(arms, weight):
    for fuse in (rrf, minmax):
        fused = fuse(arms, weight)
        assert set(fused) == {point for arm in arms.values() for point in arm}
        assert list(fused.values()) == sorted(fused.values(), reverse=True)


@given(rankings(), weights)
def test_rrf_sees_ranks_only(arms, weight):
    stretched = {arm: {point: -rank for rank, point in enumerate(found)} for arm, found in arms.items()}
    assert rrf(arms, weight) == rrf(stretched, weight)


@given(rankings(), weights, st.floats(0, 2000))
def test_rrf_scores_stay_below_the_sum_of_the_weights(arms, weight, k):
    highest = sum(weight.values()) / (1 + int(k))
    assert all(0 <= score <= highest * (1 + 1e-9) for score in rrf(arms, weight, int(k)).values())


@given(ids)
def test_one_arm_alone_keeps_its_order(points):
    assert list(rrf({"dense": ranking(*points)}, {})) == points


@given(rankings())
def test_swapping_the_arms_changes_nothing(arms):
    swapped = {"sparse": arms["dense"], "dense": arms["sparse"]}
    assert rrf(arms, {}) == pytest.approx(rrf(swapped, {}), rel=1e-4)
    assert minmax(arms, {}) == minmax(swapped, {})


@given(st.dictionaries(st.text(), st.floats(allow_nan=False)))
def test_best_first_orders_by_score_then_id(scores):
    ordered = sort_best_first(scores)
    assert ordered == scores
    assert list(ordered) == sorted(ordered, key=lambda point: (-ordered[point], point))
