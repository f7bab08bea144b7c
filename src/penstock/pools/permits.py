"""Permits: how much may run at once, per pool and over a shared budget (SPEC §2, P1–P8).

No task ever waits for a permit. The bus asks with ``try_acquire``. On refusal the message stays in
its topic, and ``on_free`` tells the bus when to ask again. So a permit is held by running
work only, and a waiter can neither swallow nor leak one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from penstock.kernel.context import Criticality
from penstock.kernel.errors import Invalid
from penstock.kernel.settings import Settings

#: Owner of a budget that is kept for no pool.
_NO_OWNER: Final = object()


class Budget:
    """A weighted budget that several pools borrow from (SPEC P4).

    No pool starves: what comes back is offered first to the one that has gone without for the
    longest. If it needs more than is there, the rest is kept for it until more comes back.
    Otherwise lighter ones would always be quicker.

    Args:
        total: Weight that may be out at once.

    Attributes:
        total: As given, or as last resized.
        used: Weight that is out; more than ``total`` only after a shrink, until enough has come back.

    Raises:
        Invalid: ``total`` is less than 1.
    """

    def __init__(self, total: int) -> None:
        self.total = _at_least_one("a budget", total)
        self.used = 0
        self._heaviest = 1
        self._listeners: deque[Callable[[], None]] = deque()
        self._refused_owner: object = _NO_OWNER
        self._reserved_for: object = _NO_OWNER

    def __repr__(self) -> str:
        return f"<Budget {self.used}/{self.total}>"

    def try_acquire(self, weight: int, owner: object) -> bool:
        """Take ``weight`` for ``owner`` if that much is left and not kept for another."""
        if self._reserved_for is not _NO_OWNER and self._reserved_for is not owner:
            return False
        if self.used + weight > self.total:
            self._refused_owner = owner
            return False
        self.used += weight
        return True

    def release(self, weight: int) -> None:
        """Give ``weight`` back and offer it around; who takes some is the last to be asked again."""
        self.used -= weight
        self.notify()

    def resize(self, total: int) -> None:
        """Allow ``total`` from now on.

        What is out stays out: after a shrink nothing is granted until enough has come back. After a growth those
        who wait are told at once.

        Raises:
            Invalid: It is less than 1, or than a permit of one of the pools costs; nothing has changed.
        """
        if total < self._heaviest:
            raise Invalid(f"a permit costs {self._heaviest}, the whole budget cannot be {total}", field="total")
        self.total = _at_least_one("a budget", total)
        self.notify()

    def register_weight(self, name: str, weight: int) -> None:
        """Promise a pool that a permit of this weight can always be had in the end.

        Raises:
            Invalid: It costs more than the whole budget.
        """
        if weight > self.total:
            raise Invalid(f"a permit of {name} costs {weight}, the whole budget is {self.total}", field=name)
        self._heaviest = max(self._heaviest, weight)

    def notify(self) -> None:
        """Tell those who wait, one after the other, that they may ask again."""
        self._reserved_for = _NO_OWNER
        for offer in tuple(self._listeners):
            self._refused_owner = _NO_OWNER
            before = self.used
            offer()
            if self.used > before:
                self._listeners.remove(offer)
                self._listeners.append(offer)
            elif self._refused_owner is not _NO_OWNER:
                self._reserved_for = self._refused_owner
                return

    def on_free(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` whenever some of the budget comes back."""
        self._listeners.append(callback)


class Permits:
    """Permits of one pool.

    Args:
        name: The pool's name in metrics.
        limit: Permits at most.
        budget: A budget shared with other pools, if any.
        weight: Cost of one permit; no more than the whole budget.
        reserved: Permits that work of the lowest class may not take, so that more urgent work need not wait for its
            end.

    Attributes:
        name: As given.
        limit: As given, or as last resized.
        active: Permits that are out; more than ``limit`` only after a shrink, until enough have come back.

    Raises:
        Invalid: ``limit`` or ``weight`` is less than 1, or a permit costs more than the whole budget.
    """

    def __init__(
        self, name: str, limit: int, budget: Budget | None = None, weight: int = 1, *, reserved: int = 0
    ) -> None:
        self.name = name
        self.limit = _at_least_one(name, limit)
        self.active = 0
        self._weight = _at_least_one(name, weight)
        self._reserved = reserved
        self._shared = budget is not None
        self._budget = budget if budget is not None else Budget(limit * weight)
        self._budget.register_weight(name, weight)

    def __repr__(self) -> str:
        return f"<Permits {self.name} {self.active}/{self.limit}>"

    def try_acquire(self, rank: int = Criticality.INTERACTIVE) -> bool:
        """Take a permit if the pool and its budget allow one more to work of this class."""
        limit = self.limit if rank < Criticality.BULK else max(1, self.limit - self._reserved)
        if self.active >= limit or not self._budget.try_acquire(self._weight, self):
            return False
        self.active += 1
        return True

    def release(self) -> None:
        """Give a permit back: the work itself has ended."""
        self.active -= 1
        self._budget.release(self._weight)

    def resize(self, limit: int) -> None:
        """Allow ``limit`` permits from now on.

        Nothing that runs is touched: after a shrink ``active`` falls below the new limit by itself, and nothing
        is granted until then. After a growth those who wait are told at once. A shared budget stays as it is.

        Raises:
            Invalid: It is less than 1; nothing has changed.
        """
        self.limit = _at_least_one(self.name, limit)
        if self._shared:
            self._budget.notify()
        else:
            self._budget.resize(limit * self._weight)

    def on_free(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` whenever a permit may be had again."""
        self._budget.on_free(callback)


def _at_least_one(name: str, value: int) -> int:
    if value < 1:
        raise Invalid(f"{name} must be at least 1, not {value}", field=name)
    return value


#: Every pool that works on a topic (SPEC P1–P7).
POOL_NAMES: Final = frozenset({"embed", "sparse", "rerank", "search", "index", "chunk"})


class PoolRegistry:
    """The permits of SPEC §2 by name, ML pools over one budget.

    Attributes:
        ml_budget: The budget shared by the ML pools (P4).
    """

    def __init__(self, settings: Settings) -> None:
        ml = settings.ml
        budget = self.ml_budget = Budget(ml.max_inflight)
        # Half of them are kept from bulk work: a query must not wait until a batch of chunks has ended.
        self.embed = Permits("embed", ml.embed_workers, budget, reserved=ml.embed_workers // 2)
        self.sparse = Permits("sparse", ml.sparse_workers, budget, reserved=ml.sparse_workers // 2)
        self.rerank = Permits("rerank", ml.rerank_workers, budget)
        self.search = Permits("search", settings.search.workers)
        self.index = Permits("index", settings.index.workers)
        self.chunk = Permits("chunk", settings.index.chunk_workers)

    def all(self) -> Sequence[Permits]:
        """Return every pool's permits."""
        return (self.embed, self.sparse, self.rerank, self.search, self.index, self.chunk)
