"""Worker processes as seen from the loop; real ones are in ``tests/e2e/test_processes.py``."""

from __future__ import annotations

import asyncio
from concurrent.futures.process import BrokenProcessPool

import pytest
from executors import HandExecutor

from penstock.kernel.errors import Broken
from penstock.pools.processes import Processes
from tests.clock import quiet, virtual


class FakePool(HandExecutor):
    """A pool of processes that breaks when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.broken = False
        self.stopped: list[bool] = []

    def submit(self, fn, /, *args, **kwargs):
        if self.broken:
            raise BrokenProcessPool
        return super().submit(fn, *args, **kwargs)

    def die(self) -> None:
        """A process dies: everything begun or waiting fails, nothing more is taken."""
        self.broken = True
        for job in self.jobs:
            if not job.done():
                job.set_exception(BrokenProcessPool())

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002
        self.stopped.append(wait)


@pytest.fixture
def pools(monkeypatch: pytest.MonkeyPatch) -> list[FakePool]:
    made: list[FakePool] = []

    def make(*_args, **_kwargs) -> FakePool:
        made.append(FakePool())
        return made[-1]

    monkeypatch.setattr("penstock.pools.processes.ProcessPoolExecutor", make)
    return made


def serve(pool: FakePool, number: int = -1) -> None:
    pool.begin(number)
    pool.end(number)


@virtual
async def test_processes_start_when_first_needed(pools: list[FakePool]) -> None:
    processes = Processes(2, print, ())
    assert pools == []
    tasks = [asyncio.create_task(processes.run(lambda: 42)) for _ in range(2)]
    await quiet()
    (pool,) = pools
    serve(pool, 0)
    serve(pool, 1)
    assert await asyncio.gather(*tasks) == [42, 42]
    processes.close()
    assert pool.stopped == [True]


@virtual
async def test_a_process_that_dies_is_told_and_the_next_call_works(pools: list[FakePool]) -> None:
    processes = Processes(2, print, ())
    tasks = [asyncio.create_task(processes.run(lambda: 1)) for _ in range(2)]
    await quiet()
    pools[0].die()
    for task in tasks:
        with pytest.raises(Broken) as caught:
            await task
        assert caught.value.code == "worker_died"
    assert pools[0].stopped == [False]  # once, and without waiting on the loop
    task = asyncio.create_task(processes.run(lambda: 2))
    await quiet()
    serve(pools[1])
    assert await task == 2


@virtual
async def test_a_process_that_died_unseen_costs_the_next_call_nothing(pools: list[FakePool]) -> None:
    processes = Processes(2, print, ())
    gone = asyncio.create_task(processes.run(lambda: 1))
    await quiet()
    pools[0].begin()
    gone.cancel()
    await quiet()
    pools[0].die()
    await quiet()
    assert gone.cancelled()
    task = asyncio.create_task(processes.run(lambda: 2))
    await quiet()
    serve(pools[1])
    assert await task == 2


@virtual
async def test_a_late_report_of_a_death_does_not_stop_the_new_processes(pools: list[FakePool]) -> None:
    processes = Processes(2, print, ())
    late = asyncio.create_task(processes.run(lambda: 1))
    await quiet()
    pools[0].die()
    new = asyncio.create_task(processes.run(lambda: 2))
    with pytest.raises(Broken):
        await late
    await quiet()
    assert pools[1].stopped == []
    serve(pools[1])
    assert await new == 2


def test_closing_what_never_started_does_nothing(pools: list[FakePool]) -> None:
    Processes(2, print, ()).close()
    assert pools == []
