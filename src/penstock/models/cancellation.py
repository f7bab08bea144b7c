"""Cancellation of a model's run from another thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class RunCancelled(Exception):
    """The run was cancelled and has stopped; its result is no longer wanted."""


class CancellationToken:
    """Cancellation token of one run: cancelled in one thread, observed in another.

    A runner observes it in two ways: between its steps it calls :meth:`raise_if_cancelled`, and for a running step of a
    native runtime, :meth:`on_cancel` sets the callback that interrupts the step.

    Bounds: one callback.
    """

    __slots__ = ("_asked", "_break_off", "_lock")

    def __init__(self) -> None:
        self._asked = False
        self._break_off: Callable[[], None] | None = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<CancellationToken {'asked' if self._asked else 'not asked'}>"

    @property
    def is_cancelled(self) -> bool:
        """True once the run should end."""
        return self._asked

    def cancel(self) -> None:
        """Cancel the run; may be called at any time, from any thread, more than once. Never waits long."""
        with self._lock:
            self._asked = True
            if self._break_off is not None:
                self._break_off()

    def raise_if_cancelled(self) -> None:
        """Raise an error if the run was cancelled.

        Raises:
            RunCancelled: The run was cancelled.
        """
        if self._asked:
            raise RunCancelled

    @contextmanager
    def on_cancel(self, break_off: Callable[[], None]) -> Iterator[None]:
        """Call ``break_off`` when the run is cancelled while the body runs, or at once if it was cancelled before.

        Args:
            break_off: Called in the cancelling thread, at most once for each call of :meth:`cancel`; must not wait.
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
