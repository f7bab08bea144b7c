"""Guards: asynchronous shells around a circuit breaker, one for each dependency (SPEC §5)."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from penstock.kernel.context import Clock, Context
from penstock.kernel.errors import Broken, Expired, Unavailable
from penstock.kernel.settings import GuardSettings
from penstock.policies import breaker
from penstock.policies.breaker import BreakerChange, BreakerState, CallOutcome, CircuitBreaker
from penstock.policies.estimate import Estimates, EstimateSettings
from penstock.policies.jitter import Rng
from penstock.stores.contract import OPERATOR_FIXABLE_CODES

log = logging.getLogger(__name__)

M = TypeVar("M")
T = TypeVar("T")

#: How many times the first open time the open time may become while probes fail.
TIMEOUT_GROWTH_MAX: Final = 10

#: So many times as long as nine of ten successful calls take: then a call without an answer counts as hanging.
PATIENCE_FACTOR: Final = 10.0
#: The least patience, however quick the dependency is: a pause of this process or of a busy machine is no hang.
PATIENCE_S_MIN: Final = 0.25
#: Operations whose duration is learnt each for itself; those beyond share one estimate.
OPERATIONS_MAX: Final = 32

#: ``Unavailable`` that tells nothing of the dependency's health: it answered, or was not asked.
#: A full disk stops writing only; were it a failure, it would stop the searches too.
HEALTHY_CODES: Final = (
    frozenset({"circuit_open", "write_conflict", "disk_full", "store_out_of_resources"}) | OPERATOR_FIXABLE_CODES
)

#: The errors by which a dependency says that it cannot do its work.
AT_FAULT: Final = (Unavailable, Broken, OSError)


class CircuitOpen(Unavailable):
    """The dependency was not asked: its breaker is open.

    Attributes:
        retry_after_s: When it may be asked again, in seconds from now.
    """

    code = "circuit_open"

    def __init__(self, dependency: str, retry_after_s: float) -> None:
        detail = f"{dependency} has failed repeatedly and is left alone; try again in {math.ceil(retry_after_s)} s"
        super().__init__(detail, dependency=dependency)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class GuardStateChange:
    """A guard's change of state, for metrics and alerts."""

    dependency: str
    before: BreakerState
    after: BreakerState
    reason: str


