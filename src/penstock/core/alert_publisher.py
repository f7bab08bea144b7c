"""Alert publisher: publishes alerts as events on the bus, in background tasks."""

from __future__ import annotations

import asyncio
from typing import Final

from penstock.bus.contract import Bus
from penstock.kernel.context import Context
from penstock.kernel.messages import AlertTriggered, Topic
from penstock.policies.alerts import RaisedAlert

#: Alerts that are published at once. Those beyond are only logged and listed.
ALERTS_IN_FLIGHT_MAX: Final = 100


class AlertPublisher:
    """Publishes alerts on the bus in background tasks.

    Args:
        bus: Where ``alert.triggered`` is published.

    Bounds:
        :data:`ALERTS_IN_FLIGHT_MAX` at once.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def publish(self, alert: RaisedAlert) -> None:
        """Begin to publish an alert. Call it inside the running loop."""
        if len(self._tasks) >= ALERTS_IN_FLIGHT_MAX:
            return
        rule = alert.rule
        told = AlertTriggered(rule.name, rule.severity.value, alert.subject, alert.detail, alert.active)
        task = asyncio.get_running_loop().create_task(
            self._bus.publish(Topic.ALERT_TRIGGERED, told, Context.background()), name="alert"
        )
        self._tasks.add(task)
        task.add_done_callback(self._on_done)

    async def close(self) -> None:
        """Cancel the publications that have not ended."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # a full or closed bus has reported it itself
