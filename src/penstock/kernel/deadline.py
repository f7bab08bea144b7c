"""Deadlines: absolute, nested, and named after the operation that set them."""

from __future__ import annotations

import asyncio
import math
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import TracebackType

from penstock.kernel.errors import Expired
from penstock.kernel.wheel import Slot, cancel, watch


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on the event loop's clock after which nobody waits for the answer.

    Attributes:
        at_s: Seconds on the loop's monotonic clock; infinity for none.
        operation: Whose limit this is; named in the timeout's error.
    """

    at_s: float
    operation: str

    @classmethod
    def never(cls) -> Deadline:
        """Return a deadline that does not pass."""
        return cls(math.inf, "none")

    def within(self, limit_s: float, operation: str, now_s: float) -> Deadline:
        """Return the tighter of this deadline and ``limit_s`` from now (SPEC §7: they nest)."""
        at_s = now_s + limit_s
        return Deadline(at_s, operation) if at_s < self.at_s else self

    def remaining_s(self, now_s: float) -> float:
        """Return the seconds left, never negative."""
        return max(0.0, self.at_s - now_s)

    def passed(self, now_s: float) -> bool:
        """Return whether the deadline lies in the past or is now."""
        return now_s >= self.at_s


class _Limit:
    """A running limit: ``asyncio.Timeout`` on the wheel. To ring cancels the task, to leave says ``Expired``."""

    __slots__ = ("_cancelling", "_operation", "_rang", "_task", "at_s", "slot")

    def __init__(self, deadline: Deadline) -> None:
        self.at_s = deadline.at_s
        self.slot: Slot | None = None
        self._operation = deadline.operation
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._rang = False

    async def __aenter__(self) -> None:
        if self.at_s == math.inf:
            return
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("a limit stands inside a task")
        self._task = task
        self._cancelling = task.cancelling()
        watch(self, loop.time())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        cancel(self)
        if self._task is None or not self._rang:
            return
        # Whoever else has cancelled the task as well goes before us: then it is no expiry.
        if self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise Expired(self._operation) from None

    def ring(self) -> None:
        """Cancel the body."""
        self._rang = self._task is not None and self._task.cancel()


def limit(deadline: Deadline) -> AbstractAsyncContextManager[None]:
    """Cancel the body at the deadline and raise ``Expired`` named after its operation.

    Bounds:
        Late by what :class:`penstock.kernel.wheel.Wheel` allows, never early.

    Cancellation:
        A cancellation from outside passes through untouched.

    Raises:
        Expired: When the deadline passes while the body runs.
    """
    return _Limit(deadline)
