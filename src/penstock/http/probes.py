"""Bounds on what health checks and scrapes cost, however many ask (H8): one computation a second, paced callers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

T = TypeVar("T")

#: Maximum age of the value in seconds. Probes usually ask less often than that.
TTL_S: Final = 1.0


class CachedValue(Generic[T]):
    """Value that is computed again on demand once it has expired. Concurrent callers share one computation.

    Bounds: one value; one computation at a time, and one in ``TTL_S``.
    """

    __slots__ = ("_compute", "_computing", "_fresh_until_s")

    def __init__(self, compute: Callable[[], Awaitable[T]]) -> None:
        self._compute = compute
        self._computing: asyncio.Future[T] | None = None
        self._fresh_until_s = 0.0

    async def get(self) -> T:
        """Return the value, or raise what its computation raised.

        Cancellation: The computation goes on for the other callers and for later ones.
        """
        now_s = asyncio.get_running_loop().time()
        if self._computing is None or (self._computing.done() and now_s >= self._fresh_until_s):
            self._fresh_until_s = now_s + TTL_S
            self._computing = asyncio.ensure_future(self._compute())
            self._computing.add_done_callback(_consume_exception)
        if self._computing.done():
            return self._computing.result()
        return await asyncio.shield(self._computing)


def _consume_exception(done: asyncio.Future[T]) -> None:
    """Mark an exception as retrieved, since no caller may be waiting for it any more."""
    if not done.cancelled():
        done.exception()


#: Probes, scrapes and status requests that one address may make a second before they are delayed.
PROBES_PER_S: Final = 500
PROBES_BURST: Final = 1000
#: Maximum delay of one request in seconds. A probe usually times out after a second.
DELAY_S_MAX: Final = 0.5

_TRACKED_ADDRESSES_MAX: Final = 4096


class ProbeThrottle:
    """Paces the requests of each address (generic cell rate algorithm, each request reserving its slot in advance).

    A refusal would cost as much as the answer, and a refused probe makes an orchestrator restart the server.

    Bounds: 4096 addresses, the least recently seen dropped first.
    """

    __slots__ = ("_due_s",)

    def __init__(self) -> None:
        self._due_s: dict[str, float] = {}

    def delay_s(self, address: str, now_s: float) -> float:
        """Return how long a request should wait, and count it."""
        burst_s = PROBES_BURST / PROBES_PER_S
        due_s = max(self._due_s.pop(address, 0.0), now_s) + 1 / PROBES_PER_S
        delay_s = min(max(0.0, due_s - now_s - burst_s), DELAY_S_MAX)
        self._due_s[address] = min(due_s, now_s + burst_s + DELAY_S_MAX)
        if len(self._due_s) > _TRACKED_ADDRESSES_MAX:
            del self._due_s[next(iter(self._due_s))]
        return delay_s
