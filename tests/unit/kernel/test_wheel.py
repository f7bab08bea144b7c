"""Alarms: never early, hardly late, in order, and gone when they are cancelled."""

from __future__ import annotations

import asyncio
import gc
import math
import weakref
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from penstock.kernel.wheel import (
    COARSE_TICKS,
    FAR_S,
    NEAR_S,
    TICKS,
    Slot,
    TimerWheel,
    cancel_timer,
    start_timer,
    wheel_of,
)
from tests.clock import BEGIN_S, Complaint, VirtualLoop, run, virtual

TICK_S = 1 / TICKS
#: Rounding of a float near ``BEGIN_S``.
ROUNDING_S = 1e-9


class Bell:
    """An alarm that notes when it rang."""

    def __init__(self, at_s: float, then: Callable[[], None] = lambda: None) -> None:
        self.at_s = at_s
        self.slot: Slot | None = None
        self.rang: list[float] = []
        self.then = then

    def __repr__(self) -> str:
        return f"<Bell {self.at_s - BEGIN_S:g}>"

    def expire(self) -> None:
        self.rang.append(asyncio.get_running_loop().time())
        self.then()


def set_bell(after_s: float, then: Callable[[], None] = lambda: None) -> Bell:
    """Set an alarm ``after_s`` from now."""
    now_s = asyncio.get_running_loop().time()
    bell = Bell(now_s + after_s, then)
    start_timer(bell, now_s)
    return bell


def lateness_s(ahead_s: float) -> float:
    """Return by how much an alarm may be late that was set so far ahead."""
    return (TICK_S if ahead_s < NEAR_S else TICK_S * COARSE_TICKS) + ROUNDING_S


@given(st.floats(-10, 1000), st.floats(0, 200))
def test_an_alarm_is_never_early_and_at_most_a_tick_late(offset_s: float, ahead_s: float) -> None:
    async def main() -> Bell:
        await asyncio.sleep(max(0.0, offset_s))
        bell = set_bell(ahead_s)
        await asyncio.sleep(ahead_s + 1)
        return bell

    bell = run(main())
    (rang_s,) = bell.rang
    assert bell.at_s <= rang_s <= bell.at_s + lateness_s(ahead_s)
    assert bell.slot is None


@virtual
async def test_an_alarm_that_is_past_rings_in_the_next_step_of_the_loop() -> None:
    bell = set_bell(-5.0)
    assert bell.rang == []
    await asyncio.sleep(TICK_S)
    assert bell.rang == [BEGIN_S]


@pytest.mark.parametrize("far_s", [FAR_S, FAR_S * 1.5, FAR_S * 2, 3600.0, 86_400.0])
def test_a_far_alarm_is_looked_at_again_and_rings_in_time(far_s: float) -> None:
    async def main() -> Bell:
        bell = set_bell(far_s)
        await asyncio.sleep(far_s + 1)
        return bell

    bell = run(main())
    (rang_s,) = bell.rang
    assert bell.at_s <= rang_s <= bell.at_s + TICK_S * COARSE_TICKS + ROUNDING_S


@virtual
async def test_a_far_alarm_can_be_cancelled_before_and_after_it_has_come_near() -> None:
    early, late = set_bell(1000.0), set_bell(1000.0)
    cancel_timer(early)
    await asyncio.sleep(990)
    cancel_timer(late)
    await asyncio.sleep(100)
    assert early.rang == late.rang == []


@virtual
async def test_an_alarm_of_no_finite_time_never_rings_and_takes_no_place() -> None:
    bell = Bell(math.inf)
    start_timer(bell, BEGIN_S)
    assert bell.slot is None
    assert len(wheel_of(asyncio.get_running_loop())) == 0
    cancel_timer(bell)


@virtual
async def test_a_cancelled_alarm_does_not_ring_and_can_be_set_again() -> None:
    bell = set_bell(1.0)
    cancel_timer(bell)
    cancel_timer(bell)
    await asyncio.sleep(2)
    assert bell.rang == []
    bell.at_s = BEGIN_S + 3
    start_timer(bell, BEGIN_S + 2)
    await asyncio.sleep(2)
    assert bell.rang == [BEGIN_S + 3]


