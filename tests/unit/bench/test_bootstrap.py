"""Bootstrap intervals."""

import random

import pytest

from bench.bootstrap import interval


def test_equal_values_leave_no_doubt():
    found = interval([0.25] * 20)
    assert (found.mean, found.low, found.high) == pytest.approx((0.25, 0.25, 0.25))


def test_the_interval_is_about_two_standard_errors_to_each_side():
    chance = random.Random(1)
    found = interval([chance.gauss(0.5, 0.2) for _ in range(400)])
    assert found.low < found.mean < found.high
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * 0.2 / 20, rel=0.15)


def test_the_same_values_give_the_same_interval():
    assert interval([0.0, 1.0, 0.5]) == interval([0.0, 1.0, 0.5])
