"""Turns of calls to a server that refuses what is too much: those beyond the pace wait."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

from penstock.kernel.errors import Rejected
from penstock.policies.pace import Pace, PaceSettings

#: Documents of all requests under way at most after the store was busy, in ``index.workers``.
DOCUMENTS_PER_WORKER: Final = 4
#: First and longest pause of all documents after one was refused.
BUSY_PAUSE_S: Final = 0.05
BUSY_PAUSE_S_MAX: Final = 2.0


class PacedTurns:
    """Turns of calls, as a pace allows them.

    Args:
        pace: Is told of refusals by the caller.
        now: Monotonic clock, in seconds.

    Bounds: the pace's window.
    """

    def __init__(self, pace: Pace, now: Callable[[], float]) -> None:
        self.pace = pace
        self._now = now
        self._ended = asyncio.Event()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until a call may be made; it is under way inside.

        Cancellation: The turn is free again.
        """
        while (wait_s := self.pace.wait_s(self._now())) != 0.0:
            self._ended.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._ended.wait()
        self.pace.under_way += 1
        try:
            yield
        finally:
            self.pace.under_way -= 1
            self._ended.set()


class BusyTurns(PacedTurns):
    """Turns of documents in the server after its store was busy, until it takes all again.

    Args:
        workers: Document segments indexed at once.
        now: Monotonic clock, in seconds.

    Bounds: ``DOCUMENTS_PER_WORKER`` documents for each worker.
    """

    def __init__(self, workers: int, now: Callable[[], float]) -> None:
        self._most = DOCUMENTS_PER_WORKER * workers
        super().__init__(Pace(PaceSettings(self._most, BUSY_PAUSE_S, BUSY_PAUSE_S_MAX, math.inf), workers), now)

    def slow_down(self, error: Rejected, now_s: float) -> None:
        """Have all documents wait a little, and fewer of them under way at once."""
        self.pace.on_refused(min(error.retry_after_s, BUSY_PAUSE_S_MAX), now_s)

    def speed_up(self, now_s: float) -> bool:
        """Allow more documents at once; return whether the store has taken so many that none need wait."""
        self.pace.on_taken(now_s, whole=True)
        return self.pace.window >= self._most
