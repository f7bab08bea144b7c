"""Time is passed in: every policy and every deadline reads it through a ``Clock``."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Monotonic seconds. The origin means nothing; only differences do."""

    def now(self) -> float:
        """Return the present in seconds on this clock."""
        ...


class MonotonicClock:
    """The process's monotonic clock, the one that real event loops count on.

    uvloop's ``time()`` has the same origin but whole milliseconds, taken once an iteration: right
    for timers, too coarse for measuring a stage of a search.
    """

    #: Returns ``time.monotonic()``; it is that very function, for it is called several times a message.
    now = staticmethod(time.monotonic)


class LoopClock:
    """The running event loop's clock, so that a virtual loop moves our deadlines too."""

    def now(self) -> float:
        """Return the running loop's ``time()``.

        Raises:
            RuntimeError: Outside a running event loop.
        """
        return asyncio.get_running_loop().time()
