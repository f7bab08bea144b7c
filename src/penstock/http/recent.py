"""What many ask at once and little changes: computed at most once a second, however many ask (H8)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

T = TypeVar("T")

#: Age at most of what is told. Probes ask more seldom than that.
FRESH_S: Final = 1.0


class Recent(Generic[T]):
    """A value that is computed when it is asked for and old; those who ask meanwhile wait for the same one.

    Args:
        compute: Makes the value.

    Bounds: one value; one computation at a time, and one in ``FRESH_S``.
    """

    __slots__ = ("_compute", "_computing", "_fresh_until_s")

    def __init__(self, compute: Callable[[], Awaitable[T]]) -> None:
        self._compute = compute
        self._computing: asyncio.Future[T] | None = None
        self._fresh_until_s = 0.0

    async def get(self) -> T:
        """Return the value, or raise what its computation raised.

        Cancellation: The computation goes on, for the others and for those who ask next.
        """
        now_s = asyncio.get_running_loop().time()
        if self._computing is None or (self._computing.done() and now_s >= self._fresh_until_s):
            self._fresh_until_s = now_s + FRESH_S
            self._computing = asyncio.ensure_future(self._compute())
            self._computing.add_done_callback(_look_at)
        if self._computing.done():
            return self._computing.result()
        return await asyncio.shield(self._computing)


def _look_at(done: asyncio.Future[T]) -> None:
    """Take note of an error that nobody may be waiting for any more."""
    if not done.cancelled():
        done.exception()
