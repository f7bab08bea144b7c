"""Deadlines: absolute, nested, and named after the operation that set them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from penstock.kernel.errors import Expired


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


@asynccontextmanager
async def limit(deadline: Deadline) -> AsyncIterator[None]:
    """Cancel the body at the deadline and raise ``Expired`` named after its operation.

    Cancellation:
        A cancellation from outside passes through untouched.

    Raises:
        Expired: When the deadline passes while the body runs.
    """
    when = None if math.isinf(deadline.at_s) else deadline.at_s
    scope = asyncio.timeout_at(when)
    try:
        async with scope:
            yield
    except TimeoutError:
        if scope.expired():
            raise Expired(deadline.operation) from None
        raise
