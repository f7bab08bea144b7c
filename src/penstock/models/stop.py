"""Stopping a run of a model from another thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Stopped(Exception):
    """The run was asked to stop and did; whoever asked has thrown the result away already."""


class Stop:
    """Asked in one thread, heard in another; one for each run.

    A runner hears of it in two ways: between its steps it calls :meth:`check`, and while a step of a native
    runtime is under way, :meth:`heard_by` names what breaks that step off.

    Bounds: one callback.
    """

    __slots__ = ("_asked", "_break_off", "_lock")

    def __init__(self) -> None:
        self._asked = False
        self._break_off: Callable[[], None] | None = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Stop {'asked' if self._asked else 'not asked'}>"

    @property
    def asked(self) -> bool:
        """Whether the run should end."""
        return self._asked

    def ask(self) -> None:
        """Ask the run to end; may be called at any time, from any thread, more than once. Never waits long."""
        with self._lock:
            self._asked = True
            if self._break_off is not None:
                self._break_off()

    def check(self) -> None:
        """Go on, or end the run.

        Raises:
            Stopped: It was asked to end.
        """
        if self._asked:
            raise Stopped

    @contextmanager
    def heard_by(self, break_off: Callable[[], None]) -> Iterator[None]:
        """Call ``break_off`` when asked while the body runs, or at once if that was before.

        Args:
            break_off: Called in the asking thread, at most once for each asking; must not wait.
        """
        with self._lock:
            self._break_off = break_off
            if self._asked:
                break_off()
        try:
            yield
        finally:
            with self._lock:
                self._break_off = None
