"""Real worker processes and real threads: one dies, the next call works; a permit outlives its requester."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from functools import partial
from multiprocessing import forkserver
from pathlib import Path

import pytest

from penstock.kernel.errors import Broken, Unavailable
from penstock.models.cancellation import CancellationToken
from penstock.pools import process_pool as module
from penstock.pools.permits import Permits
from penstock.pools.process_pool import ProcessPool
from penstock.pools.thread_pool import ThreadPool


def prepare(word: str) -> None:
    os.environ["PENSTOCK_TEST_WORD"] = word


def look() -> tuple[str | None, int]:
    return os.environ.get("PENSTOCK_TEST_WORD"), os.getpid()


def interrupt() -> str:
    os.kill(os.getpid(), signal.SIGINT)
    return "still here"


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_once(mark: Path) -> str:
    """Kill this process the first time."""
    if not mark.exists():
        mark.touch()
        die()
    return "alive"


def hang(fifo: Path) -> None:
    """Hang, once somebody has read that this has begun."""
    fifo.write_text("begun")
    time.sleep(600)


def refuse() -> None:
    raise Unavailable("no grammar", dependency="grammar", code="no_grammar")


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "fifo")
    return tmp_path / "fifo"


def test_worker_processes_are_prepared_survive_errors_and_ctrl_c_and_are_replaced_when_they_die() -> None:
    async def main() -> None:
        processes = ProcessPool(1, prepare, ("hello",))
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
            await processes.close()

    asyncio.run(main())


def test_a_call_that_kills_its_process_costs_no_other_call_and_is_tried_twice(tmp_path: Path) -> None:
    async def main() -> None:
        processes = ProcessPool(2, prepare, ("hello",))
        try:
            calls = [look] * 5 + [die] + [look] * 5 + [partial(die_once, tmp_path / "mark")] + [look] * 5
            answers = await asyncio.gather(*map(processes.run, calls), return_exceptions=True)
        finally:
            await processes.close()
        broken = [number for number, answer in enumerate(answers) if isinstance(answer, Broken)]
        assert broken == [calls.index(die)]
        assert answers[11] == "alive"
        assert {answer[0] for number, answer in enumerate(answers) if number not in (5, 11)} == {"hello"}

    asyncio.run(main())


def test_a_killed_process_is_not_taken_for_a_crash_while_another_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    read, reading, read_by_other = forkserver.read_signed, threading.Event(), threading.Event()
    worker, others = module.WorkerProcess(prepare, ("hello",)), []

    def start_another() -> None:
        reading.wait(10)
        others.append(module.WorkerProcess(prepare, ("hello",)))
        read_by_other.set()

    def read_late(fd: int) -> int:
        """Leave room for a start between the news of an end and the reading of its status."""
        if not reading.is_set():
            reading.set()
            read_by_other.wait(0.2)
        return read(fd)

    monkeypatch.setattr(forkserver, "read_signed", read_late)
    starter = threading.Thread(target=start_another)
    starter.start()
    try:
        with pytest.raises(module.WorkerDied) as died:
            worker.call(die)
        assert not died.value.crashed
    finally:
        starter.join()
        for process in (worker, *others):
            process.discard()


def test_an_idle_worker_that_dies_costs_no_call() -> None:
    async def main() -> None:
        processes = ProcessPool(1, prepare, ("hello",))
        try:
            _, pid = await processes.run(look)
            os.kill(pid, signal.SIGKILL)
            word, other = await processes.run(look)
            assert (word, other == pid) == ("hello", False)
        finally:
            await processes.close()

    asyncio.run(main())


def test_a_process_that_hangs_is_killed_when_its_requester_has_gone(
    fifo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CANCEL_GRACE_S", 0.05)

    async def main() -> None:
        processes = ProcessPool(1, prepare, ("hello",))
        try:
            task = asyncio.create_task(processes.run(partial(hang, fifo)))
            await asyncio.to_thread(fifo.read_text)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await processes.run(look))[0] == "hello"
        finally:
            await processes.close()

    asyncio.run(main())


def test_closing_kills_a_process_that_hangs(fifo: Path) -> None:
    async def main() -> None:
        processes = ProcessPool(1, prepare, ("hello",))
        task = asyncio.create_task(processes.run(partial(hang, fifo)))
        await asyncio.to_thread(fifo.read_text)
        await processes.close(within_s=0.05)
        with pytest.raises(Broken):
            await task

    asyncio.run(main())


def test_a_permit_stays_out_until_a_real_thread_has_ended() -> None:
    async def main() -> None:
        threads, permits = ThreadPool(1, "test"), Permits("embed", 1)
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
        await threads.close()

    asyncio.run(main())


def test_a_real_thread_that_listens_is_stopped_by_a_cancellation_and_by_closing() -> None:
    async def main() -> None:
        threads = ThreadPool(1, "test")
        for end in ("cancel", "close"):
            stop, begun, asked = CancellationToken(), threading.Event(), threading.Event()

            def call(
                stop: CancellationToken = stop, begun: threading.Event = begun, asked: threading.Event = asked
            ) -> bool:
                with stop.on_cancel(asked.set):
                    begun.set()
                    return asked.wait(30)

            task = asyncio.create_task(threads.run(call, stop.cancel))
            await asyncio.to_thread(begun.wait, 30)
            if end == "cancel":
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            else:
                await threads.close()
                assert await task is True

    asyncio.run(main())
