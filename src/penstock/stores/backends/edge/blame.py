"""Which collection a store process died of: the rule, without processes and clocks."""

from __future__ import annotations

import signal
from typing import Final

from penstock.stores.backends.edge.activity import Doing

#: Exit status after the engine panicked; the front starts a new process.
PANIC_EXIT: Final = 70

#: Deaths that the engine brings about by itself: a mapping of a file that got shorter, a wild pointer, an abort.
_CRASHES: Final = frozenset({-signal.SIGBUS, -signal.SIGSEGV, -signal.SIGABRT, -signal.SIGILL, -signal.SIGFPE})

#: A second death over the same work within this time is no accident.
AGAIN_S: Final = 600.0


class Blame:
    """Decides after each death whether a collection is left closed from now on.

    A death while a collection is opened is that collection's. One over other work, or by the kernel's hand for want of
    memory, may be an accident: the second one over the same collection is not.

    Attributes:
        condemned: Collections that stay closed, with the reason.
        starved: Whether a collection could not be opened because the disk was full: the engine reads holes of its
            files, which some file systems have to fill, and where there is no room for that the process ends.

    Bounds: the last death, and the collections condemned.
    """

    def __init__(self) -> None:
        self.condemned: dict[str, str] = {}
        self.starved = False
        self._last: Doing | None = None
        self._last_s = 0.0

    def note(self, status: int | None, doing: Doing, now_s: float, *, full: bool = False) -> bool:
        """Take in how a process has ended; return whether the next one is kept from the same end.

        Args:
            status: Its exit status, negative for a signal; ``None`` if it was not started.
            doing: What it was at.
            now_s: The time.
            full: Whether the disk is.
        """
        if full and status == -signal.SIGBUS:
            before, self.starved = self.starved, True
            return not before
        crashed = status in _CRASHES or status == PANIC_EXIT
        killed = status == -signal.SIGKILL and doing.opening
        if not doing.collection or not (crashed or killed):
            return False
        again = doing == self._last and now_s < self._last_s + AGAIN_S
        self._last, self._last_s = doing, now_s
        if not (again or (crashed and doing.opening)):
            return False
        what = "opening it" if doing.opening else "working on it, twice"
        self.condemned[doing.collection] = f"the store process ended {_by(status)} while {what}"
        return True

    def pardon(self, collection: str) -> None:
        """Forget what is held against a collection: it was deleted or replaced."""
        self.condemned.pop(collection, None)


def _by(status: int | None) -> str:
    if status is not None and status < 0:
        return f"by {signal.Signals(-status).name}"
    return "because the engine panicked"
