"""FIFO timeout queue: items with the same timeout share one timer.

The oldest item is due first. A request that ends in time therefore costs two dictionary
operations, and no timer is set and cancelled for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Final, Generic, TypeVar

T = TypeVar("T")

#: Loops count time in milliseconds or in rounded seconds: a timer may fire this much early.
TIMER_EARLY_S: Final = 0.001


class TimeoutQueue(Generic[T]):
    """Calls ``on_timeout`` with each item that has been queued for ``timeout_s``.

    Args:
        timeout_s: Seconds that an item may stay, on the loop's clock.
        on_timeout: Called from the loop, after the item has left the queue.

    Bounds: one timer, and one entry for each item. The caller bounds the items.
    """

    __slots__ = ("_on_timeout", "_since_s", "_timeout_s", "_timer")

    def __init__(self, timeout_s: float, on_timeout: Callable[[T], None]) -> None:
        self._timeout_s = timeout_s
        self._on_timeout = on_timeout
        self._since_s: dict[T, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._since_s)

    def __contains__(self, item: T) -> bool:
        return item in self._since_s

    def __iter__(self) -> Iterator[T]:
        """Iterate over the items, the oldest first."""
        return iter(self._since_s)

    def __repr__(self) -> str:
        return f"<TimeoutQueue of {len(self)}, {self._timeout_s:g} s each>"

    def add(self, item: T) -> None:
        """Append an item. One that is queued already keeps its place and its time."""
        if item in self._since_s:
            return
        loop = asyncio.get_running_loop()
        self._since_s[item] = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(self._timeout_s, self._expire_due)

    def discard(self, item: T) -> None:
        """Remove an item, if it is queued."""
        self._since_s.pop(item, None)

    def oldest(self) -> T | None:
        """Return the oldest item, ``None`` if there is none."""
        return next(iter(self._since_s), None)

    def waited_s(self, item: T, now_s: float) -> float:
        """Return the seconds that an item has been queued, 0 if it is not."""
        return now_s - self._since_s.get(item, now_s)

    def _expire_due(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        while (thing := self.oldest()) is not None:
            due_at_s = self._since_s[thing] + self._timeout_s
            if due_at_s > now_s + TIMER_EARLY_S:
                self._timer = loop.call_at(due_at_s, self._expire_due)
                return
            del self._since_s[thing]
            self._on_timeout(thing)
