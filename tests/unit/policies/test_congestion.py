"""Congestion: the minimum wait over a window, above a target."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.kernel.errors import Invalid
from penstock.policies.congestion import Congestion, CongestionSettings


def test_a_standing_queue_is_congested_after_a_window() -> None:
    it = Congestion(CongestionSettings())
    assert [it.observe(0.006, t / 100) for t in range(12)].index(True) == 10
    assert repr(it) == "<Congestion congested target 5ms window 100ms>"


def test_a_burst_that_drains_is_not_congestion() -> None:
    it = Congestion(CongestionSettings())
    for t in range(100):
        assert not it.observe(0.0 if t % 8 == 0 else 0.05, t / 100)
    assert repr(it) == "<Congestion clear target 5ms window 100ms>"


def test_congestion_ends_below_half_the_target_only() -> None:
    it = Congestion(CongestionSettings())
    it.observe(1.0, 0.0)
    assert it.congested
    assert not it.observe(0.004, 1.0)
    assert it.congested
    assert it.observe(0.002, 1.1)
    assert not it.congested


def test_one_old_message_proves_the_whole_window() -> None:
    it = Congestion(CongestionSettings())
    assert not it.observe(0.104, 10.0)
    assert it.observe(0.105, 20.0)


def test_an_empty_queue_ends_congestion_at_once() -> None:
    it = Congestion(CongestionSettings())
    it.observe(1.0, 0.0)
    assert it.observe(0.0, 0.0)


def test_target_and_window_follow_the_service_time() -> None:
    it = Congestion(CongestionSettings())
    seen = []
    for service_s in (0.001, 0.1, 10.0):
        it.retarget(service_s)
        seen.append((it.target_s, it.window_s))
    assert seen == [(0.005, 0.1), (0.2, 0.2), (20.0, 1.0)]


def test_absurd_settings_are_refused() -> None:
    with pytest.raises(Invalid, match="clear_share must lie between 0 and 1"):
        CongestionSettings(clear_share=2.0)


@settings(max_examples=80)
@given(st.lists(st.tuples(st.floats(0.0, 0.05), st.booleans()), max_size=200))
def test_it_agrees_with_the_minimum_over_the_window(steps: list[tuple[float, bool]]) -> None:
    """Ages grow with time unless the oldest leaves; the reference keeps every age seen."""
    it, now, oldest, seen = Congestion(CongestionSettings(clear_share=1.0)), 0.0, 0.0, [(0.0, 0.0)]
    for gap, leaves in steps:
        now += gap
        seen.append((now, now - oldest))
        it.observe(now - oldest, now)
        if leaves:
            oldest = now
            seen.append((now, 0.0))
            it.observe(0.0, now)
        low = [at for at, age in seen if age <= 0.005]
        since = max(low[-1], oldest + 0.005)
        assert it.congested == (seen[-1][1] > 0.005 and now - since >= 0.1) or abs(now - since - 0.1) < 1e-9
