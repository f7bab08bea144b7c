"""Estimates of service time."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.policies.estimate import Estimate, Estimates, EstimateSettings

ERROR = 0.1 / 2.1 + 1e-9


def estimate(*samples: float) -> Estimate:
    it = Estimate(EstimateSettings())
    for sample in samples:
        it.observe(sample)
    return it


def near(value: float) -> object:
    return pytest.approx(value, rel=ERROR)


def test_without_data_the_prior_is_answered() -> None:
    it = estimate(*[9.0] * 15)
    assert not it.ready
    assert (it.p50_s, it.p90_s, it.mean_s) == (0.05, 0.05, 0.05)
    it.observe(9.0)
    assert it.ready
    assert (it.p50_s, it.p90_s, it.mean_s) == (near(9.0), near(9.0), near(9.0))
    assert repr(it).endswith("of 16>")


def test_a_mix_is_told_apart() -> None:
    draw = random.Random(1)
    it = estimate(*[draw.choices((0.008, 0.030, 0.250), (80, 15, 5))[0] for _ in range(2000)])
    assert it.p50_s == near(0.008)
    assert it.p90_s == near(0.030)
    assert 0.012 < it.mean_s < 0.04


@pytest.mark.parametrize("before", [15, 16, 100, 3000])
def test_a_single_outlier_moves_nothing_much(before: int) -> None:
    it = estimate(*[0.010] * before, 300.0)
    assert it.p50_s == it.p90_s == near(0.010)
    if before >= 100:
        assert it.mean_s < 0.012


def test_a_lasting_change_is_learnt_within_the_memory() -> None:
    it = estimate(*[0.010] * 1000)
    for _ in range(100):
        it.observe(0.100)
    assert it.p50_s == near(0.100)
    for _ in range(250):
        it.observe(0.010)
    assert it.p90_s == near(0.010)


def test_values_out_of_range_are_bounded() -> None:
    it = estimate(*[-1.0, 0.0, math.nan, 1e-9] * 8)
    assert 0 < it.p90_s <= 1.05e-5
    assert estimate(*[math.inf] * 20).p50_s == near(1000.0)
    assert len(it._weights) <= 200


@settings(max_examples=60)
@given(st.lists(st.floats(1e-5, 1e3), min_size=16, max_size=200))
def test_quantiles_agree_with_the_weighted_samples(samples: list[float]) -> None:
    it = estimate(*samples)
    weighted = sorted((x, math.exp(i / 100)) for i, x in enumerate(samples))
    total = sum(w for _, w in weighted)
    for share, value in ((0.5, it.p50_s), (0.9, it.p90_s)):
        low = high = cumulated = 0.0
        for x, weight in weighted:
            cumulated += weight
            if not low and cumulated >= share * total * (1 - 1e-9):
                low = x
            if cumulated >= share * total * (1 + 1e-9):
                high = x
                break
        assert low * (1 - ERROR) <= value <= (high or math.inf) * (1 + ERROR)


def test_the_running_sums_do_not_drift() -> None:
    draw = random.Random(2)
    it = estimate(*[draw.lognormvariate(-4, 1) for _ in range(20_000)])
    for quantile in (it._median, it._tail):
        below = math.fsum(it._weights[: quantile.bucket])
        assert quantile.below == pytest.approx(below, rel=1e-6, abs=1e-6 * it._total)
        assert below < quantile.share * it._total <= below + it._weights[quantile.bucket] + 1e-6 * it._total


def test_kinds_beyond_the_bound_share_one_estimate() -> None:
    it = Estimates(EstimateSettings(), kinds_max=2)
    assert it.of("dense") is it.of("dense") is not it.of("sparse")
    assert it.of("third") is it.of("fourth")
    assert len(it._of) == 2
