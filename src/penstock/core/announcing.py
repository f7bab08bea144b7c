"""Alerts become events on the bus; nobody waits for them."""

from __future__ import annotations

import asyncio
from typing import Final

from penstock.bus.contract import Bus
from penstock.kernel.context import Context
from penstock.kernel.messages import AlertTriggered, Topic
from penstock.telemetry.alarms import AlertRecord

#: Announcements of alerts on their way to the bus; those beyond are only logged and listed.
ANNOUNCEMENTS_MAX: Final = 100


class Announcements:
    """The alerts that are on their way to the bus.

    Args:
        bus: Where ``alert.triggered`` is published.

    Bounds:
        :data:`ANNOUNCEMENTS_MAX` at once.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def publish(self, record: AlertRecord) -> None:
        """Send an alert on its way; call it inside the running loop."""
        if len(self._tasks) >= ANNOUNCEMENTS_MAX:
            return
        told = AlertTriggered(record.name, record.severity, record.subject, record.detail, record.active)
        task = asyncio.get_running_loop().create_task(
            self._bus.publish(Topic.ALERT_TRIGGERED, told, Context.background()), name="alert"
        )
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def close(self) -> None:
        """Give up those that are still on their way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # a full or closed bus has told of it itself
