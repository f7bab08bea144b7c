"""Request context: client, criticality, deadline and request id, passed along with every message.

With the clock that deadlines are told on, the limit that keeps them, and the wait for several parts at once.
"""

from __future__ import annotations

import asyncio
import enum
import math
import secrets
import time
import uuid
from collections.abc import Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Protocol

from penstock.kernel.errors import Expired
from penstock.kernel.wheel import Slot, cancel_timer, start_timer

#: Id of the request that the current task works on, empty for none. Every log line of the task carries it.
current_request_id: Final[ContextVar[str]] = ContextVar("request_id", default="")


class Clock(Protocol):
    """Monotonic seconds. The origin means nothing; only differences do."""

    def now(self) -> float:
        """Return the present in seconds on this clock."""


class MonotonicClock:
    """The process's monotonic clock, the one that real event loops count on.

    uvloop's ``time()`` has the same origin but whole milliseconds, taken once an iteration: right
    for timers, too coarse for measuring a stage of a search.
    """

    #: Returns ``time.monotonic()``; it is that very function, for it is called several times a message.
    now = staticmethod(time.monotonic)


async def run_all(coroutines: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Await every part at once; the first error cancels the rest and is raised itself (W1).

    Unlike a task group's, the error is not wrapped, and an error leaves no cancellation behind: before Python 3.13 a
    group cancels its own task to wake it and never takes that back, so the task later reports that it was cancelled.

    Cancellation: Every part is cancelled and has ended when this returns. It takes precedence over an error of a part.
    """
    if len(coroutines) < 2:
        # One alone needs no task.
        for part in coroutines:
            await part
        return
    tasks = [asyncio.create_task(part) for part in coroutines]
    errors: list[BaseException] = []

    def note(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            errors.append(error)

    for task in tasks:
        task.add_done_callback(note)
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        await _cancel_and_wait(tasks)
    try:
        if errors:
            raise errors[0]
    finally:
        errors.clear()  # they hold this frame, which would hold them


async def _cancel_and_wait(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel the tasks that still run and wait for their end. A cancellation in between is raised afterwards."""
    for task in tasks:
        task.cancel()
    cancelled = False
    while running := [task for task in tasks if not task.done()]:
        try:
            await asyncio.wait(running)
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        raise asyncio.CancelledError


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on the event loop's clock after which the answer is of no use.

    Attributes:
        at_s: Seconds on the loop's monotonic clock; infinity for none.
        operation: The operation that set the limit. The timeout's error names it.
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


class _DeadlineTimeout:
    """Running timeout on the timer wheel: expiry cancels the task, and leaving the block raises ``Expired``."""

    __slots__ = ("_cancelling", "_expired", "_operation", "_task", "at_s", "slot")

    def __init__(self, deadline: Deadline) -> None:
        self.at_s = deadline.at_s
        self.slot: Slot | None = None
        self._operation = deadline.operation
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._expired = False

    async def __aenter__(self) -> None:
        if self.at_s == math.inf:
            return
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("a deadline can only be enforced inside a task")
        self._task = task
        self._cancelling = task.cancelling()
        start_timer(self, loop.time())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        cancel_timer(self)
        if self._task is None or not self._expired:
            return
        # A cancellation from elsewhere takes precedence: then this is no expiry.
        if self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise Expired(self._operation) from None

    def expire(self) -> None:
        """Cancel the body."""
        self._expired = self._task is not None and self._task.cancel()


def enforce_deadline(deadline: Deadline) -> AbstractAsyncContextManager[None]:
    """Cancel the body at the deadline and raise ``Expired`` named after its operation.

    Bounds:
        Late by what :class:`penstock.kernel.wheel.TimerWheel` allows, never early.

    Cancellation:
        A cancellation from outside passes through untouched.

    Raises:
        Expired: When the deadline passes while the body runs.
    """
    return _DeadlineTimeout(deadline)


#: Namespace of every point id. Changing it orphans what has been indexed.
POINT_NAMESPACE = uuid.UUID("6f1c0c1e-6d0b-5a86-9a55-2f6b1c5f3a10")


def new_id() -> str:
    """Return a fresh 128-bit random id, 32 lower-case hexadecimal digits."""
    return secrets.token_hex(16)


def point_id(document_id: str, chunk: int) -> str:
    """Return the point id of a chunk, derived from its place so that rewriting is idempotent.

    Returns:
        A UUID (version 5, RFC 9562) in its text form.
    """
    name = document_id.encode("utf-8", "surrogatepass").hex()
    return str(uuid.uuid5(POINT_NAMESPACE, f"{name}/{chunk}"))


class Criticality(enum.IntEnum):
    """Classes of work, the most urgent first (DESIGN §4)."""

    INTERACTIVE = 0
    STANDARD = 1
    BULK = 2


@dataclass(frozen=True, slots=True)
class Context:
    """Request context, handed from the gate to topics, pools and dependencies.

    Attributes:
        deadline: The moment after which an answer is of no use.
        criticality: Class of the work.
        client: API key or peer address; fairness is counted per client.
        request_id: Echoed as ``X-Request-Id`` and written in every log line.
        traceparent: W3C trace context as it came in, or empty.
    """

    deadline: Deadline
    criticality: Criticality = Criticality.STANDARD
    client: str = "local"
    request_id: str = ""
    traceparent: str = ""

    @classmethod
    def background(cls, client: str = "local") -> Context:
        """Return the context of background work: no deadline, lowest class."""
        return cls(Deadline.never(), Criticality.BULK, client, new_id())

    def as_bulk(self) -> Context:
        """Return the same context in the lowest class."""
        return Context(self.deadline, Criticality.BULK, self.client, self.request_id, self.traceparent)

    def within(self, limit_s: float, operation: str, now_s: float) -> Context:
        """Return the same context with the deadline tightened to ``limit_s`` from now."""
        deadline = self.deadline.within(limit_s, operation, now_s)
        if deadline is self.deadline:
            return self
        # Not ``dataclasses.replace``: it takes as long as all the rest of a message's way.
        return Context(deadline, self.criticality, self.client, self.request_id, self.traceparent)
