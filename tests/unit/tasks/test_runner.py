"""The runner on virtual time: restarts, cancellations, stops, and a spool that fails."""

import asyncio
import copy
from collections import deque

import pytest

from penstock.kernel.errors import Invalid, Unavailable
from penstock.kernel.settings import TaskSettings
from penstock.tasks.records import TaskKind, TaskRecord, TaskStatus
from penstock.tasks.runner import ATTEMPTS_MAX, RUNNING_MAX, TaskOutcome, TaskRunner
from tests.clock import quiet, virtual
from tests.fakes.task_spool import MemorySpool, run_inline, virtual_now


class Work:
    """Does tasks: each waits until it is let go on.

    Attributes:
        begun: Bodies of what was begun, in order.
        fails: Errors of the next ones.
    """

    def __init__(self):
        self.begun = []
        self.reports = {}
        self.let_go = asyncio.Event()
        self.fails = deque()

    async def __call__(self, record, body, report):
        self.begun.append(body)
        self.reports[body] = report
        await self.let_go.wait()
        if self.fails:
            raise self.fails.popleft()
        return TaskOutcome(b'{"bytes":%d}' % len(body))


def runner(spool=None, work=None, **how):
    made = TaskRunner(spool or MemorySpool(), TaskSettings(), now=virtual_now, run_blocking=run_inline, **how)
    made.perform = work or Work()
    return made


def draft(client="a", kind=TaskKind.INDEX_DOCUMENTS):
    return TaskRecord("", kind, client, "notes", total=2)


def status(tasks, record):
    return tasks.queue.find(record.id).record.status


async def killed(tasks, spool):
    """Return the disk as it is when the process is killed: what that does later is not there."""
    disk = copy.deepcopy(spool)
    await tasks.close()
    return disk


@virtual
async def test_a_task_is_done_and_its_result_can_be_read():
    spool, work = MemorySpool(), Work()
    tasks = runner(spool, work)
    tasks.start()
    record = await tasks.accept(draft(), b"body")
    assert (record.status, record.body_bytes) == (TaskStatus.WAITING, 4)
    await quiet()
    assert status(tasks, record) is TaskStatus.RUNNING
    assert spool.records[record.id].attempts == 1
    work.let_go.set()
    await quiet()
    assert status(tasks, record) is TaskStatus.SUCCEEDED
    assert bytes(await tasks.read_result(tasks.queue.find(record.id))) == b'{"bytes":4}'
    assert spool.bodies == {}
    await tasks.close()


@virtual
async def test_nothing_is_begun_before_the_server_listens():
    tasks = runner(work=(work := Work()))
    record = await tasks.accept(draft(), b"body")
    await quiet()
    assert (work.begun, status(tasks, record)) == ([], TaskStatus.WAITING)
    tasks.start()
    await quiet()
    assert work.begun == [b"body"]
    work.let_go.set()
    await tasks.close()


@virtual
async def test_nothing_is_begun_while_memory_is_short():
    short = [True]
    tasks = runner(work=(work := Work()), may_begin=lambda: not short[0])
    tasks.start()
    await tasks.accept(draft(), b"body")
    await quiet()
    assert work.begun == []
    short[0] = False
    tasks.fill()
    await quiet()
    assert work.begun == [b"body"]
    await tasks.close()


@virtual
async def test_so_many_tasks_run_at_once_each_of_another_client():
    tasks = runner(work=(work := Work()))
    tasks.start()
    for client in "aabcdef":
        await tasks.accept(draft(client), client.encode())
    await quiet()
    assert work.begun == [b"a", b"b", b"c", b"d"][:RUNNING_MAX]
    work.let_go.set()
    await quiet()
    assert sorted(work.begun) == [b"a", b"a", b"b", b"c", b"d", b"e", b"f"]
    await tasks.close()


