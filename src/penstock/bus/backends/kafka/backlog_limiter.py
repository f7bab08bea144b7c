"""Approximate bound of a channel's backlog: measured at the broker periodically, counted in between."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

#: A nearly full channel is looked at so often at most.
REFRESH_S: Final = 0.1
#: One that is less than half full is looked at so often at least.
REFRESH_IDLE_S: Final = 1.0


class BacklogLimiter:
    """Limiter of a channel's backlog: admits records while there is room.

    Kafka has no bound of its own, and every instance changes what is in it. So the bound is approximate: between two
    measurements this instance adds what it sends itself, and what others send comes on top.

    Args:
        capacity: Records that may be there.
        measure_depth: Returns how many are.

    Bounds: ``capacity``, exceeded by what other instances send within ``REFRESH_S`` (``REFRESH_IDLE_S`` below half).
    """

    def __init__(self, capacity: int, measure_depth: Callable[[], Awaitable[int]]) -> None:
        self.capacity = capacity
        self._measure_depth = measure_depth
        self._measured = 0
        self._sent_since = 0
        self._sending = 0
        self._measured_s = -1e9
        self._refresh_task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<BacklogLimiter {self._measured}+{self._sent_since}+{self._sending}/{self.capacity}>"

    @property
    def _estimate(self) -> int:
        return self._measured + self._sent_since + self._sending

    async def acquire(self, within_s: float) -> bool:
        """Wait for room and take it; return whether there was some. The caller reports with :meth:`on_sent`.

        Raises:
            Unavailable: The broker cannot be asked.

        Cancellation: Nothing was taken.
        """
        loop = asyncio.get_running_loop()
        until_s = loop.time() + within_s
        if loop.time() - self._measured_s > self._refresh_interval_s():
            await self._refresh()
        while not self._try_acquire():
            wait_s = max(0.0, self._measured_s + REFRESH_S - loop.time())
            if loop.time() + wait_s > until_s:
                # Measure once more at the end.
                await asyncio.sleep(max(0.0, until_s - loop.time()))
                await self._refresh()
                return self._try_acquire()
            await asyncio.sleep(wait_s)
            if loop.time() - self._measured_s >= REFRESH_S:
                await self._refresh()
        return True

    def on_sent(self) -> None:
        """Note that an admitted record is in the channel, or will never be."""
        self._sending -= 1
        self._sent_since += 1

    def _refresh_interval_s(self) -> float:
        return REFRESH_S if 2 * self._estimate > self.capacity else REFRESH_IDLE_S

    def _try_acquire(self) -> bool:
        if self._estimate >= self.capacity:
            return False
        self._sending += 1
        return True

    async def _refresh(self) -> None:
        """Measure at the broker; concurrent callers wait for the same measurement."""
        if self._refresh_task is None or self._refresh_task.done():
            self._refresh_task = asyncio.get_running_loop().create_task(self._measure())
        await asyncio.shield(self._refresh_task)

    async def _measure(self) -> None:
        before = self._sent_since
        self._measured = await self._measure_depth()
        # What is sent while the question is under way may be in the answer or not: better counted twice.
        self._sent_since -= before
        self._measured_s = asyncio.get_running_loop().time()