@virtual
async def test_an_earlier_alarm_rings_before_one_that_was_set_before_it() -> None:
    later, sooner = set_bell(10.0), set_bell(0.5)
    await asyncio.sleep(1)
    assert (len(sooner.rang), later.rang) == (1, [])
    await asyncio.sleep(10)
    assert len(later.rang) == 1


@virtual
async def test_an_alarm_set_while_others_ring_waits_for_the_next_step_even_if_it_is_due() -> None:
    # One that sets itself again and again would otherwise hold the loop for ever.
    steps: list[int] = []
    wheel, loop = wheel_of(asyncio.get_running_loop()), asyncio.get_running_loop()

    def again() -> None:
        steps.append(len(steps))
        if len(steps) < 50:
            start_timer(bell, loop.time())

    bell = set_bell(0.001, again)
    other = set_bell(0.010)
    await asyncio.sleep(1)
    assert len(steps) == 50
    assert len(other.rang) == 1
    assert len(wheel) == 0


@virtual
async def test_an_alarm_cancelled_by_one_that_rings_before_it_does_not_ring() -> None:
    victim = Bell(BEGIN_S + 1.0)
    first = set_bell(0.9995, lambda: cancel_timer(victim))
    start_timer(victim, BEGIN_S)
    asyncio.get_running_loop().spend(5)  # type: ignore[attr-defined]
    await asyncio.sleep(0.1)
    assert (len(first.rang), victim.rang) == (1, [])


@virtual
async def test_an_alarm_moved_by_one_that_rings_before_it_rings_at_its_new_time() -> None:
    loop = asyncio.get_running_loop()

    def move() -> None:
        cancel_timer(moved)
        moved.at_s = loop.time() + 7
        start_timer(moved, loop.time())

    moved = Bell(BEGIN_S + 1.0)
    set_bell(0.9995, move)
    start_timer(moved, BEGIN_S)
    await asyncio.sleep(20)
    assert moved.rang == [moved.at_s]
    assert moved.at_s >= BEGIN_S + 7.9


def test_an_alarm_that_raises_is_reported_and_stops_no_other() -> None:
    def bug() -> None:
        raise ZeroDivisionError

    bells: list[Bell] = []

    async def main() -> None:
        bells.extend([set_bell(1.0), set_bell(1.0, bug), set_bell(1.0), set_bell(2.0)])
        await asyncio.sleep(3)

    with pytest.raises(Complaint, match=r"an alarm raised: <Bell 1>: ZeroDivisionError"):
        run(main())
    assert [len(bell.rang) for bell in bells] == [1, 1, 1, 1]


def test_the_end_of_the_process_passes_through_and_the_wheel_turns_on() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    loop = VirtualLoop()
    asyncio.set_event_loop(None)

    async def begin() -> Bell:
        set_bell(1.0, interrupt)
        return set_bell(2.0)

    later = loop.run_until_complete(begin())
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(asyncio.sleep(5))
    loop.run_until_complete(asyncio.sleep(5))
    assert len(later.rang) == 1
    loop.close()


@pytest.mark.parametrize("jump_s", [0.05, 5.0, 90.0, 500.0])
def test_after_a_jump_of_the_clock_all_that_is_due_rings_in_the_order_of_its_time(jump_s: float) -> None:
    rung: list[float] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        # Set in an order that has nothing to do with their times; near, coarse and far ones.
        times = (300.0, 0.03, 70.0, 0.2, 64.5, 0.0301, 90.0, 20.0, 0.2001, 130.0, 63.9)
        for after_s in times:
            set_bell(after_s, lambda after_s=after_s: rung.append(after_s))  # type: ignore[misc]
        loop.spend(jump_s)
        await asyncio.sleep(0.001)
        assert rung == sorted(after_s for after_s in times if after_s <= jump_s)

    run(main())


