"""Crash attribution: decides which collection made a store process die. Pure: no processes, no clock."""

from __future__ import annotations

import signal
from typing import Final

from penstock.stores.backends.edge.activity import CurrentTask

#: Exit status after the engine panicked; the front starts a new process.
PANIC_EXIT_STATUS: Final = 70

#: Signals by which the engine itself kills the process: a mapping of a file that got shorter, a wild pointer, an abort.
_CRASHES: Final = frozenset({-signal.SIGBUS, -signal.SIGSEGV, -signal.SIGABRT, -signal.SIGILL, -signal.SIGFPE})

#: A second death over the same work within this time is no accident.
REPEAT_WINDOW_S: Final = 600.0


class CrashAttribution:
    """Decides after each death of the store process whether a collection is quarantined.

    A death while a collection is opened is that collection's. One over other work, or by the kernel's hand for want of
    memory, may be an accident: the second one over the same collection is not.

    Attributes:
        quarantined: Collections that stay closed, with the reason.
        disk_starved: Whether a collection could not be opened because the disk was full: the engine reads holes of its
            files, which some file systems have to fill, and where there is no room for that the process ends.

    Bounds: the last death, and the quarantined collections.
    """

    def __init__(self) -> None:
        self.quarantined: dict[str, str] = {}
        self.disk_starved = False
        self._last: CurrentTask | None = None
        self._last_s = 0.0

    def record_exit(self, status: int | None, task: CurrentTask, now_s: float, *, disk_full: bool = False) -> bool:
        """Record how a process ended; return whether the next one is kept from the same end.

        Args:
            status: Its exit status, negative for a signal; ``None`` if it was not started.
            task: The task that it recorded last.
            now_s: The time.
            disk_full: Whether the disk is full.
        """
        if disk_full and status == -signal.SIGBUS:
            before, self.disk_starved = self.disk_starved, True
            return not before
        crashed = status in _CRASHES or status == PANIC_EXIT_STATUS
        killed = status == -signal.SIGKILL and task.is_opening
        if not task.collection or not (crashed or killed):
            return False
        again = task == self._last and now_s < self._last_s + REPEAT_WINDOW_S
        self._last, self._last_s = task, now_s
        if not (again or (crashed and task.is_opening)):
            return False
        what = "opening it" if task.is_opening else "working on it, twice"
        self.quarantined[task.collection] = f"the store process ended {_by(status)} while {what}"
        return True

    def release(self, collection: str) -> None:
        """Release a collection from quarantine: it was deleted or replaced."""
        self.quarantined.pop(collection, None)


def _by(status: int | None) -> str:
    if status is not None and status < 0:
        return f"by {signal.Signals(-status).name}"
    return "because the engine panicked"
