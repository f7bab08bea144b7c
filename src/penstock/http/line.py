"""A line of things that all get the same time, and one timer for all of them.

Whoever is first in line is due first, so a request that ends in time costs two dictionary
operations: no timer is set and cancelled for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Final, Generic, TypeVar

T = TypeVar("T")

#: Loops count time in milliseconds or in rounded seconds: a timer may fire this much early.
EARLY_S: Final = 0.001


class Line(Generic[T]):
    """Calls ``due`` with each thing that has stood here for ``patience_s``.

    Args:
        patience_s: How long each may stand, on the loop's clock.
        due: Called from the loop; the thing is not in the line any more.

    Bounds: one entry for each thing; whoever puts things in bounds them. One timer.
    """

    __slots__ = ("_due", "_patience_s", "_since_s", "_timer")

    def __init__(self, patience_s: float, due: Callable[[T], None]) -> None:
        self._patience_s = patience_s
        self._due = due
        self._since_s: dict[T, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._since_s)

    def __contains__(self, thing: T) -> bool:
        return thing in self._since_s

    def __iter__(self) -> Iterator[T]:
        """Iterate over the things, the one that has stood here longest first."""
        return iter(self._since_s)

    def __repr__(self) -> str:
        return f"<Line of {len(self)}, {self._patience_s:g} s each>"

    def join(self, thing: T) -> None:
        """Put a thing at the end; one that stands here already keeps its place and its time."""
        if thing in self._since_s:
            return
        loop = asyncio.get_running_loop()
        self._since_s[thing] = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(self._patience_s, self._look)

    def leave(self, thing: T) -> None:
        """Take a thing out, if it is here."""
        self._since_s.pop(thing, None)

    def first(self) -> T | None:
        """Return the thing that has stood here longest."""
        return next(iter(self._since_s), None)

    def waited_s(self, thing: T, now_s: float) -> float:
        """Return how long a thing has stood here, 0 if it does not.

        Args:
            thing: Any.
            now_s: Now, on the loop's clock.
        """
        return now_s - self._since_s.get(thing, now_s)

    def _look(self) -> None:
        """Call those who are due; set the timer for the next, if there is one."""
        self._timer = None
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        while (thing := self.first()) is not None:
            due_at_s = self._since_s[thing] + self._patience_s
            if due_at_s > now_s + EARLY_S:
                self._timer = loop.call_at(due_at_s, self._look)
                return
            del self._since_s[thing]
            self._due(thing)
