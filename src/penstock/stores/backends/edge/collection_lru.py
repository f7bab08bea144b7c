"""LRU list of open collections, without a clock of its own: chooses which to close."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Final

#: Collections open at once. Each takes some threads, a hundred mappings and its indexes' memory.
OPEN_MAX: Final = 32

#: Collections that stay open however long they are not used: most servers never close one.
KEEP_OPEN_MIN: Final = 8

#: Seconds without use after which one beyond ``KEEP_OPEN_MIN`` is closed.
IDLE_S: Final = 60.0


class CollectionLru:
    """The open collections in the order of their last use.

    Args:
        open_max: How many may be open.
        keep_open: How many are never closed for being idle.
        idle_s: Seconds without use after which one is idle.

    Bounds: ``open_max``, and those that may not be closed.
    """

    def __init__(self, open_max: int = OPEN_MAX, keep_open: int = KEEP_OPEN_MIN, idle_s: float = IDLE_S) -> None:
        self._open_max = open_max
        self._kept = keep_open
        self._idle_s = idle_s
        self._used_s: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._used_s)

    def __iter__(self) -> Iterator[str]:
        return iter(self._used_s)

    def __contains__(self, name: str) -> bool:
        return name in self._used_s

    @property
    def above_minimum(self) -> bool:
        """True if more collections are open than stay open when idle."""
        return len(self._used_s) > self._kept

    def touch(self, name: str, now_s: float) -> None:
        """Note that a collection is open and used now."""
        self._used_s[name] = now_s
        self._used_s.move_to_end(name)

    def remove(self, name: str) -> None:
        """Note that a collection is not open any more."""
        self._used_s.pop(name, None)

    def eviction_candidates(self, busy: Callable[[str], bool]) -> list[str]:
        """Return the collections to close before one more is opened, the least recently used first."""
        over = len(self._used_s) - self._open_max + 1
        return [name for name in self._used_s if not busy(name)][:over] if over > 0 else []

    def idle_candidate(self, busy: Callable[[str], bool], now_s: float) -> str | None:
        """Return a collection that should be closed because it is idle, ``None`` if there is none."""
        if len(self._used_s) <= self._kept:
            return None
        for name, used_s in self._used_s.items():
            if now_s < used_s + self._idle_s:
                return None
            if not busy(name):
                return name
        return None
