"""The sliding window of calls."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.policies.breaker import CallWindow


def test_an_empty_window_counts_nothing() -> None:
    window = CallWindow(10.0)
    assert (window.calls, window.failures) == (0, 0)


def test_a_clock_that_goes_back_writes_into_the_latest_slot() -> None:
    window = CallWindow(10.0)
    window.add(True, 100.0)
    window.add(True, 5.0)
    assert window.calls == 2
    window.add(False, 111.0)
    assert (window.calls, window.failures) == (1, 0)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.floats(0, 30), st.booleans()), max_size=60))
def test_the_window_holds_all_of_the_last_nine_tenths_and_nothing_older_than_itself(
    calls: list[tuple[float, bool]],
) -> None:
    window, now, past = CallWindow(10.0), 0.0, []
    for gap, failed in calls:
        now += gap
        past.append((now, failed))
        window.add(failed, now)
        assert sum(at > now - 9.0 for at, _ in past) <= window.calls <= sum(at > now - 10.0 for at, _ in past)
        assert sum(f for at, f in past if at > now - 9.0) <= window.failures <= window.calls
        assert len(window._counts) <= 10
