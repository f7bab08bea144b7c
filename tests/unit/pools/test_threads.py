"""A call in a thread cannot be stopped, so whoever holds a permit for it holds it to the end (DESIGN §4)."""

from __future__ import annotations

import asyncio

import pytest
from executors import HandExecutor

from penstock.bus.backends.memory import MemoryBus
from penstock.kernel.clock import LoopClock
from penstock.kernel.deadline import Deadline, limit
from penstock.kernel.errors import Broken, Expired
from penstock.kernel.settings import BusSettings
from penstock.kernel.work import Work
from penstock.pools.permits import Permits
from penstock.pools.threads import Threads, settle
from tests.clock import BEGIN_S, quiet, virtual


@pytest.fixture
def executor() -> HandExecutor:
    return HandExecutor()


@pytest.fixture
def threads(executor: HandExecutor, monkeypatch: pytest.MonkeyPatch) -> Threads:
    monkeypatch.setattr("penstock.pools.threads.ThreadPoolExecutor", lambda *_, **__: executor)
    return Threads(2, "ml")


@virtual
async def test_the_result_of_a_call_comes_back(executor: HandExecutor, threads: Threads) -> None:
    task = asyncio.create_task(threads.run(lambda: 42))
    await quiet()
    executor.begin()
    executor.end()
    assert await task == 42


@virtual
async def test_an_error_of_a_call_passes(executor: HandExecutor, threads: Threads) -> None:
    task = asyncio.create_task(threads.run(lambda: 1 // 0))
    await quiet()
    executor.begin()
    executor.end()
    with pytest.raises(ZeroDivisionError):
        await task


@virtual
async def test_a_call_that_has_not_begun_is_taken_back(executor: HandExecutor, threads: Threads) -> None:
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
        task = asyncio.create_task(settle(executor.submit(call)))
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
        task = asyncio.create_task(settle(executor.submit(call)))
        await quiet()
        executor.begin()
        task.cancel()
        executor.end()  # the loop has not heard of it yet
        await quiet()
        assert task.cancelled()
        executor.forget()

    scenario()


@virtual
async def test_a_deadline_is_told_only_when_the_call_has_ended(executor: HandExecutor, threads: Threads) -> None:
    async def limited() -> None:
        async with limit(Deadline(BEGIN_S + 10, "embed")):
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
    executor: HandExecutor, threads: Threads
) -> None:
    bus, permits = MemoryBus(BusSettings(), {}, LoopClock()), Permits("embed", 1)

    async def embed(message: object, _work: Work) -> object:
        return await threads.run(lambda: message)

    bus.subscribe("ml.embed", embed, permits)
    gone = asyncio.create_task(bus.request("ml.embed", "first", Work.background()))
    next_one = asyncio.create_task(bus.request("ml.embed", "second", Work.background()))
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


@virtual
async def test_closing_the_threads_answers_calls_that_wait(executor: HandExecutor, threads: Threads) -> None:
    bus, permits = MemoryBus(BusSettings(), {}, LoopClock()), Permits("embed", 1)

    async def embed(message: object, _work: Work) -> object:
        return await threads.run(lambda: message)

    bus.subscribe("ml.embed", embed, permits)
    task = asyncio.create_task(bus.request("ml.embed", "m", Work.background()))
    await quiet()
    threads.close()
    with pytest.raises(Broken):
        await task
    await quiet()
    assert permits.active == 0
