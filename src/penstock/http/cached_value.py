"""Single-flight cache of one value: computed at most once a second, however many callers ask (H8)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

T = TypeVar("T")

#: Maximum age of the value in seconds. Probes usually ask less often than that.
TTL_S: Final = 1.0


class CachedValue(Generic[T]):
    """Value that is computed again on demand once it has expired. Concurrent callers share one computation.

    Args:
        compute: Makes the value.

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
