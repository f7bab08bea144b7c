"""Permits: how much may run at once, per pool and over a shared budget (SPEC P1–P8).

Nobody ever waits for a permit. The bus asks with ``try_acquire``; on refusal the message stays in
its topic, and ``on_free`` tells the bus when to ask again. So a permit is held by running
work only, and a waiter can neither swallow nor leak one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable


class Budget:
    """A weighted budget that several pools borrow from (SPEC P4).

    Args:
        total: Weight that may be out at once.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.used = 0
        self._listeners: deque[Callable[[], None]] = deque()

    def try_take(self, weight: int) -> bool:
        """Take ``weight`` if that much is left."""
        if self.used + weight > self.total:
            return False
        self.used += weight
        return True

    def give(self, weight: int) -> None:
        """Give ``weight`` back and tell the pools, a different one first each time."""
        self.used -= weight
        self._listeners.rotate(-1)
        for tell in tuple(self._listeners):
            tell()

    def on_free(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` whenever some of the budget comes back."""
        self._listeners.append(callback)


class Permits:
    """One pool's permits.

    Args:
        name: The pool's name in metrics.
        limit: Permits at most.
        budget: A budget shared with other pools, if any.
        weight: What one permit costs of it.
    """

    def __init__(self, name: str, limit: int, budget: Budget | None = None, weight: int = 1) -> None:
        self.name = name
        self.limit = limit
        self.active = 0
        self._budget = budget
        self._weight = weight
        self._listeners: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        return f"<Permits {self.name} {self.active}/{self.limit}>"

    def try_acquire(self) -> bool:
        """Take a permit if the pool and its budget allow one more."""
        if self.active >= self.limit:
            return False
        if self._budget is not None and not self._budget.try_take(self._weight):
            return False
        self.active += 1
        return True

    def release(self) -> None:
        """Give a permit back: the work itself has ended."""
        self.active -= 1
        if self._budget is not None:
            self._budget.give(self._weight)
        else:
            for tell in self._listeners:
                tell()

    def on_free(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` whenever a permit may be had again."""
        if self._budget is not None:
            self._budget.on_free(callback)
        else:
            self._listeners.append(callback)
