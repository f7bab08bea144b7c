"""Adaptive concurrency limit."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.kernel.errors import Invalid
from penstock.policies.limit import (
    KINDS_MAX,
    AdaptiveLimit,
    LimitChange,
    LimitChangeReason,
    LimitSettings,
    gradient,
    step,
)


def drive(it: AdaptiveLimit, latency_s: float, seconds: float, began_s: float = 0.0, **changed: object) -> float:
    """Let 20 calls end each 0.25 s."""
    end = began_s + seconds
    while began_s < end:
        for _ in range(20):
            it.observe(latency_s, changed.get("in_flight", it.limit), began_s, dropped=bool(changed.get("dropped")))  # type: ignore[arg-type]
            began_s += 0.0125
    return began_s


def test_it_grows_while_latency_stays_at_its_baseline_up_to_the_ceiling() -> None:
    it = AdaptiveLimit(LimitSettings())
    drive(it, 0.01, 60.0)
    assert it.limit == 64
    assert repr(it) == "<AdaptiveLimit 64 baseline 10.0ms>"


def test_it_falls_to_one_when_latency_stays_high() -> None:
    it = AdaptiveLimit(LimitSettings(initial=64))
    now = drive(it, 0.01, 1.0)
    began = now
    while it.limit > 1 and now - began < 60:
        now = drive(it, 0.1, 0.25, now)
    assert it.limit == 1
    assert now - began < 10


def test_it_falls_on_drops_even_when_they_are_quick() -> None:
    it = AdaptiveLimit(LimitSettings(initial=64))
    now = drive(it, 0.01, 1.0)
    drive(it, 0.0001, 10.0, now, dropped=True)
    assert it.limit == 1
    assert it.baseline_s == pytest.approx(0.01)


def test_a_few_drops_among_many_answers_do_not_matter() -> None:
    it = AdaptiveLimit(LimitSettings())
    for n in range(2000):
        it.observe(0.01, it.limit, n / 80, dropped=n % 20 == 0)
    assert it.limit > 10


def test_an_unused_limit_does_not_grow() -> None:
    it = AdaptiveLimit(LimitSettings(initial=8))
    drive(it, 0.01, 20.0, in_flight=3)
    assert it.limit == 8


def test_a_dependency_that_is_slower_for_good_is_learnt() -> None:
    it = AdaptiveLimit(LimitSettings())
    now = drive(it, 0.01, 10.0)
    drive(it, 0.1, 40.0, now)
    assert it.limit > 10
    assert it.baseline_s == pytest.approx(0.1, rel=0.5)


def test_lasting_overload_is_not_taken_for_normal() -> None:
    """A dependency that serves 4 at once in 10 ms, and queues the rest; an hour of it."""
    it = AdaptiveLimit(LimitSettings())
    now, seen = 0.0, []
    for _ in range(3600 * 4):
        for _ in range(5):
            now += 0.05
            it.observe(0.01 * max(1.0, it.limit / 4), it.limit, now)
        seen.append(it.limit)
    assert max(seen[100:]) <= 16
    assert min(seen[100:]) >= 4


def test_a_step_tells_its_reason() -> None:
    it = AdaptiveLimit(LimitSettings(samples_min=1, window_s=0.0, smoothing_up=1.0))
    assert it.observe(0.01, 1, 0.0) == LimitChange(1, 4, LimitChangeReason.ROOM)
    assert it.observe(0.01, 4, 0.0) == LimitChange(4, 6, LimitChangeReason.ROOM)
    assert it.observe(1.0, 6, 1.0) == LimitChange(6, 4, LimitChangeReason.SLOW)
    assert it.observe(1.0, 4, 2.0, dropped=True) == LimitChange(4, 3, LimitChangeReason.DROPS)
    assert it.observe(0.0, 0, 3.0) is None


def test_until_the_latency_at_rest_is_known_the_limit_is_the_floor() -> None:
    it = AdaptiveLimit(LimitSettings(initial=16, samples_min=2))
    assert it.limit == 1
    now = drive(it, 0.0, 1.0, dropped=True)
    assert it.limit == 1, "refusals tell no latency"
    drive(it, 0.01, 0.5, now)
    assert it.limit >= 16


@pytest.mark.parametrize("initial", [4, 16, 64])
@pytest.mark.parametrize("capacity", [1, 4])
def test_a_high_beginning_is_not_taken_for_the_dependency_s_nature(initial: int, capacity: int) -> None:
    """A dependency that serves so many at once in 10 ms, and is loaded from the first call on."""
    it, now, seen = AdaptiveLimit(LimitSettings(initial=initial)), 0.0, []
    for _ in range(400):
        for _ in range(5):
            now += 0.05
            it.observe(0.01 * max(1.0, it.limit / capacity), it.limit, now)
        seen.append(it.limit)
    assert it.baseline_s == pytest.approx(0.01, rel=0.5)
    assert max(seen[50:]) <= 4 * capacity


def test_kinds_of_calls_that_differ_in_length_are_not_taken_for_load() -> None:
    it, now = AdaptiveLimit(LimitSettings()), 0.0
    for turn in range(200):
        mostly = turn % 2 == 0  # one window of queries, one of batches that take twenty times as long
        for n in range(20):
            now += 0.0125
            kind = "query" if (n % 5 > 0) is mostly else "document"
            it.observe(0.01 if kind == "query" else 0.2, it.limit, now, kind=kind)
    assert it.limit == 64


def test_a_kind_that_is_new_under_load_is_taken_to_suffer_as_the_known_ones_do() -> None:
    it = AdaptiveLimit(LimitSettings(initial=32, samples_min=2, window_s=0.0))
    for latency_s, kind in ((0.01, "query"), (0.01, "query"), (0.04, "query"), (0.4, "document")):
        change = it.observe(latency_s, it.limit, 0.0, kind=kind)
    assert change is not None
    assert change.reason is LimitChangeReason.SLOW
    assert it.baseline_s == pytest.approx((0.01 + 0.1) / 2)


def test_kinds_beyond_the_bound_share_one_baseline() -> None:
    it = AdaptiveLimit(LimitSettings())
    for n in range(400):
        it.observe(0.01, it.limit, n / 80, kind=str(n % 100))
    assert it.limit > 4
    assert len(it._baselines) <= KINDS_MAX + 1


def test_the_headroom_vanishes_with_the_gradient() -> None:
    settings = LimitSettings(smoothing_up=1.0, smoothing_down=1.0)
    assert step(16.0, 1.0, settings) == 20.0
    assert step(16.0, 0.5, settings) == 8.0
    assert step(1.0, 0.5, settings) == 1.0
    assert step(64.0, 1.0, settings) == 64.0
    assert [gradient(1.0, recent, 1.5) for recent in (0.0, 1.0, 1.5, 2.0, 9.0)] == [1.0, 1.0, 1.0, 0.75, 0.5]


def test_absurd_settings_are_refused() -> None:
    with pytest.raises(Invalid, match="initial"):
        LimitSettings(initial=100)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.floats(-1, 100), st.integers(0, 100), st.booleans(), st.floats(0, 1)), max_size=200))
def test_the_limit_stays_within_its_bounds(calls: list[tuple[float, int, bool, float]]) -> None:
    it, now = AdaptiveLimit(LimitSettings(ceiling=16)), 0.0
    for latency_s, in_flight, dropped, gap in calls:
        now += gap
        before = it.limit
        change = it.observe(latency_s, in_flight, now, dropped=dropped)
        assert 1 <= it.limit <= 16
        assert (change is None) == (before == it.limit)
