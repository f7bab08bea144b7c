"""Queue of tasks: bounds, the order of their turns, and how long ended ones are kept. A pure state machine.

Each client has a lane. The tasks of a lane run one after another, in the order in which they were accepted; lanes take
turns, so that a client with thousands of tasks does not keep another's waiting.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import secrets
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from penstock.kernel.errors import Invalid, Rejected, truncated
from penstock.kernel.settings import TaskSettings
from penstock.tasks.records import TaskRecord

#: Share of the bounds that one client may take.
CLIENT_SHARE_DIVISOR: Final = 2

#: Seconds after which another try to submit a task makes sense.
FULL_RETRY_S: Final = 5.0

_ID_MILLIS_DIGITS: Final = 12
_ID_RANDOM_BYTES: Final = 4


@dataclass(slots=True, eq=False)
class Task:
    """A task in memory.

    Attributes:
        record: Its record, without the result.
        done: Documents done in this attempt.
        job: The asyncio task that does it or ends it.
        work: What is cancelled to end it early, while it is done.
        cancelling: Whether somebody has asked for its cancellation.
    """

    record: TaskRecord
    done: int = 0
    job: asyncio.Task[None] | None = None
    work: asyncio.Future[Any] | None = None
    cancelling: bool = False


@dataclass(slots=True)
class _Usage:
    """Tasks that have not ended, and the bytes of their bodies."""

    tasks: int = 0
    bytes: int = 0

    def add(self, tasks: int, body_bytes: int) -> None:
        self.tasks += tasks
        self.bytes += body_bytes

    def fits(self, body_bytes: int, tasks_max: int, bytes_max: int) -> bool:
        """Return whether one more task fits. A body that is larger than the bound fits an empty spool."""
        return self.tasks < tasks_max and (not self.tasks or self.bytes + body_bytes <= bytes_max)


@dataclass(slots=True)
class TaskQueue:
    """Tasks of a server.

    Args:
        settings: Its bounds.
        now: Returns the time of day.

    Bounds: ``tasks.waiting`` tasks and ``tasks.spool`` bytes that have not ended, half of each for one client;
    ``tasks.keep`` ended ones, none of them older than ``tasks.keep_age``.
    """

    settings: TaskSettings
    now: Callable[[], dt.datetime]
    _tasks: dict[str, Task] = field(default_factory=dict)
    _lanes: dict[str, deque[Task]] = field(default_factory=dict)
    _busy: set[str] = field(default_factory=set)
    _total: _Usage = field(default_factory=_Usage)
    _by_client: dict[str, _Usage] = field(default_factory=dict)
    _ended: dict[str, None] = field(default_factory=dict)
    _last_millis: int = 0

    def __repr__(self) -> str:
        return f"<TaskQueue {len(self._tasks)} tasks, {len(self._ended)} of them ended>"

    @property
    def spooled_bytes(self) -> int:
        """Bytes of the bodies of tasks that have not ended."""
        return self._total.bytes

    @property
    def unended(self) -> int:
        """Number of tasks that have not ended."""
        return self._total.tasks

    def new_id(self) -> str:
        """Return the id of a new task, greater than all before it."""
        self._last_millis = max(int(self.now().timestamp() * 1000), self._last_millis + 1)
        return f"{self._last_millis:0{_ID_MILLIS_DIGITS}x}{secrets.token_hex(_ID_RANDOM_BYTES)}"

    def reserve(self, client: str, body_bytes: int) -> None:
        """Take room for a task that is about to be written.

        Raises:
            Rejected: There is none, for this client (``client_share``) or for anyone (``tasks_full``).
        """
        most, size = self.settings.waiting, self.settings.spool
        if not self._total.fits(body_bytes, most, size):
            detail = f"{self._total.tasks} tasks wait already, with {self._total.bytes} bytes; send this one later"
            raise Rejected(detail, code="tasks_full", retry_after_s=FULL_RETRY_S)
        own = self._by_client.setdefault(client, _Usage())
        if not own.fits(body_bytes, max(1, most // CLIENT_SHARE_DIVISOR), size // CLIENT_SHARE_DIVISOR):
            detail = f"{own.tasks} tasks of yours wait already, with {own.bytes} bytes; send this one later"
            raise Rejected(detail, code="client_share", retry_after_s=FULL_RETRY_S, by_client=True)
        self._count(client, 1, body_bytes)

    def unreserve(self, client: str, body_bytes: int) -> None:
        """Give the room back of a task that was not written after all, or has ended."""
        self._count(client, -1, -body_bytes)

    def _count(self, client: str, tasks: int, body_bytes: int) -> None:
        own = self._by_client.setdefault(client, _Usage())
        for usage in (self._total, own):
            usage.add(tasks, body_bytes)
        if not own.tasks:
            del self._by_client[client]

    def add(self, record: TaskRecord) -> Task:
        """Add a task for which there is room."""
        task = self._tasks[record.id] = Task(record)
        self._last_millis = max(self._last_millis, int(record.id[:_ID_MILLIS_DIGITS], 16))
        self._lane(record.client).append(task)
        return task

    def restore(self, record: TaskRecord) -> Task:
        """Add a task that was loaded from the spool, whatever the bounds say of it."""
        if not record.status.ended:
            self._count(record.client, 1, record.body_bytes)
            return self.add(record)
        task = self._tasks[record.id] = Task(record)
        self._ended[record.id] = None
        return task

    def find(self, id: str, may_see: Callable[[Task], bool] = lambda _: True) -> Task:
        """Return a task.

        Raises:
            Invalid: There is none of this id that may be seen (``task_not_found``).
        """
        task = self._tasks.get(id)
        if task is None or not may_see(task):
            detail = f"there is no task {truncated(id)!r}; ended ones are kept for a while only"
            raise Invalid(detail, field="id", code="task_not_found")
        return task

    def newest_first(self, after: str = "") -> Iterator[Task]:
        """Yield the tasks, the newest first.

        Args:
            after: Id of the last one of the page before.
        """
        for id in sorted(self._tasks, reverse=True):
            if not after or id < after:
                yield self._tasks[id]

    def counts(self) -> dict[str, int]:
        """Return how many tasks have each status."""
        found: dict[str, int] = {}
        for task in self._tasks.values():
            status = task.record.status.value
            found[status] = found.get(status, 0) + 1
        return found

    def take(self) -> Task | None:
        """Take the next task whose client has none at work; the client's next one comes after those of others."""
        for client, lane in self._lanes.items():
            if client not in self._busy:
                task = lane.popleft()
                del self._lanes[client]
                if lane:
                    self._lanes[client] = lane
                self._busy.add(client)
                return task
        return None

    def put_back(self, task: Task, *, was_taken: bool) -> None:
        """Let a task wait again, before its client's others."""
        if was_taken:
            self._busy.discard(task.record.client)
        self._lane(task.record.client).appendleft(task)

    def withdraw(self, task: Task) -> None:
        """Take a waiting task out of its turn."""
        client = task.record.client
        self._lanes[client].remove(task)
        if not self._lanes[client]:
            del self._lanes[client]

    def end(self, task: Task, *, was_taken: bool) -> None:
        """Note that a task has ended."""
        record = task.record
        if was_taken:
            self._busy.discard(record.client)
        self.unreserve(record.client, record.body_bytes)
        self._ended[record.id] = None

    def expire(self) -> list[str]:
        """Forget the ended tasks beyond the bounds, and return their ids."""
        oldest = (self.now() - dt.timedelta(seconds=self.settings.keep_age)).isoformat()
        gone = list[str]()
        for id in self._ended:
            if len(self._ended) - len(gone) <= self.settings.keep and self._tasks[id].record.ended_at >= oldest:
                break
            gone.append(id)
        for id in gone:
            del self._ended[id], self._tasks[id]
        return gone

    def _lane(self, client: str) -> deque[Task]:
        return self._lanes.setdefault(client, deque())
