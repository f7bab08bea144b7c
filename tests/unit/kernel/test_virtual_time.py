"""The test equipment itself: time jumps, deadlocks and forgotten errors are told."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from blockbuster import BlockingError
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.stores.lock import DirectoryLock
from tests.clock import BEGIN_S, Complaint, Deadlock, VirtualLoop, quiet, run, tick, virtual


@virtual
async def test_an_hour_passes_at_once() -> None:
    began_s = time.perf_counter()
    loop = asyncio.get_running_loop()
    await asyncio.sleep(3600)
    assert loop.time() == pytest.approx(BEGIN_S + 3600)
    assert time.perf_counter() - began_s < 60


@virtual
async def test_timers_fire_in_the_order_of_their_times() -> None:
    fired = []

    async def sleeper(delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        fired.append(delay_s)

    async with asyncio.TaskGroup() as group:
        for delay_s in (5.0, 0.5, 50.0, 0.05):
            group.create_task(sleeper(delay_s))
    assert fired == [0.05, 0.5, 5.0, 50.0]


@settings(max_examples=20)
@given(delays_s=st.lists(st.floats(0, 1e6), max_size=10))
@virtual
async def test_a_sleeper_never_wakes_early(delays_s: list[float]) -> None:
    loop = asyncio.get_running_loop()
    for delay_s in delays_s:
        due_s = loop.time() + delay_s
        await asyncio.sleep(delay_s)
        assert loop.time() >= due_s - 1e-9 * max(1.0, due_s)


@virtual
async def test_time_spent_computing_makes_timers_late() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    fired: list[float] = []
    loop.call_later(1, lambda: fired.append(loop.time()))
    loop.spend(5)
    await quiet()
    assert fired == [BEGIN_S + 5]


@virtual
async def test_quiet_waits_for_all_that_can_happen_and_no_longer() -> None:
    steps = []

    async def worker() -> None:
        for step in range(100):
            await asyncio.sleep(0)
            steps.append(step)
        await asyncio.sleep(1)
        steps.append(-1)

    task = asyncio.create_task(worker())
    await quiet()
    assert steps == list(range(100))
    await task


def test_tick_runs_only_what_is_ready() -> None:
    loop = VirtualLoop()
    seen = []

    async def worker() -> None:
        seen.append("first")
        await asyncio.sleep(0)
        seen.append("second")

    task = loop.create_task(worker())
    tick(loop)
    assert seen == ["first"]
    loop.run_until_complete(task)
    assert seen == ["first", "second"]
    loop.close()
    loop.check()


def test_a_wait_that_cannot_end_is_a_deadlock_and_says_where() -> None:
    async def stuck() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        await asyncio.create_task(stuck(), name="the stuck one")

    with pytest.raises(Deadlock, match=r"the stuck one at .*locks\.py:\d+ in Event\.wait"):
        run(main())


def test_a_timer_at_infinity_is_a_deadlock_too() -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_at(float("inf"), print)
        await asyncio.Event().wait()

    with pytest.raises(Deadlock):
        run(main())


def test_a_deadlock_still_runs_cleanup() -> None:
    cleaned = []

    async def main() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append(True)

    with pytest.raises(Deadlock):
        run(main())
    assert cleaned


def test_an_error_nobody_looked_at_fails_the_run() -> None:
    async def main() -> None:
        asyncio.get_running_loop().create_future().set_exception(ValueError("lost"))

    with pytest.raises(Complaint, match=r"never retrieved.*lost"):
        run(main())


def test_an_error_in_a_callback_fails_the_run() -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await quiet()

    with pytest.raises(Complaint, match="ZeroDivisionError"):
        run(main())


def test_a_blocking_call_of_ours_fails_the_run(tmp_path: Path) -> None:
    async def main() -> None:
        DirectoryLock(tmp_path / "new").acquire()

    with pytest.raises(BlockingError):
        run(main())


def test_the_result_is_handed_on() -> None:
    async def main() -> int:
        return 7

    assert run(main()) == 7


def test_a_watcher_sees_every_step_and_can_end_the_run() -> None:
    steps = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)

        def check() -> None:
            steps.append(loop.time())
            assert loop.time() < BEGIN_S + 3, "too late"

        loop.watch(check)
        try:
            for _ in range(10):
                await asyncio.sleep(1)
        finally:
            loop.watch(lambda: None)

    with pytest.raises(AssertionError, match="too late"):
        run(main())
    assert {BEGIN_S, BEGIN_S + 1, BEGIN_S + 2, BEGIN_S + 3} <= set(steps)
