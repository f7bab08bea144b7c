"""Runner of tasks: accepts them durably, works them off beside everything else, and puts back what a stop interrupts.

What a task does is given as ``perform``: it sends its work through the same topics as a request, in the lowest class.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from penstock.kernel.context import current_request_id
from penstock.kernel.errors import Broken, PenstockError, to_record
from penstock.kernel.settings import TaskSettings
from penstock.tasks.queue import Task, TaskQueue
from penstock.tasks.records import TaskRecord, TaskStatus
from penstock.tasks.spool import TaskSpool, body_digest

log = logging.getLogger(__name__)

#: Tasks at work at once, each of another client.
RUNNING_MAX: Final = 4

#: A task that was begun so often, and interrupted each time by the end of the whole process, is not begun again.
ATTEMPTS_MAX: Final = 3

#: Runs a blocking function elsewhere than on the event loop.
RunBlocking = Callable[..., Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class TaskOutcome:
    """Outcome of a task.

    Attributes:
        result: What it brought, as JSON.
        error: Why it failed all the same.
    """

    result: bytes
    error: PenstockError | None = None


#: Does a task's work, given its record, its body, and a function that takes how many documents are done.
Perform = Callable[[TaskRecord, bytes, Callable[[int], None]], Awaitable[TaskOutcome]]


def utc_now() -> dt.datetime:
    """Return the time of day in UTC."""
    return dt.datetime.now(dt.UTC)


async def _nothing(_record: TaskRecord, _body: bytes, _report: Callable[[int], None]) -> TaskOutcome:
    raise Broken("the server does no tasks")


class TaskRunner:
    """Runner of a server's tasks. ``load`` what is left from before, ``start`` the work, ``close`` in the end.

    Args:
        spool: Keeps them.
        settings: Bounds.
        may_begin: Returns whether another task may be begun now.
        now: Returns the time of day.
        run_blocking: Runs the spool's functions.

    Attributes:
        perform: Does the work. The API sets it.
        stopping: Whether tasks are put back, and streams about them end.

    Bounds: ``RUNNING_MAX`` at work, and those of :class:`TaskQueue`.
    """

    def __init__(
        self,
        spool: TaskSpool,
        settings: TaskSettings,
        may_begin: Callable[[], bool] = lambda: True,
        now: Callable[[], dt.datetime] = utc_now,
        run_blocking: RunBlocking = asyncio.to_thread,
    ) -> None:
        self._spool = spool
        self._now = now
        self._may_begin = may_begin
        self._run_blocking = run_blocking
        self.queue = TaskQueue(settings, now)
        self.perform: Perform = _nothing
        self.stopping = False
        self._started = False
        self._jobs: set[asyncio.Task[Any]] = set()
        self._running: set[Task] = set()
        self._watchers: dict[str, set[asyncio.Event]] = {}

    def __repr__(self) -> str:
        return f"<TaskRunner {len(self._running)} running, {self.queue!r}>"

    # --- The server's life

    async def load(self) -> None:
        """Take in what the spool holds from before."""
        loaded: list[TaskRecord] = await self._run_blocking(self._spool.load)
        for record in sorted(loaded, key=lambda one: one.ended_at):
            self.queue.restore(await self._settled(record))
        await self._expire()

    async def _settled(self, record: TaskRecord) -> TaskRecord:
        """Return a record that was loaded, with its end where it has none to come."""
        if not record.status.ended and _was_given_up(record):
            detail = "the server ended while this was done; look at what is there, and ask again"
            record = _failed(record, Broken(detail, code="task_interrupted"))
        if record.status.ended and not record.ended_at:
            record = record.changed(ended_at=self._time())
            await self._try_to_write(record)
        return record

    def start(self) -> None:
        """Begin to work; call it inside the running loop."""
        self._started = True
        self.fill()

    def stop(self) -> None:
        """Begin no more, interrupt what can be repeated, and end the streams."""
        self.stopping = True
        for task in self._running:
            if task.work is not None and task.record.kind.repeatable:
                task.work.cancel()
        for events in self._watchers.values():
            for event in events:
                event.set()

    async def close(self) -> None:
        """Stop, and wait until what was interrupted is put back."""
        self.stop()
        for task in self._running:
            if task.work is not None:
                task.work.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)

    def fill(self) -> None:
        """Begin as many tasks as may run now. Called whenever something has changed, and about every second."""
        while self._started and not self.stopping and len(self._running) < RUNNING_MAX and self._may_begin():
            task = self.queue.take()
            if task is None:
                return
            self._running.add(task)
            task.job = self._spawn(self._run(task))

    # --- What callers ask for

    async def accept(self, record: TaskRecord, body: bytes) -> TaskRecord:
        """Accept a task: when this returns, it survives ``kill -9``.

        Args:
            record: Its kind, client, collection, arguments and total.
            body: Its body.

        Raises:
            Rejected: There is no room (``tasks_full``, ``client_share``).
            Unavailable: The disk is full or cannot be written.

        Cancellation: The task may or may not have been accepted.
        """
        self.queue.reserve(record.client, len(body))
        # In a job of its own: a caller that hangs up must not leave a task on the disk that nothing knows of.
        return await asyncio.shield(self._spawn(self._accept(record, body)))

    async def _accept(self, draft: TaskRecord, body: bytes) -> TaskRecord:
        record = draft.changed(
            id=self.queue.new_id(), body_bytes=len(body), body_digest=body_digest(body), accepted_at=self._time()
        )
        try:
            await self._run_blocking(self._spool.accept, record, body)
        except BaseException:
            self.queue.unreserve(record.client, len(body))
            raise
        self.queue.add(record)
        self.fill()
        return record

    async def cancel(self, task: Task) -> bool:
        """Cancel a task; return whether this has changed anything.

        A restore that has begun is not stopped halfway.

        Raises:
            Unavailable: The disk cannot be written; a waiting task waits on.
        """
        running = task in self._running
        if task.record.status.ended or (running and not task.record.kind.repeatable):
            return False
        first = not task.cancelling
        if first:
            task.cancelling = True
            if running:
                if task.work is not None:
                    task.work.cancel()
            else:
                self.queue.withdraw(task)
                task.job = self._spawn(self._cancel_waiting(task))
        if task.job is not None:
            await asyncio.wait([task.job])
            if not running:
                task.job.result()
        return first and task.record.status is TaskStatus.CANCELLED

    async def read_result(self, task: Task) -> msgspec.Raw:
        """Return what a task has brought, as JSON."""
        if not task.record.status.ended:
            return task.record.result
        found = await self._run_blocking(self._spool.read, task.record.id)
        return found.result if found is not None else task.record.result

    @contextmanager
    def watch(self, id: str) -> Iterator[asyncio.Event]:
        """Yield an event that is set whenever something about a task has changed, or the server stops."""
        event = asyncio.Event()
        self._watchers.setdefault(id, set()).add(event)
        try:
            yield event
        finally:
            self._watchers[id].discard(event)
            if not self._watchers[id]:
                del self._watchers[id]

    @property
    def watchers(self) -> int:
        """Number of streams about tasks."""
        return sum(map(len, self._watchers.values()))

    # --- The work

    async def _run(self, task: Task) -> None:
        """Do a task. This is never cancelled itself, only the work in it: each record is written to its end."""
        current_request_id.set(task.record.id)
        task.done = 0
        task.record = task.record.changed(
            status=TaskStatus.RUNNING, attempts=task.record.attempts + 1, started_at=self._time()
        )
        self._notify(task)
        # Before the work: what ends the whole process must not end it again and again.
        await self._try_to_write(task.record)
        ended: TaskRecord | None
        try:
            ended = await self._attempt(task)
        except PenstockError as error:
            ended = _failed(task.record, error)
        except Exception:
            log.exception("the task %s failed", task.record.id)
            ended = _failed(task.record, Broken("an internal error happened; the server's log has the details"))
        if ended is None:
            await self._put_back(task)
        else:
            await self._end(task, ended)

    async def _attempt(self, task: Task) -> TaskRecord | None:
        """Return the record of a task that has ended, ``None`` for one that was interrupted."""

        def report(done: int) -> None:
            if task.done != done:
                task.done = done
                self._notify(task)

        body = await self._run_blocking(self._spool.read_body, task.record)
        work = task.work = asyncio.ensure_future(self.perform(task.record, body, report))
        if task.cancelling or self.stopping:
            work.cancel()
        await asyncio.wait([work])
        task.work = None
        if work.cancelled():
            return task.record.changed(status=TaskStatus.CANCELLED) if task.cancelling else None
        outcome = work.result()
        result = msgspec.Raw(outcome.result)
        if outcome.error is not None:
            return _failed(task.record, outcome.error).changed(result=result)
        return task.record.changed(status=TaskStatus.SUCCEEDED, result=result)

    async def _put_back(self, task: Task) -> None:
        """Put back a task that the server's end has interrupted."""
        attempts = task.record.attempts - (1 if task.record.kind.repeatable else 0)
        task.record = task.record.changed(status=TaskStatus.WAITING, attempts=attempts, started_at="")
        await self._try_to_write(task.record)
        self._running.discard(task)
        self.queue.put_back(task, was_taken=True)
        self._notify(task)

    async def _end(self, task: Task, ended: TaskRecord) -> None:
        ended = ended.changed(ended_at=self._time())
        await self._try_to_write(ended)
        task.record = ended.without_result()
        self._running.discard(task)
        self.queue.end(task, was_taken=True)
        self._notify(task)
        self.fill()
        await self._expire()

    async def _cancel_waiting(self, task: Task) -> None:
        ended = task.record.changed(status=TaskStatus.CANCELLED, ended_at=self._time())
        try:
            await self._run_blocking(self._spool.write, ended)
        except PenstockError:
            task.cancelling = False
            self.queue.put_back(task, was_taken=False)
            raise
        task.record = ended
        self.queue.end(task, was_taken=False)
        self._notify(task)
        await self._expire()

    async def _try_to_write(self, record: TaskRecord) -> None:
        """Write a record. Where that fails, the disk has the one before, and a restart does the task again."""
        try:
            await self._run_blocking(self._spool.write, record)
        except PenstockError as error:
            log.warning("the task %s is %s, which could not be written: %s", record.id, record.status, error.detail)

    async def _expire(self) -> None:
        for id in self.queue.expire():
            await self._run_blocking(self._spool.remove, id)

    def _notify(self, task: Task) -> None:
        for event in self._watchers.get(task.record.id, ()):
            event.set()

    def _time(self) -> str:
        return self._now().isoformat(timespec="milliseconds")

    def _spawn(self, work: Any) -> asyncio.Task[Any]:
        job = asyncio.get_running_loop().create_task(work, name="task")
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)
        return job


def _failed(record: TaskRecord, error: PenstockError) -> TaskRecord:
    return record.changed(status=TaskStatus.FAILED, error=to_record(error))


def _was_given_up(record: TaskRecord) -> bool:
    """Return whether a task was interrupted too often, or once where that is too often."""
    return record.attempts >= (ATTEMPTS_MAX if record.kind.repeatable else 1)
