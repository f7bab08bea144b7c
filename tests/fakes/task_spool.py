"""A spool of tasks in memory, the time of day of the virtual clock, and functions that block run at once."""

import asyncio
import datetime as dt
from collections.abc import Callable
from typing import Any

from penstock.kernel.errors import Broken, Unavailable
from penstock.tasks.records import TaskRecord
from penstock.tasks.spool import body_digest


def virtual_now() -> dt.datetime:
    """Return a day that goes on as the loop's clock does."""
    return dt.datetime(2026, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=asyncio.get_running_loop().time())


async def run_inline(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run what would block at once, after a turn of the loop."""
    await asyncio.sleep(0)
    return function(*arguments)


class MemorySpool:
    """A spool that survives what is built around it.

    Attributes:
        records: What lies on its disk.
        full: Whether its disk is full.
    """

    def __init__(self) -> None:
        self.records: dict[str, TaskRecord] = {}
        self.bodies: dict[str, bytes] = {}
        self.full = False

    def accept(self, record: TaskRecord, body: bytes) -> None:
        self.write(record)
        self.bodies[record.id] = body

    def write(self, record: TaskRecord) -> None:
        if self.full:
            raise Unavailable("the data directory does not take the task", dependency="store", code="disk_full")
        self.records[record.id] = record
        if record.status.ended:
            self.bodies.pop(record.id, None)

    def read_body(self, record: TaskRecord) -> bytes:
        body = self.bodies.get(record.id, b"")
        if body_digest(body) != record.body_digest:
            raise Broken("the body was changed", code="task_damaged")
        return body

    def read(self, id: str) -> TaskRecord | None:
        return self.records.get(id)

    def remove(self, id: str) -> None:
        self.records.pop(id, None)
        self.bodies.pop(id, None)

    def load(self) -> list[TaskRecord]:
        from penstock.tasks.records import TaskStatus

        return [
            record.without_result() if record.status.ended else record.changed(status=TaskStatus.WAITING)
            for _, record in sorted(self.records.items())
        ]