class Guard:
    """Guard of one dependency: lets calls through, or refuses them at once while the breaker is open.

    The end of a call counts as follows:

    - an answer is a success;
    - ``Unavailable``, ``Broken`` with a code of its own, and errors of the operating system (``OSError``) are
      failures: the dependency is away, or says that it cannot do its work (:data:`AT_FAULT`);
    - ``Expired`` and a cancellation are failures if the call had been out longer than the patience with its
      operation (:meth:`patience_s`), and the dependency has answered no other call since this one began. A caller in
      a hurry or gone proves nothing, and a deadline is the client's to choose. But a dependency that hangs must not
      go unnoticed because its callers are always the first to give up;
    - all else counts as nothing: ``Invalid`` and ``Rejected`` (the request was wrong, or there was too much of it),
      the codes in ``HEALTHY_CODES``, and errors of no family, which are bugs of ours that one request has found.
      Were they failures, one client's input would close the dependency to all.

    It stands at the dependency, behind the topic: time spent waiting in a topic is no fault of the dependency's. A
    call that has to be waited for even when cancelled (one in a thread) is reported when it has ended.

    Args:
        dependency: Its name in errors, logs and metrics.
        settings: When the breaker opens, for how long, and what closes it.
        clock: The loop's clock.
        patience_s: The longest patience, and the one with operations not known yet. At most the operation's
            full limit; less where callers have less time than that (half of it is a good choice).
        random: For the jitter of the open time.

    Attributes:
        dependency: Its name.
        on_state_change: Called at each change of state; may be set once the metrics are there.

    Bounds: those of the breaker, and ``OPERATIONS_MAX`` estimates; nothing waits here.
    """

    def __init__(
        self,
        dependency: str,
        settings: GuardSettings,
        clock: Clock,
        *,
        patience_s: float,
        random: Rng,
    ) -> None:
        self.dependency = dependency
        self.on_state_change: Callable[[GuardStateChange], None] = lambda _: None
        self._settings = breaker.BreakerSettings(
            failures=settings.failures,
            timeout_s=settings.timeout,
            timeout_s_max=settings.timeout * TIMEOUT_GROWTH_MAX,
            successes=settings.successes,
        )
        self._clock = clock
        self._patience_s = patience_s
        self._patience_s_min = min(PATIENCE_S_MIN, patience_s)
        self._random = random
        self._breaker = CircuitBreaker(self._settings, random)
        self._durations = _durations()
        self._answered_s = -math.inf

    def __repr__(self) -> str:
        return f"<Guard {self.dependency} {self._breaker.state.name.lower()}>"

    @property
    def state(self) -> BreakerState:
        """The breaker's state as of the last call; its number is the value of ``circuit_breaker_state``."""
        return self._breaker.state

    def retry_after_s(self) -> float:
        """Return the seconds until a call may be admitted, 0 if one may be now."""
        return self._breaker.retry_after_s(self._clock.now())

    def patience_s(self, operation: str) -> float:
        """Return the seconds after which a call without an answer counts as hanging.

        ``clamp(PATIENCE_FACTOR × p90, PATIENCE_S_MIN, patience_s)`` of the operation's successful calls; until there
        are enough of them, ``patience_s``. So a dependency that answers in 5 ms and then hangs is found out by
        callers with half a second, and one that always takes its time is not suspected.
        """
        duration = self._durations.of(operation)
        if not duration.ready:
            return self._patience_s
        return min(self._patience_s, max(self._patience_s_min, PATIENCE_FACTOR * duration.p90_s))

    def handler(
        self, operation: str, handler: Callable[[M, Context], Awaitable[T]]
    ) -> Callable[[M, Context], Awaitable[T]]:
        """Return a bus handler that asks the dependency through this guard.

        It stands behind the topic: the time a message waits there never counts against the dependency.
        """

        async def guarded(message: M, ctx: Context) -> T:
            return await self.call(operation, lambda: handler(message, ctx))

        return guarded

    async def call(self, operation: str, make: Callable[[], Awaitable[T]]) -> T:
        """Make the call and report how it ended, exactly once, whatever ends it.

        Args:
            operation: Name of the operation; durations are learnt for each.
            make: Makes the call; not even called while the breaker is open.

        Raises:
            CircuitOpen: The breaker is open.

        Cancellation: The call is cancelled with it; the breaker has been told.
        """
        judge = self._breaker  # the one that admits the call hears of its end, even after ``renew``
        began_s = self._clock.now()
        admission = judge.admit(began_s)
        if admission.ticket is None:
            raise CircuitOpen(self.dependency, judge.retry_after_s(began_s))
        try:
            self._report_change(judge, admission.change)
            result = await make()
        except BaseException as error:
            now_s = self._clock.now()
            outcome = self.classify(operation, error, now_s - began_s)
            if _timed_out(error) and self._answered_s > began_s:
                # Others were answered in between: it is slow for this caller, and not away.
                outcome = CallOutcome.IGNORED
            if outcome is CallOutcome.FAILURE:
                log.debug("%s: %s failed: %r", self.dependency, operation, error)
            self._report_change(judge, judge.report(admission.ticket, outcome, now_s))
            raise
        now_s = self._answered_s = self._clock.now()
        self._durations.of(operation).observe(now_s - began_s)
        self._report_change(judge, judge.report(admission.ticket, CallOutcome.SUCCESS, now_s))
        return result

    def reset(self) -> None:
        """Forget the dependency's failures and durations after its restart.

        Without this a store process that was killed and is back within a second would be left alone for
        the rest of the open time.
        """
        before = self._breaker.state
        self._breaker = CircuitBreaker(self._settings, self._random)
        self._durations = _durations()
        if before is not BreakerState.CLOSED:
            self._notify(GuardStateChange(self.dependency, before, BreakerState.CLOSED, "started anew"))

    def classify(self, operation: str, error: BaseException, took_s: float) -> CallOutcome:
        """Return what a call's end with ``error`` after ``took_s`` seconds says of the dependency."""
        if _timed_out(error):
            return CallOutcome.FAILURE if took_s >= self.patience_s(operation) else CallOutcome.IGNORED
        if not isinstance(error, AT_FAULT):
            return CallOutcome.IGNORED
        if isinstance(error, Unavailable):
            return CallOutcome.IGNORED if error.code in HEALTHY_CODES else CallOutcome.FAILURE
        bug = isinstance(error, Broken) and error.code == Broken.code
        return CallOutcome.IGNORED if bug else CallOutcome.FAILURE

    def _report_change(self, judge: CircuitBreaker, change: BreakerChange | None) -> None:
        if change is not None and judge is self._breaker:
            self._notify(GuardStateChange(self.dependency, change.before, change.after, str(change.reason)))

    def _notify(self, turn: GuardStateChange) -> None:
        level = logging.WARNING if turn.after is BreakerState.OPEN else logging.INFO
        after = turn.after.name.lower().replace("_", "-")
        log.log(level, "breaker %s is %s: %s", turn.dependency, after, turn.reason)
        self.on_state_change(turn)


def _timed_out(error: BaseException) -> bool:
    return isinstance(error, asyncio.CancelledError | Expired)


def _durations() -> Estimates:
    return Estimates(EstimateSettings(), OPERATIONS_MAX)