@virtual
async def test_an_error_and_a_bug_fail_the_task_and_no_other(caplog):
    work = Work()
    work.let_go.set()
    work.fails += [Invalid("wrong", field="text"), ZeroDivisionError()]
    tasks = runner(work=work)
    tasks.start()
    records = [await tasks.accept(draft(), b"x") for _ in range(3)]
    await quiet()
    found = [tasks.queue.find(record.id).record for record in records]
    assert [one.status.value for one in found] == ["failed", "failed", "succeeded"]
    assert [one.error.code for one in found[:2]] == ["invalid", "internal"]
    assert "ZeroDivisionError" in caplog.text


@virtual
async def test_a_stop_puts_back_what_runs_and_the_next_start_goes_on():
    spool, work = MemorySpool(), Work()
    tasks = runner(spool, work)
    tasks.start()
    record = await tasks.accept(draft(), b"body")
    await quiet()
    await tasks.close()
    assert (status(tasks, record), spool.records[record.id].attempts) == (TaskStatus.WAITING, 0)
    again = runner(spool, work)
    await again.load()
    again.start()
    work.let_go.set()
    await quiet()
    assert status(again, record) is TaskStatus.SUCCEEDED
    assert work.begun == [b"body", b"body"]


@virtual
async def test_what_a_crash_interrupts_is_done_again_but_not_for_ever():
    spool = MemorySpool()
    record = await runner(spool).accept(draft(), b"body")
    for attempt in range(1, ATTEMPTS_MAX + 1):
        crashed = runner(spool)
        await crashed.load()
        crashed.start()
        await quiet()
        assert spool.records[record.id].attempts == attempt
        spool = await killed(crashed, spool)
    last = runner(spool)
    await last.load()
    found = last.queue.find(record.id).record
    assert (found.status, found.error.code) == (TaskStatus.FAILED, "task_interrupted")
    assert spool.records[record.id].status is TaskStatus.FAILED


@virtual
async def test_a_restore_that_a_crash_interrupts_is_not_done_again():
    spool = MemorySpool()
    crashed = runner(spool)
    crashed.start()
    record = await crashed.accept(draft(kind=TaskKind.RESTORE_SNAPSHOT), b"")
    await quiet()
    again = runner(await killed(crashed, spool), work=(work := Work()))
    await again.load()
    again.start()
    await quiet()
    assert (status(again, record), work.begun) == (TaskStatus.FAILED, [])


@virtual
async def test_a_stop_lets_a_restore_go_on_until_the_close():
    spool, work = MemorySpool(), Work()
    tasks = runner(spool, work)
    tasks.start()
    record = await tasks.accept(draft(kind=TaskKind.RESTORE_SNAPSHOT), b"")
    await quiet()
    tasks.stop()
    await quiet()
    assert status(tasks, record) is TaskStatus.RUNNING
    work.let_go.set()
    await quiet()
    await tasks.close()
    assert status(tasks, record) is TaskStatus.SUCCEEDED


@virtual
async def test_a_waiting_task_is_cancelled_once_and_never_begun():
    tasks = runner(work=(work := Work()))
    record = await tasks.accept(draft(), b"body")
    task = tasks.queue.find(record.id)
    assert await asyncio.gather(tasks.cancel(task), tasks.cancel(task)) == [True, False]
    assert await tasks.cancel(task) is False
    tasks.start()
    await quiet()
    assert (task.record.status, work.begun, tasks.queue.unended) == (TaskStatus.CANCELLED, [], 0)


@virtual
async def test_a_running_task_is_cancelled_and_its_clients_next_one_begins():
    tasks = runner(work=(work := Work()))
    tasks.start()
    first = await tasks.accept(draft(), b"1")
    await tasks.accept(draft(), b"2")
    await quiet()
    task = tasks.queue.find(first.id)
    assert await asyncio.gather(tasks.cancel(task), tasks.cancel(task)) == [True, False]
    await quiet()
    assert (task.record.status, work.begun) == (TaskStatus.CANCELLED, [b"1", b"2"])
    await tasks.close()


@virtual
async def test_a_task_that_is_cancelled_as_it_begins_does_nothing():
    tasks = runner(work=(work := Work()))
    record = await tasks.accept(draft(), b"body")
    tasks.start()  # taken, but its job has not had a turn
    task = tasks.queue.find(record.id)
    assert await tasks.cancel(task) is True
    assert work.begun == []


