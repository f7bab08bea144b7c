"""The limit on what an event loop carries."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.kernel.errors import Invalid
from penstock.policies.load_shedder import LoadShedder, ShedderSettings

TEN = ShedderSettings(
    target=0.02,
    patience_s=1.0,
    limit_s_min=0.5,
    window_s=0.05,
    samples_min=1,
    calm_s=100.0,
    floor=2,
    ceiling=10,
    decrease=0.5,
    increase=0.1,
    newcomers=0.5,
)


def slow(it: LoadShedder, steps: int, began_s: float = 0.0) -> float:
    """Let requests wait too long for a number of steps; return when that is over."""
    for n in range(steps):
        it.observe(1.0, began_s + 3.0 * n)
    return began_s + 3.0 * steps


def test_a_loop_that_keeps_up_is_not_limited() -> None:
    it = LoadShedder(TEN)
    for n in range(100):
        it.begin("a")
        it.observe(0.019, n / 100)
    assert (it.limit, it.full, it.admits("a")) == (10, False, True), "the ceiling is the gate's to keep"


def test_requests_that_wait_lower_it_from_what_is_in_flight() -> None:
    it = LoadShedder(TEN)
    for _ in range(8):
        it.begin("a")
    it.observe(0.021, 0.0)
    assert it.limit == 4
    slow(it, 5, 1.0)
    assert it.limit == 2, "never below the floor"


def test_one_step_is_waited_for_before_the_next() -> None:
    it = LoadShedder(TEN)
    for _ in range(8):
        it.begin("a")
    for n in range(100):
        it.observe(0.5, n / 100)
    assert it.limit == 4, "twice the wait: only then are there requests that came after the step"
    it.observe(0.5, 1.0)
    assert it.limit == 2


def test_it_falls_while_the_work_behind_is_exhausted_though_the_loop_keeps_up() -> None:
    exhausted = [True]
    it = LoadShedder(TEN, lambda: exhausted[0])
    for _ in range(8):
        it.begin("a")
    it.observe(0.001, 0.0)
    assert it.limit == 4
    exhausted[0] = False
    it.observe(0.001, 1.0)
    assert it.limit == 5


def test_what_counts_is_the_share_of_the_time_that_a_caller_has() -> None:
    for limit_s, limit in ((0.0, 4), (0.5, 4), (60.0, 10)):
        it = LoadShedder(TEN)
        for _ in range(8):
            it.begin("a")
        it.observe(0.5, 0.0, limit_s)
        assert it.limit == limit


def test_a_caller_in_a_hurry_does_not_shut_out_the_others() -> None:
    it = LoadShedder(TEN)
    for n in range(20):
        it.observe(0.009, float(n), 0.001)
    assert it.limit == 10


def test_few_requests_tell_nothing() -> None:
    it = LoadShedder(replace(TEN, samples_min=10))
    for n in range(9):
        it.observe(5.0, 10.0 * n)
    assert it.limit == 10
    it.observe(5.0, 90.0)
    assert it.limit == 2


def test_a_while_after_the_last_step_down_it_is_lifted() -> None:
    it = LoadShedder(TEN)
    for _ in range(8):
        it.begin("a")
    now_s = slow(it, 1)
    for _ in range(8):
        it.end("a")
    it.observe(0.001, now_s + 90.0)
    assert it.limit == 5
    for _ in range(5):
        it.begin("a")
    it.observe(0.001, now_s + 101.0)
    assert it.limit == 6, "while it is used it rises as ever"
    for _ in range(5):
        it.end("a")
    it.observe(0.001, now_s + 102.0)
    assert it.limit == 7
    it.observe(0.001, now_s + 103.0)
    assert it.limit == 10


def test_it_rises_while_it_is_used_and_not_otherwise() -> None:
    it = LoadShedder(TEN)
    for _ in range(4):
        it.begin("a")
    now_s = slow(it, 1)
    assert it.limit == 2
    for n in range(4):
        it.observe(0.001, now_s + n)
    assert it.limit == 6, "one more at each step, as long as that is not more than is in flight"
    for _ in range(3):
        it.end("a")
    for n in range(4, 10):
        it.observe(0.001, now_s + n)
    assert it.limit == 6


def test_a_client_has_its_share_and_a_newcomer_finds_room() -> None:
    it = LoadShedder(TEN)
    for _ in range(8):
        it.begin("hog")
    slow(it, 1)
    assert (it.limit, it.admits("hog"), it.admits("other")) == (4, False, False)
    for _ in range(3):
        it.end("hog")
    assert (it.in_flight, it.full, it.admits("hog"), it.admits("other")) == (5, False, False, True)
    it.begin("other")
    assert it.full
    for _ in range(3):
        it.end("hog")
    assert (it.in_flight, it.admits("hog"), it.admits("other")) == (3, False, True), "half of it each"


def test_what_has_ended_leaves_nothing_behind() -> None:
    it = LoadShedder(TEN)
    for name in "aab":
        it.begin(name)
    for name in "aba":
        it.end(name)
    assert it.in_flight == 0
    assert repr(it) == "<LoadShedder 0/10>"
    assert it.admits("c")


def test_absurd_settings_are_refused() -> None:
    for wrong in ({"target": 0.0}, {"floor": 0}, {"floor": 9, "ceiling": 8}, {"decrease": 1.0}, {"newcomers": -1.0}):
        with pytest.raises(Invalid):
            ShedderSettings(**wrong)  # type: ignore[arg-type]


@given(st.lists(st.tuples(st.floats(0.0, 1.0), st.floats(0.0, 0.5), st.sampled_from("abcde")), max_size=200))
def test_the_limit_stays_within_its_bounds_and_nothing_is_counted_twice(seen: list[tuple[float, float, str]]) -> None:
    it, now_s, running = LoadShedder(TEN), 0.0, list[str]()
    for wait_s, later_s, client in seen:
        now_s += later_s
        it.observe(wait_s, now_s)
        if it.admits(client):
            it.begin(client)
            running.append(client)
        elif running:
            it.end(running.pop(0))
        assert TEN.floor <= it.limit <= TEN.ceiling
        assert it.in_flight == len(running)
