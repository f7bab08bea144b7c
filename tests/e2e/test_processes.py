"""Real worker processes and real threads: one dies, the next call works; a permit outlives its requester."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from functools import partial

import pytest

from penstock.kernel.errors import Broken, Unavailable
from penstock.pools.permits import Permits
from penstock.pools.processes import Processes
from penstock.pools.threads import Threads


def prepare(word: str) -> None:
    os.environ["PENSTOCK_TEST_WORD"] = word


def look() -> tuple[str | None, int]:
    return os.environ.get("PENSTOCK_TEST_WORD"), os.getpid()


def interrupt() -> str:
    os.kill(os.getpid(), signal.SIGINT)
    return "still here"


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def refuse() -> None:
    raise Unavailable("no grammar", dependency="grammar", code="no_grammar")


def test_worker_processes_are_prepared_survive_errors_and_ctrl_c_and_are_replaced_when_they_die() -> None:
    async def main() -> None:
        processes = Processes(1, prepare, ("hello",))
        try:
            word, pid = await processes.run(look)
            assert (word, pid == os.getpid()) == ("hello", False)
            with pytest.raises(Unavailable) as caught:
                await processes.run(refuse)
            assert (caught.value.dependency, caught.value.code) == ("grammar", "no_grammar")
            assert await processes.run(interrupt) == "still here"
            assert (await processes.run(look))[1] == pid
            with pytest.raises(Broken) as broken:
                await processes.run(die)
            assert broken.value.code == "worker_died"
            word, other = await processes.run(look)
            assert (word, other == pid) == ("hello", False)
        finally:
            processes.close()

    asyncio.run(main())


def test_an_idle_worker_that_dies_costs_no_call() -> None:
    async def main() -> None:
        processes = Processes(1, prepare, ("hello",))
        try:
            _, pid = await processes.run(look)
            executor = processes._executor
            assert executor is not None
            watcher = executor._executor_manager_thread
            os.kill(pid, signal.SIGKILL)
            await asyncio.to_thread(watcher.join, 10)  # it ends when it has seen the death
            assert (await processes.run(look))[0] == "hello"
        finally:
            processes.close()

    asyncio.run(main())


def test_a_permit_stays_out_until_a_real_thread_has_ended() -> None:
    async def main() -> None:
        threads, permits = Threads(1, "test"), Permits("embed", 1)
        begun, may_end = threading.Event(), threading.Event()

        def call() -> None:
            begun.set()
            may_end.wait(10)

        async def handler() -> None:
            assert permits.try_acquire()
            try:
                await threads.run(call)
            finally:
                permits.release()

        task = asyncio.create_task(handler())
        await asyncio.to_thread(begun.wait, 10)
        task.cancel()
        await asyncio.sleep(0)
        assert permits.active == 1
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert permits.active == 0
        assert await threads.run(partial(int, "7")) == 7
        threads.close()

    asyncio.run(main())
