"""Worker processes as seen from the loop; real ones are in ``tests/e2e/test_processes.py``."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from executors import HandExecutor

from penstock.kernel.errors import Broken, Invalid
from penstock.pools.process_pool import (
    CANCEL_GRACE_S,
    DEATHS_MAX,
    WORKER_BYTES_MAX,
    ProcessPool,
    WorkerDied,
    run_pickled_call,
)
from tests.clock import BEGIN_S, quiet, virtual


class FakeChild:
    """A process that dies of the calls that are deadly, and when it is killed."""

    def __init__(self, prepare: Callable[..., None], args: tuple[Any, ...]) -> None:
        self.alive = True
        self.calls = self.bytes = 0
        prepare(self, *args)

    def call(self, call: Callable[[], Any]) -> Any:
        self.calls += 1
        try:
            if not self.alive:
                raise WorkerDied
            return call()
        except WorkerDied:
            self.alive = False
            raise

    def kill(self) -> None:
        self.alive = False

    def discard(self) -> None:
        self.alive = False


@pytest.fixture
def executor() -> HandExecutor:
    return HandExecutor()


@pytest.fixture
def children() -> list[FakeChild]:
    return []


@pytest.fixture
def processes(executor: HandExecutor, children: list[FakeChild], monkeypatch: pytest.MonkeyPatch) -> ProcessPool:
    monkeypatch.setattr("penstock.pools.process_pool.ThreadPoolExecutor", lambda *_, **__: executor)
    monkeypatch.setattr("penstock.pools.process_pool.WorkerProcess", FakeChild)
    return ProcessPool(2, lambda child, word: children.append(child), ("hello",))


def deadly(times: int) -> Callable[[], str]:
    """Return a call that kills its process so many times."""
    left = [times]

    def call() -> str:
        left[0] -= 1
        if left[0] >= 0:
            raise WorkerDied
        return "alive"

    return call


async def served(executor: HandExecutor, task: asyncio.Task[Any], number: int = -1) -> Any:
    executor.begin(number)
    executor.end(number)
    return await task


@virtual
async def test_processes_start_when_first_needed_and_serve_one_call_after_the_other(
    processes: ProcessPool, executor: HandExecutor, children: list[FakeChild]
) -> None:
    assert children == []
    for _ in range(3):
        task = asyncio.create_task(processes.run(lambda: 42))
        await quiet()
        assert await served(executor, task) == 42
    assert [child.calls for child in children] == [3]
    await processes.close()
    assert not children[0].alive


@virtual
async def test_a_process_that_has_grown_over_a_call_is_ended_and_the_next_call_gets_a_new_one(
    processes: ProcessPool, executor: HandExecutor, children: list[FakeChild]
) -> None:
    def grows() -> str:
        children[-1].bytes = WORKER_BYTES_MAX + 1
        return "grown"

    for call, number in ((grows, 1), (lambda: "new", 2)):
        task = asyncio.create_task(processes.run(call))
        await quiet()
        assert await served(executor, task) == call()
        assert len(children) == number
    assert not children[0].alive


@virtual
async def test_an_error_of_a_call_passes_and_the_process_lives_on(
    processes: ProcessPool, executor: HandExecutor, children: list[FakeChild]
) -> None:
    def fails() -> None:
        raise Invalid("bad")

    for _ in range(2):
        task = asyncio.create_task(processes.run(fails))
        await quiet()
        with pytest.raises(Invalid):
            await served(executor, task)
    assert [child.calls for child in children] == [2]


@virtual
async def test_a_call_whose_process_dies_is_tried_once_more_in_a_new_one(
    processes: ProcessPool, executor: HandExecutor, children: list[FakeChild]
) -> None:
    task = asyncio.create_task(processes.run(deadly(1)))
    await quiet()
    assert await served(executor, task) == "alive"
    assert [child.alive for child in children] == [False, True]


@virtual
async def test_a_call_that_kills_its_process_twice_is_given_up_and_costs_no_other_call(
    processes: ProcessPool, executor: HandExecutor, children: list[FakeChild]
) -> None:
    tasks = [asyncio.create_task(processes.run(call)) for call in (deadly(9), lambda: 1, lambda: 2)]
    await quiet()
    for number in (1, 0, 2):
        executor.begin(number)
        executor.end(number)
    with pytest.raises(Broken) as caught:
        await tasks[0]
    assert caught.value.code == "worker_died"
    assert await asyncio.gather(*tasks[1:]) == [1, 2]
    assert sum(not child.alive for child in children) == DEATHS_MAX


@virtual
async def test_a_call_that_ends_its_process_by_itself_is_not_tried_again(
    processes: ProcessPool, executor: HandExecutor, children: list[FakeChild]
) -> None:
    def crash() -> None:
        raise WorkerDied(crashed=True)

    task = asyncio.create_task(processes.run(crash))
    await quiet()
    with pytest.raises(Broken) as caught:
        await served(executor, task)
    assert caught.value.code == "worker_died"
    assert [child.alive for child in children] == [False]


@virtual
async def test_a_process_that_died_unseen_costs_the_next_call_nothing(
    processes: ProcessPool, executor: HandExecutor, children: list[FakeChild]
) -> None:
    for expected in (1, 2):
        task = asyncio.create_task(processes.run(lambda: 1))
        await quiet()
        assert await served(executor, task) == 1
        assert len(children) == expected
        children[-1].alive = False
    assert [child.calls for child in children] == [1, 1]


@virtual
async def test_a_call_whose_requester_left_has_its_process_killed_after_a_grace(
    processes: ProcessPool, executor: HandExecutor
) -> None:
    task = asyncio.create_task(processes.run(lambda: 42))
    await quiet()
    (one,) = processes._running.values()
    executor.begin()
    one._child = child = FakeChild(lambda *_: None, ())  # it is in its process, and does not end
    task.cancel()
    await quiet()
    assert child.alive
    assert not task.done()
    await asyncio.sleep(CANCEL_GRACE_S)
    assert not child.alive
    executor.jobs[0].set_exception(Broken("a worker process died while it worked"))
    await quiet()
    assert task.cancelled()
    executor.forget()


@virtual
async def test_a_process_is_not_killed_for_a_call_that_has_left_it(
    processes: ProcessPool, executor: HandExecutor, children: list[FakeChild]
) -> None:
    task = asyncio.create_task(processes.run(lambda: 42))
    await quiet()
    executor.begin()
    task.cancel()
    await quiet()
    executor.end()
    await asyncio.sleep(2 * CANCEL_GRACE_S)
    assert task.cancelled()
    assert [child.alive for child in children] == [True]


@virtual
async def test_a_call_that_was_given_up_is_not_tried_again(
    processes: ProcessPool, executor: HandExecutor, children: list[FakeChild]
) -> None:
    task = asyncio.create_task(processes.run(lambda: pytest.fail("was run")))
    await quiet()
    (one,) = processes._running.values()
    executor.begin()
    one.kill()
    executor.end()
    with pytest.raises(Broken):
        await task
    assert len(children) == 1


@virtual
async def test_closing_lets_calls_end_and_stops_their_processes(
    processes: ProcessPool, executor: HandExecutor, children: list[FakeChild]
) -> None:
    runs = asyncio.create_task(processes.run(lambda: 42))
    waits = asyncio.create_task(processes.run(lambda: 43))
    await quiet()
    executor.begin(0)
    closing = asyncio.create_task(processes.close())
    await quiet()
    assert not closing.done()
    executor.end(0)
    await closing
    assert await runs == 42
    with pytest.raises(asyncio.CancelledError):
        await waits
    assert [child.alive for child in children] == [False]


@virtual
async def test_closing_kills_what_does_not_end_in_time(
    processes: ProcessPool, executor: HandExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    task = asyncio.create_task(processes.run(lambda: 42))
    await quiet()
    (one,) = processes._running.values()
    one._child = child = FakeChild(lambda *_: None, ())
    executor.begin()
    await processes.close(within_s=3.0)
    assert asyncio.get_running_loop().time() == pytest.approx(BEGIN_S + 3.0, abs=0.01)
    assert not child.alive
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    executor.jobs[0].set_exception(Broken("a worker process died while it worked"))
    with pytest.raises(Broken):
        await task


@virtual
async def test_closing_what_never_started_does_nothing(processes: ProcessPool, children: list[FakeChild]) -> None:
    await processes.close()
    assert children == []


class Unsendable(Exception):
    """Cannot be pickled."""

    def __reduce__(self):
        raise TypeError


def refuses() -> None:
    raise Invalid("bad", field="text")


def errs() -> None:
    raise ValueError("bug")


def unsendable() -> None:
    raise Unsendable("odd")


def unsendable_result() -> object:
    return lambda: None


def told(call: Callable[[], object]) -> tuple[bool, Any]:
    return pickle.loads(run_pickled_call(pickle.dumps(call)))


def test_an_answer_says_what_a_call_returned_or_raised() -> None:
    assert told(list) == (True, [])
    good, error = told(refuses)
    assert (good, type(error), error.field) == (False, Invalid, "text")
    assert not hasattr(error, "__notes__")
    good, error = told(errs)
    assert (good, type(error)) == (False, ValueError)
    assert "in errs" in error.__notes__[0], "where it happened can be read in the parent's log"


def test_what_cannot_travel_is_told_in_words() -> None:
    good, error = told(unsendable)
    assert (good, type(error), error.code) == (False, Broken, "worker_failed")
    assert "odd" in error.detail
    good, error = told(unsendable_result)
    assert (good, isinstance(error, Exception)) == (False, True)
    good, error = pickle.loads(run_pickled_call(b"no pickle"))
    assert (good, isinstance(error, pickle.UnpicklingError)) == (False, True)
