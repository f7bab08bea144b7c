"""Forecast of the end of a job."""

from __future__ import annotations

from penstock.policies.estimate import MISS_FACTOR, PARTS_MIN, CompletionForecast


def forecast(done: int, total: int = 100) -> CompletionForecast:
    made = CompletionForecast(total, 10.0)
    for _ in range(done):
        made.observe(1)
    return made


def test_the_rest_takes_as_long_for_each_unit_as_what_is_done() -> None:
    assert forecast(PARTS_MIN).remaining_s(14.0) == 4.0 / PARTS_MIN * (100 - PARTS_MIN)


def test_too_few_parts_say_nothing() -> None:
    made = forecast(PARTS_MIN - 1)
    assert made.remaining_s(1000.0) == 0.0
    assert not made.misses_deadline(1000.1, 1000.0)


def test_a_deadline_is_missed_beyond_doubt_only() -> None:
    made = forecast(50)
    assert made.remaining_s(20.0) == 10.0
    assert not made.misses_deadline(20.0 + 10.0 / MISS_FACTOR, 20.0)
    assert made.misses_deadline(20.0 + 9.9 / MISS_FACTOR, 20.0)
    assert made.misses_deadline(19.0, 20.0)


def test_nothing_is_missed_without_a_deadline_or_when_all_is_done() -> None:
    assert not forecast(50).misses_deadline(float("inf"), 20.0)
    assert not forecast(100).misses_deadline(20.0, 20.0)
    assert repr(forecast(2)) == "<CompletionForecast 2 of 100 in 2 parts>"
