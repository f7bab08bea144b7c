"""Whoever holds a permit for a call in a thread holds it to the end (DESIGN §4); some calls can be asked to end."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from dataclasses import replace
from functools import partial

import pytest
from executors import HandExecutor

from penstock.bus.local import LocalBus
from penstock.kernel.context import Context, Deadline, enforce_deadline
from penstock.kernel.errors import Broken, Expired
from penstock.kernel.settings import BusSettings
from penstock.pools.permits import Permits
from penstock.pools.thread_pool import ThreadPool, await_job
from tests.clock import BEGIN_S, quiet, virtual
from tests.fakes.loop_clock import LoopClock


@pytest.fixture
def executor() -> HandExecutor:
    return HandExecutor()


@pytest.fixture
def threads(executor: HandExecutor, monkeypatch: pytest.MonkeyPatch) -> ThreadPool:
    monkeypatch.setattr("penstock.pools.thread_pool.ThreadPoolExecutor", lambda *_, **__: executor)
    return ThreadPool(2, "ml")


@virtual
async def test_the_result_of_a_call_comes_back(executor: HandExecutor, threads: ThreadPool) -> None:
    task = asyncio.create_task(threads.run(lambda: 42))
    await quiet()
    executor.begin()
    executor.end()
    assert await task == 42


@virtual
async def test_an_error_of_a_call_passes(executor: HandExecutor, threads: ThreadPool) -> None:
    task = asyncio.create_task(threads.run(lambda: 1 // 0))
    await quiet()
    executor.begin()
    executor.end()
    with pytest.raises(ZeroDivisionError):
        await task


@virtual
async def test_a_call_that_has_not_begun_is_taken_back(executor: HandExecutor, threads: ThreadPool) -> None:
    task = asyncio.create_task(threads.run(lambda: 42))
    await quiet()
    task.cancel()
    await quiet()
    assert task.cancelled()
    assert not executor.begin()


@pytest.mark.parametrize("call", [lambda: 42, lambda: 1 // 0], ids=["returns", "raises"])
@pytest.mark.parametrize("times", [1, 3])
def test_a_running_call_is_waited_for_however_often_it_is_cancelled(call, times: int, executor: HandExecutor) -> None:
    @virtual
    async def scenario() -> None:
        task = asyncio.create_task(await_job(executor.submit(call)))
        await quiet()
        executor.begin()
        for _ in range(times):
            task.cancel()
            await quiet()
            assert not task.done()
        executor.end()
        await quiet()
        assert task.cancelled()
        executor.forget()

    scenario()


@pytest.mark.parametrize("call", [lambda: 42, lambda: 1 // 0], ids=["returns", "raises"])
def test_a_call_that_ends_in_the_moment_of_its_cancellation_leaves_no_unseen_error(
    call, executor: HandExecutor
) -> None:
    @virtual
    async def scenario() -> None:
        task = asyncio.create_task(await_job(executor.submit(call)))
        await quiet()
        executor.begin()
        task.cancel()
        executor.end()  # the loop has not heard of it yet
        await quiet()
        assert task.cancelled()
        executor.forget()

    scenario()


@virtual
async def test_a_deadline_is_told_only_when_the_call_has_ended(executor: HandExecutor, threads: ThreadPool) -> None:
    async def limited() -> None:
        async with enforce_deadline(Deadline(BEGIN_S + 10, "embed")):
            await threads.run(lambda: 42)

    task = asyncio.create_task(limited())
    await quiet()
    executor.begin()
    await asyncio.sleep(60)
    assert not task.done()
    executor.end()
    with pytest.raises(Expired):
        await task


@virtual
async def test_a_permit_stays_out_while_the_thread_runs_though_its_requester_left(
    executor: HandExecutor, threads: ThreadPool
) -> None:
    bus, permits = LocalBus(BusSettings(), {}, LoopClock()), Permits("embed", 1)

    async def embed(message: object, _ctx: Context) -> object:
        return await threads.run(lambda: message)

    bus.subscribe("ml.embed", embed, permits)
    gone = asyncio.create_task(bus.request("ml.embed", "first", Context.background()))
    next_one = asyncio.create_task(bus.request("ml.embed", "second", Context.background()))
    await quiet()
    executor.begin(0)
    gone.cancel()
    await quiet()
    assert gone.cancelled()
    assert (permits.active, len(executor.jobs)) == (1, 1)  # the second must not run beside the first
    executor.end(0)
    await quiet()
    assert (permits.active, len(executor.jobs)) == (1, 2)
    executor.begin(1)
    executor.end(1)
    assert await next_one == "second"
    await quiet()
    assert permits.active == 0


class Stopping:
    """A call that ends early when it is asked to.

    Attributes:
        asked: How often it was.
    """

    def __init__(self, executor: HandExecutor, number: int = 0) -> None:
        self.asked = 0
        self._executor = executor
        self._number = number

    def __call__(self) -> None:
        self.asked += 1
        self._executor.end(self._number)


@virtual
async def test_a_running_call_that_can_be_stopped_is_asked_to_stop_once(
    executor: HandExecutor, threads: ThreadPool
) -> None:
    stop = Stopping(executor)
    task = asyncio.create_task(threads.run(lambda: 1 // 0, stop))
    await quiet()
    executor.begin()
    task.cancel()
    await quiet()
    assert (task.cancelled(), stop.asked) == (True, 1)
    executor.forget()


@virtual
async def test_a_call_that_takes_its_time_to_stop_is_waited_for_and_asked_no_second_time(
    executor: HandExecutor, threads: ThreadPool
) -> None:
    asked = []
    task = asyncio.create_task(threads.run(lambda: 42, lambda: asked.append(True)))
    await quiet()
    executor.begin()
    for _ in range(3):
        task.cancel()
        await quiet()
        assert (task.done(), asked) == (False, [True])
    executor.end()
    await quiet()
    assert task.cancelled()


@virtual
async def test_a_call_not_begun_and_a_call_that_has_ended_are_not_asked_to_stop(
    executor: HandExecutor, threads: ThreadPool
) -> None:
    stop = Stopping(executor)
    waits, ends = (asyncio.create_task(threads.run(lambda: 42, stop)) for _ in range(2))
    await quiet()
    executor.begin(1)
    executor.end(1)
    waits.cancel()
    ends.cancel()
    await quiet()
    assert (waits.cancelled(), ends.cancelled(), stop.asked) == (True, True, 0)


@virtual
async def test_of_two_calls_only_the_cancelled_one_is_asked_to_stop(
    executor: HandExecutor, threads: ThreadPool
) -> None:
    stops = [Stopping(executor, number) for number in range(2)]
    gone, stays = (asyncio.create_task(threads.run(lambda: 42, stop)) for stop in stops)
    await quiet()
    executor.begin(0)
    executor.begin(1)
    gone.cancel()
    await quiet()
    assert [stop.asked for stop in stops] == [1, 0]
    executor.end(1)
    assert await stays == 42


@virtual
async def test_a_permit_is_back_at_once_when_the_requester_of_a_stoppable_call_leaves(
    executor: HandExecutor, threads: ThreadPool
) -> None:
    bus, permits = LocalBus(BusSettings(), {}, LoopClock()), Permits("embed", 1)

    async def embed(message: object, _ctx: Context) -> object:
        return await threads.run(lambda: message, Stopping(executor))

    bus.subscribe("ml.embed", embed, permits)
    ctx = replace(Context.background(), deadline=Deadline(BEGIN_S + 1, "search"))
    task = asyncio.create_task(bus.request("ml.embed", "m", ctx))
    await quiet()
    executor.begin()
    with pytest.raises(Expired):
        await task
    await quiet()
    assert (permits.active, asyncio.get_running_loop().time() < BEGIN_S + 1.1) == (0, True)


@virtual
async def test_closing_takes_back_what_waits_and_asks_what_runs_to_stop(
    executor: HandExecutor, threads: ThreadPool
) -> None:
    stop = Stopping(executor)
    runs, waits, over = (asyncio.create_task(threads.run(lambda: 1 // 0, stop)) for _ in range(3))
    await quiet()
    executor.begin(0)
    executor.begin(2)
    executor.end(2)
    await threads.close()
    assert stop.asked == 1
    errors = await asyncio.gather(runs, waits, over, return_exceptions=True)
    assert [type(error) for error in errors] == [ZeroDivisionError, asyncio.CancelledError, ZeroDivisionError]


@virtual
async def test_closing_waits_no_longer_than_its_time_for_a_call_that_cannot_be_stopped(
    executor: HandExecutor, threads: ThreadPool, caplog: pytest.LogCaptureFixture
) -> None:
    task = asyncio.create_task(threads.run(lambda: 42))
    await quiet()
    executor.begin()
    began_s = asyncio.get_running_loop().time()
    await threads.close(within_s=3.0)
    assert asyncio.get_running_loop().time() - began_s == pytest.approx(3.0)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    executor.end()
    assert await task == 42


@virtual
async def test_closing_threads_that_do_nothing_takes_no_time(threads: ThreadPool) -> None:
    await threads.close()
    assert asyncio.get_running_loop().time() == BEGIN_S


@virtual
async def test_closing_the_threads_answers_calls_that_wait(executor: HandExecutor, threads: ThreadPool) -> None:
    bus, permits = LocalBus(BusSettings(), {}, LoopClock()), Permits("embed", 1)

    async def embed(message: object, _ctx: Context) -> object:
        return await threads.run(lambda: message)

    bus.subscribe("ml.embed", embed, permits)
    task = asyncio.create_task(bus.request("ml.embed", "m", Context.background()))
    await quiet()
    await threads.close()
    with pytest.raises(Broken):
        await task
    await quiet()
    assert permits.active == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only there each thread has a priority of its own")
def test_only_threads_that_shall_be_nice_are() -> None:
    def priority() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    async def asked(threads: ThreadPool) -> int:
        found = await threads.run(priority)
        await threads.close()
        return found

    own = priority()
    assert asyncio.run(asked(ThreadPool(1, "usual"))) == own
    assert asyncio.run(asked(ThreadPool(1, "bulk", 3))) == min(own + 3, 19)
    assert priority() == own


@pytest.mark.skipif(sys.platform != "linux", reason="the policy is Linux's")
def test_threads_do_batch_work_and_the_loop_does_not() -> None:
    async def asked(threads: ThreadPool) -> int:
        found = await threads.run(partial(os.sched_getscheduler, 0))
        await threads.close()
        return found

    usual = os.sched_getscheduler(0)
    assert asyncio.run(asked(ThreadPool(1, "ml"))) == os.SCHED_BATCH
    assert os.sched_getscheduler(0) == usual
