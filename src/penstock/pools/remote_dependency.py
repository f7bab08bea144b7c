"""Remote dependencies: a guard, an adaptive limit and a retry budget around each call."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from penstock.kernel.context import Clock, Context, enforce_deadline
from penstock.kernel.errors import Rejected, Unavailable
from penstock.policies.breaker import BreakerState, CallOutcome
from penstock.policies.jitter import Rng
from penstock.policies.limit import AdaptiveLimit, LimitSettings
from penstock.policies.retry import RetryBudget, RetrySettings, backoff_s
from penstock.pools.guard import HEALTHY_CODES, CircuitOpen, Guard

log = logging.getLogger(__name__)

M = TypeVar("M")
T = TypeVar("T")

#: Retries of one call at most, whatever the budget holds.
RETRIES_MAX: Final = 2
#: When those refused for want of a place may try again, while nothing is known of the dependency's latency.
RETRY_AFTER_S: Final = 1.0
#: How long a dependency is left alone at most because it asked for it: its clock or its unit may be wrong.
PAUSE_S_MAX: Final = 30.0
#: Code of the ``Rejected`` by which a dependency says when it may be asked again. Until then it is asked nothing: a
#: limit on concurrency cannot hold a caller back that is refused a hundred times a second.
PAUSE_CODE: Final = "dependency_limited"


@dataclass(slots=True)
class CallCounters:
    """Counts of the calls so far, by outcome.

    Attributes:
        calls: First tries, refused ones included.
        retries: Tries after the first.
        refused: Tries refused here: the limit was reached, or the dependency had asked for a pause.
        left_alone: Tries refused here: the breaker was open.
        dropped: Tries that the dependency refused, failed, or let time out.
    """

    calls: int = 0
    retries: int = 0
    refused: int = 0
    left_alone: int = 0
    dropped: int = 0


def never_congested() -> bool:
    """Report a queue that is not congested."""
    return False


def ignore_limit(_limit: int) -> None:
    """Ignore a new limit."""


class RemoteDependency:
    """Calls to one remote dependency.

    From the outside in: the retries, the limit, the guard, the context's deadline, the call.

    Above the limit a call is refused at once: nothing waits outside a topic. A pool that serves a topic by it has no
    more permits than the limit (``on_limit``). Then messages wait in their topic instead of being refused. Each
    operation's latency is learnt for itself, and all share the limit.

    Args:
        guard: The dependency's breaker.
        clock: The loop's clock.
        limits: Parameters of the adaptive limit.
        retries: How much may be retried.
        random: For the jitter of the pauses.

    Bounds: the limit's ceiling of calls at once; ``RETRIES_MAX`` retries of each call, and of all together what
        the budget allows.

    Attributes:
        counts: Counts of the calls so far, by outcome.
        in_flight: Calls that are out.
        on_limit: Called with each new limit.
    """

    def __init__(
        self, guard: Guard, clock: Clock, *, limits: LimitSettings, retries: RetrySettings, random: Rng
    ) -> None:
        self.counts = CallCounters()
        self.in_flight = 0
        self.on_limit: Callable[[int], None] = ignore_limit
        self._guard = guard
        self._clock = clock
        self._limit = AdaptiveLimit(limits)
        self._retries = retries
        self._budget = RetryBudget(retries)
        self._random = random
        self._paused_until_s = 0.0

    def __repr__(self) -> str:
        state = self._guard.state.name.lower()
        return f"<RemoteDependency {self._guard.dependency} {self.in_flight}/{self.limit} out, {state}>"

    @property
    def limit(self) -> int:
        """Calls that may be out at once, now."""
        return self._limit.limit

    def handler(
        self,
        operation: Callable[[M], str],
        handler: Callable[[M, Context], Awaitable[T]],
        congested: Callable[[], bool] = never_congested,
    ) -> Callable[[M, Context], Awaitable[T]]:
        """Return a bus handler that calls the dependency through this, as :meth:`penstock.pools.guard.Guard.handler`.

        Args:
            operation: Names a message's operation.
            handler: Asks for it; harmless to repeat.
            congested: Whether the topic that the messages come from is congested.
        """

        async def asking(message: M, ctx: Context) -> T:
            return await self.call(operation(message), lambda: handler(message, ctx), ctx, congested=congested)

        return asking

    async def call(
        self,
        operation: str,
        make: Callable[[], Awaitable[T]],
        ctx: Context,
        *,
        idempotent: bool = True,
        congested: Callable[[], bool] = never_congested,
    ) -> T:
        """Make a call, and retry it after a transient failure.

        A retry needs all of these: ``Unavailable`` (an error that says that nothing answered), an idempotent
        operation, a breaker that is closed, a queue that is not congested, a pause that ends before the
        deadline, and a budget. While it pauses it takes up no place under the limit.

        Args:
            operation: Name of the operation.
            make: Makes the call; called again for each try.
            ctx: The caller's context; no try outlasts its deadline.
            idempotent: Whether doing it twice does no harm.
            congested: Whether the call's own queue is congested.

        Raises:
            Rejected: The limit is reached, or the dependency has asked for a pause (``dependency_busy``).
            CircuitOpen: The breaker is open.
            Expired: The deadline passed.
            PenstockError: Whatever the last try raised.

        Cancellation: The call is cancelled with it; its place is free.
        """
        self.counts.calls += 1
        self._budget.earn()
        for attempt in range(RETRIES_MAX):
            try:
                return await self._try(operation, make, ctx)
            except Unavailable as error:
                pause_s = backoff_s(attempt, self._random(), self._retries)
                if not (idempotent and self._may_retry(error, pause_s, ctx, congested)):
                    raise
            await asyncio.sleep(pause_s)
            self.counts.retries += 1
        return await self._try(operation, make, ctx)

    def _may_retry(self, error: Unavailable, pause_s: float, ctx: Context, congested: Callable[[], bool]) -> bool:
        now_s = self._clock.now()
        return (
            error.code not in HEALTHY_CODES
            and self._guard.state is BreakerState.CLOSED
            and not ctx.deadline.passed(now_s + pause_s)
            and self._budget.spend(now_s, congested=congested())
        )

    async def _try(self, operation: str, make: Callable[[], Awaitable[T]], ctx: Context) -> T:
        """Make one call, if there is a place for it, and learn from how it ends."""
        self._check_limit()

        async def bounded() -> T:
            async with enforce_deadline(ctx.deadline):
                return await make()

        self.in_flight += 1
        began_s = self._clock.now()
        try:
            result = await self._guard.call(operation, bounded)
        except BaseException as error:
            self._failed(operation, error, began_s)
            raise
        else:
            self._observe(operation, began_s, dropped=False)
        finally:
            self.in_flight -= 1
        return result

    def _check_limit(self) -> None:
        """Refuse a call for which there is no place.

        Raises:
            Rejected: The limit is reached, or the dependency has asked for a pause.
        """
        dependency, pause_s = self._guard.dependency, self._paused_until_s - self._clock.now()
        if pause_s > 0.0:
            detail, retry_after_s = f"{dependency} has asked to be left alone for a while", pause_s
        elif self.in_flight >= self._limit.limit:
            detail = f"{dependency} is busy with as many calls as it can take"
            retry_after_s = self._limit.baseline_s or RETRY_AFTER_S
        else:
            return
        self.counts.refused += 1
        raise Rejected(detail, code="dependency_busy", retry_after_s=retry_after_s)

    def _failed(self, operation: str, error: BaseException, began_s: float) -> None:
        """Learn from an error; one that says nothing of the load is not even a sample."""
        if isinstance(error, CircuitOpen):
            self.counts.left_alone += 1
            return
        now_s = self._clock.now()
        if isinstance(error, Rejected) and error.code == PAUSE_CODE:
            self._paused_until_s = max(self._paused_until_s, now_s + min(error.retry_after_s, PAUSE_S_MAX))
        took_s = now_s - began_s
        if isinstance(error, Rejected) or self._guard.classify(operation, error, took_s) is CallOutcome.FAILURE:
            self.counts.dropped += 1
            self._observe(operation, began_s, dropped=True)

    def _observe(self, operation: str, began_s: float, *, dropped: bool) -> None:
        now_s = self._clock.now()
        change = self._limit.observe(now_s - began_s, self.in_flight, now_s, dropped=dropped, kind=operation)
        if change is not None:
            dependency = self._guard.dependency
            log.debug("limit of %s: %d to %d, %s", dependency, change.before, change.after, change.reason)
            self.on_limit(change.after)
