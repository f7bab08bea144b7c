"""When freed memory is given back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.kernel.errors import Invalid
from penstock.policies.reclaim import ReclaimPolicy, ReclaimSettings

SETTINGS = ReclaimSettings(every_s=10.0, urgent_s=5.0, worked_s=0.25)


def test_a_process_that_works_gives_back_every_so_often_and_once_after_its_end() -> None:
    reclaim = ReclaimPolicy(SETTINGS)
    times = [now for now in range(60) if reclaim.due(100, min(now, 25) * 0.1 + 1.0, now)]
    assert times == [0, 10, 20, 30]


def test_a_process_at_rest_gives_nothing_back() -> None:
    reclaim = ReclaimPolicy(SETTINGS)
    assert not any(reclaim.due(100, 0.2, now) for now in range(100))


def test_while_memory_is_short_it_happens_sooner_and_without_work() -> None:
    reclaim = ReclaimPolicy(SETTINGS)
    assert [now for now in range(12) if reclaim.due(100, 0.0, now, short=True)] == [0, 5, 10]


def test_memory_that_stays_taken_is_tried_until_the_floor_has_risen_to_it() -> None:
    reclaim = ReclaimPolicy(SETTINGS)
    assert not reclaim.due(100, 0.0, 0.0)
    times = [now for now in range(1, 600) if reclaim.due(300, 0.0, now)]
    assert times == list(range(1, 102, 10))  # 1.1 ** 12 > 3


def test_what_was_given_back_lowers_the_floor_again() -> None:
    reclaim = ReclaimPolicy(SETTINGS)
    reclaim.due(300, 0.0, 0.0)
    assert not reclaim.due(100, 0.0, 20.0)
    assert reclaim.due(120, 0.0, 40.0)


@given(st.lists(st.tuples(st.floats(0, 3), st.floats(0, 5), st.booleans(), st.integers(0, 9)), max_size=100))
def test_it_never_happens_twice_within_the_shortest_time(steps: list[tuple[float, float, bool, int]]) -> None:
    reclaim, cpu_s, now_s, last_s = ReclaimPolicy(SETTINGS), 0.0, 0.0, -100.0
    for worked_s, passed_s, short, used in steps:
        cpu_s, now_s = cpu_s + worked_s, now_s + passed_s
        if reclaim.due(used, cpu_s, now_s, short=short):
            assert now_s - last_s >= SETTINGS.urgent_s
            last_s = now_s


def test_negative_times_are_no_settings() -> None:
    with pytest.raises(Invalid):
        ReclaimSettings(every_s=-1.0)
