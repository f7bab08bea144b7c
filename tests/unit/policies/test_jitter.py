"""Jitter."""

from __future__ import annotations

import math

from penstock.policies.jitter import jittered_retry_after_s, with_jitter


def test_jitter_lengthens_and_never_shortens() -> None:
    assert [with_jitter(10.0, 0.2, luck) for luck in (0.0, 0.5)] == [10.0, 11.0]


def test_short_waits_are_spread_over_several_seconds() -> None:
    assert {jittered_retry_after_s(0.1, luck / 100) for luck in range(100)} == {1, 2, 3}


def test_long_waits_are_spread_in_proportion() -> None:
    assert [jittered_retry_after_s(30.0, luck) for luck in (0.0, 0.999)] == [30, 45]


def test_retry_after_is_a_whole_number_of_seconds_whatever_comes() -> None:
    assert [jittered_retry_after_s(wrong, 0.0) for wrong in (-5.0, 0.0, math.inf, math.nan, 1e9)] == [
        1,
        1,
        3600,
        3600,
        3600,
    ]