@virtual
async def test_of_equal_times_the_first_set_rings_first() -> None:
    rung: list[int] = []
    for n in range(20):
        set_bell(1.0, lambda n=n: rung.append(n))  # type: ignore[misc]
    await asyncio.sleep(2)
    assert rung == list(range(20))


@virtual
async def test_an_empty_wheel_holds_no_slots_after_its_timer() -> None:
    wheel = wheel_of(asyncio.get_running_loop())
    bells = [set_bell(n / 7) for n in range(1, 400)]
    assert repr(wheel).startswith("<TimerWheel 399 alarms in ")
    for bell in bells:
        cancel_timer(bell)
    assert len(wheel) == 0
    await asyncio.sleep(1)
    assert repr(wheel) == "<TimerWheel 0 alarms in 0 slots>"
    assert wheel._timer is None


def test_each_loop_has_one_wheel_which_goes_with_it() -> None:
    loop, other = VirtualLoop(), VirtualLoop()
    wheel = wheel_of(loop)
    assert wheel_of(loop) is wheel
    assert wheel_of(other) is not wheel
    wheel.add(Bell(BEGIN_S + 1e5), BEGIN_S)
    gone = weakref.ref(loop)  # nothing but the loop holds the wheel
    loop.close()
    other.close()
    del loop, wheel
    gc.collect()
    assert gone() is None


class WheelMachine(RuleBasedStateMachine):
    """A wheel beside a sorted list: what is due by now has rung, in order; nothing else has."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        self.wheel = TimerWheel(self.loop)
        self.waiting: list[Bell] = []
        self.rung: list[Bell] = []
        self.latest: dict[Bell, float] = {}

    @rule(after_s=st.one_of(st.floats(-1, 0.3), st.floats(0, 70), st.floats(60, 400)), times=st.integers(1, 3))
    def add(self, after_s: float, times: int) -> None:
        now_s = self.loop.time()
        for _ in range(times):
            bell = Bell(now_s + after_s)
            bell.then = lambda bell=bell: self.rung.append(bell)  # type: ignore[misc]
            self.latest[bell] = max(bell.at_s, now_s) + lateness_s(after_s)
            self.wheel.add(bell, now_s)
            self.waiting.append(bell)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        bell = data.draw(st.sampled_from(self.waiting))
        cancel_timer(bell)
        self.waiting.remove(bell)

    @rule(seconds=st.one_of(st.just(0.0), st.floats(0, 0.05), st.floats(0, 100)))
    def sleep(self, seconds: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))
        self.settle()

    @rule(seconds=st.floats(0, 100))
    def jump(self, seconds: float) -> None:
        """Let the loop stand still that long."""
        self.loop.spend(seconds)
        before = len(self.rung)
        due = sorted((bell for bell in self.waiting if bell.at_s <= self.loop.time() - TICK_S), key=lambda b: b.at_s)
        self.loop.run_until_complete(asyncio.sleep(0.009))
        rung = [bell for bell in self.rung[before:] if bell in due]
        assert [bell.at_s for bell in rung] == [bell.at_s for bell in due]
        self.settle()

    def settle(self) -> None:
        now_s = self.loop.time()
        for bell in [bell for bell in self.waiting if bell.rang]:
            self.waiting.remove(bell)
            assert bell.rang[0] >= bell.at_s
            assert len(bell.rang) == 1
        for bell in self.waiting:
            assert now_s <= self.latest[bell]

    @invariant()
    def the_wheel_holds_what_waits(self) -> None:
        assert len(self.wheel) == len([bell for bell in self.waiting if not bell.rang])
        assert all(bell.slot is not None for bell in self.waiting if not bell.rang)

    def teardown(self) -> None:
        self.loop.run_until_complete(asyncio.sleep(1000))
        assert all(len(bell.rang) == 1 for bell in self.waiting)
        assert len(self.wheel) == 0
        assert self.wheel._timer is None
        self.loop.close()
        assert not self.loop.complaints


TestWheelAgainstASortedList = WheelMachine.TestCase
TestWheelAgainstASortedList.settings = settings(max_examples=60, stateful_step_count=40)
