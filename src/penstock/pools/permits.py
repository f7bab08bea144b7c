"""Permits: how much may run at once, per pool and over a shared budget (SPEC P1–P8).

Nobody ever waits for a permit. The bus asks with ``try_acquire``; on refusal the message stays in
its topic, and ``on_free`` tells the bus when to ask again. So a permit is held by running
work only, and a waiter can neither swallow nor leak one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from penstock.kernel.errors import Invalid


class Budget:
    """A weighted budget that several pools borrow from (SPEC P4).

    Nobody starves: what comes back is offered first to the one that has gone without for the
    longest. If it needs more than is there, the rest is kept for it until more comes back;
    otherwise lighter ones would always be quicker.

    Args:
        total: Weight that may be out at once.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.used = 0
        self._listeners: deque[Callable[[], None]] = deque()
        self._refused: object | None = None
        self._kept_for: object | None = None

    def __repr__(self) -> str:
        return f"<Budget {self.used}/{self.total}>"

    def try_take(self, weight: int, who: object) -> bool:
        """Take ``weight`` for ``who`` if that much is left and not kept for another."""
        if self._kept_for not in (None, who):
            return False
        if self.used + weight > self.total:
            self._refused = who
            return False
        self.used += weight
        return True

    def give(self, weight: int) -> None:
        """Give ``weight`` back and offer it around; who takes some is the last to be asked again."""
        self.used -= weight
        self._kept_for = None
        for offer in tuple(self._listeners):
            self._refused = None
            before = self.used
            offer()
            if self.used > before:
                self._listeners.remove(offer)
                self._listeners.append(offer)
            elif self._refused is not None:
                self._kept_for = self._refused
                return

    def on_free(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` whenever some of the budget comes back."""
        self._listeners.append(callback)


class Permits:
    """One pool's permits.

    Args:
        name: The pool's name in metrics.
        limit: Permits at most.
        budget: A budget shared with other pools, if any.
        weight: What one permit costs of it; no more than all of it.
    """

    def __init__(self, name: str, limit: int, budget: Budget | None = None, weight: int = 1) -> None:
        self.name = name
        self.limit = limit
        self.active = 0
        self._budget = budget if budget is not None else Budget(limit * weight)
        self._weight = weight
        if weight > self._budget.total:
            raise Invalid(f"a permit of {name} costs {weight}, the whole budget is {self._budget.total}", field=name)

    def __repr__(self) -> str:
        return f"<Permits {self.name} {self.active}/{self.limit}>"

    def try_acquire(self) -> bool:
        """Take a permit if the pool and its budget allow one more."""
        if self.active >= self.limit or not self._budget.try_take(self._weight, self):
            return False
        self.active += 1
        return True

    def release(self) -> None:
        """Give a permit back: the work itself has ended."""
        self.active -= 1
        self._budget.give(self._weight)

    def on_free(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` whenever a permit may be had again."""
        self._budget.on_free(callback)