@virtual
async def test_a_task_that_ends_before_its_cancellation_arrives_has_succeeded():
    tasks = runner(work=(work := Work()))
    tasks.start()
    record = await tasks.accept(draft(), b"body")
    await quiet()
    work.let_go.set()
    await quiet()
    assert await tasks.cancel(tasks.queue.find(record.id)) is False
    assert status(tasks, record) is TaskStatus.SUCCEEDED


@virtual
async def test_a_restore_that_has_begun_is_not_cancelled():
    tasks = runner(work=(work := Work()))
    tasks.start()
    record = await tasks.accept(draft(kind=TaskKind.RESTORE_SNAPSHOT), b"")
    await quiet()
    assert await tasks.cancel(tasks.queue.find(record.id)) is False
    assert status(tasks, record) is TaskStatus.RUNNING
    work.let_go.set()
    await tasks.close()


@virtual
async def test_a_full_disk_accepts_nothing_and_keeps_no_room():
    spool = MemorySpool()
    spool.full = True
    tasks = runner(spool)
    with pytest.raises(Unavailable):
        await tasks.accept(draft(), b"body")
    assert (tasks.queue.unended, tasks.queue.spooled_bytes) == (0, 0)


@virtual
async def test_a_waiting_task_that_cannot_be_cancelled_on_a_full_disk_waits_on():
    spool, work = MemorySpool(), Work()
    tasks = runner(spool, work)
    record = await tasks.accept(draft(), b"body")
    spool.full = True
    task = tasks.queue.find(record.id)
    with pytest.raises(Unavailable):
        await tasks.cancel(task)
    assert task.record.status is TaskStatus.WAITING
    spool.full = False
    assert await tasks.cancel(task) is True


@virtual
async def test_a_full_disk_at_the_end_does_not_hold_up_the_others(caplog):
    spool, work = MemorySpool(), Work()
    tasks = runner(spool, work)
    tasks.start()
    records = [await tasks.accept(draft(), b"1"), await tasks.accept(draft(), b"2")]
    await quiet()
    spool.full = True
    work.let_go.set()
    await quiet()
    assert [status(tasks, record) for record in records] == [TaskStatus.SUCCEEDED] * 2
    assert "could not be written" in caplog.text


@virtual
async def test_a_caller_that_hangs_up_leaves_no_task_that_nothing_knows_of():
    spool = MemorySpool()
    tasks = runner(spool)
    caller = asyncio.create_task(tasks.accept(draft(), b"body"))
    await asyncio.sleep(0)
    caller.cancel()
    await quiet()
    assert [task.record.id for task in tasks.queue.newest_first()] == list(spool.records)
    assert len(spool.records) == 1


@virtual
async def test_ten_thousand_tasks_are_worked_off_in_their_order():
    spool, work = MemorySpool(), Work()
    work.let_go.set()
    tasks = TaskRunner(spool, TaskSettings(waiting=20_000), now=virtual_now, run_blocking=run_inline)
    tasks.perform = work
    for number in range(10_000):
        await tasks.accept(draft(), b"%d" % number)
    tasks.start()
    await quiet()
    assert work.begun == [b"%d" % number for number in range(10_000)]
    # The oldest are forgotten beyond the number to keep.
    assert (len(spool.records), len(list(tasks.queue.newest_first()))) == (1000, 1000)


@virtual
async def test_watchers_learn_of_progress_and_of_the_stop():
    tasks = runner(work=(work := Work()))
    tasks.start()
    record = await tasks.accept(draft(), b"body")
    with tasks.watch(record.id) as changed:
        await quiet()
        changed.clear()
        work.reports[b"body"](1)
        assert changed.is_set()
        assert tasks.queue.find(record.id).done == 1
        changed.clear()
        tasks.stop()
        assert changed.is_set()
    assert tasks.watchers == 0
    await tasks.close()
