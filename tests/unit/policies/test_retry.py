"""Retry budget and backoff."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.kernel.errors import Invalid
from penstock.policies.retry import RetryBudget, RetrySettings, backoff_s


def test_retries_are_a_tenth_of_requests() -> None:
    it = RetryBudget(RetrySettings(per_s_min=0.0))
    retried = 0
    for _ in range(1000):
        it.earn()
        retried += it.spend(0.0)
    assert retried in (99, 100)
    assert not it.spend(0.0)


def test_savings_are_bounded() -> None:
    it = RetryBudget(RetrySettings(per_s_min=0.0))
    for _ in range(100_000):
        it.earn()
    assert repr(it) == "<RetryBudget 10.0 saved>"
    assert sum(it.spend(0.0) for _ in range(100)) == 10


def test_a_minimum_a_second_is_allowed_to_those_who_ask_rarely() -> None:
    it = RetryBudget(RetrySettings())
    assert [it.spend(now) for now in (0.0, 0.5, 1.0, 1.5)] == [True, False, True, False]


def test_retries_while_congested_are_refused_and_cost_nothing() -> None:
    it = RetryBudget(RetrySettings())
    assert not it.spend(0.0, congested=True)
    assert it.spend(0.0)


@settings(max_examples=50)
@given(st.lists(st.one_of(st.none(), st.floats(0, 3)), max_size=300))
def test_the_budget_keeps_the_bound_it_documents(steps: list[float | None]) -> None:
    it, now, earned, spent = RetryBudget(RetrySettings(per_s_min=2.0)), 0.0, 0, 0
    for step in steps:
        if step is None:
            earned += 1
            it.earn()
        else:
            now += step
            spent += it.spend(now)
        assert spent <= 0.1 * earned + 2.0 * (now + 1) + 1e-6


def test_backoff_is_drawn_from_the_whole_of_a_doubling_range() -> None:
    records = RetrySettings()
    assert [backoff_s(n, 1.0, records) for n in (0, 1, 2, 10, 10_000)] == [0.05, 0.1, 0.2, 5.0, 5.0]
    assert backoff_s(3, 0.0, records) == 0.0
    assert backoff_s(3, 0.5, records) == pytest.approx(0.2)


def test_absurd_settings_are_refused() -> None:
    with pytest.raises(Invalid, match="ratio must be at least 0, not -1"):
        RetrySettings(ratio=-1)
