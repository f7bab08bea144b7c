"""Circuit breaker: stops calls to a failing dependency, then probes its recovery (SPEC §5).

After Nygard, *Release It!* (2007), with what he leaves open settled so: half-open admits a capped
number of probes at once; every admitted call holds a ticket, and a report counts only in the epoch that
admitted the call; the open time grows while probes fail; cancellation and bad input count as nothing.
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass, field
from typing import ClassVar

from penstock.policies.bounds import at_least, within
from penstock.policies.jitter import Rng, with_jitter

#: While all probes are out, their duration is unknown. A caller may ask again after this time at the latest.
PROBE_WAIT_S = 1.0


class BreakerState(enum.IntEnum):
    """The states, by the numbers of the metric ``circuit_breaker_state`` (M5)."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class CallOutcome(enum.Enum):
    """Outcome of an admitted call."""

    SUCCESS = enum.auto()
    FAILURE = enum.auto()
    #: Cancelled, or the caller's own bad input: says nothing about the dependency.
    IGNORED = enum.auto()


class BreakerChangeReason(enum.StrEnum):
    """Reason for a breaker's change of state."""

    CONSECUTIVE_FAILURES = "consecutive failures"
    FAILURE_RATE = "failure rate"
    OPEN_TIME_OVER = "open time over"
    PROBE_FAILED = "probe failed"
    PROBES_SUCCEEDED = "probes succeeded"


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    """Thresholds and times of a circuit breaker; times in seconds on the loop's clock.

    Attributes:
        failures: Failures in a row that open it.
        failure_rate: Share of failed calls in the window that opens it.
        rate_calls_min: Calls in the window below which the rate says nothing.
        window_s: Length of that window.
        timeout_s: How long it stays open the first time.
        timeout_s_max: How long at most, before jitter.
        growth: Factor on the open time after each failed probe.
        jitter: Share of the open time that chance may add.
        probes: Calls at once while half-open.
        probe_lease_s: A probe that has not reported by then gives its place away.
        successes: Successful probes that close it.
    """

    failures: int = 5
    failure_rate: float = 0.5
    rate_calls_min: int = 20
    window_s: float = 10.0
    timeout_s: float = 30.0
    timeout_s_max: float = 300.0
    growth: float = 2.0
    jitter: float = 0.2
    probes: int = 1
    probe_lease_s: float = 60.0
    successes: int = 2

    def __post_init__(self) -> None:
        at_least(self, 1, "failures", "rate_calls_min", "growth", "probes", "successes")
        at_least(self, 0.001, "window_s", "timeout_s", "probe_lease_s")
        at_least(self, self.timeout_s, "timeout_s_max")
        at_least(self, 0.0, "jitter")
        within(self, 0.001, 1.0, "failure_rate")


@dataclass(slots=True, eq=False)
class Ticket:
    """The right to one call; its holder reports exactly once. A second report is ignored."""

    epoch: int
    reported: bool = False


@dataclass(slots=True)
class Closed:
    """Calls pass and are counted.

    Bounds: a counter and the window's slots.
    """

    state: ClassVar[BreakerState] = BreakerState.CLOSED
    settings: BreakerSettings
    recent: CallWindow
    consecutive_failures: int = 0

    def admit(self, _ticket: Ticket, _now_s: float) -> bool:
        """Let every call pass."""
        return True

    def report(self, _ticket: Ticket, outcome: CallOutcome, now_s: float) -> BreakerChangeReason | None:
        """Count an outcome; return why to open, if so."""
        if outcome is CallOutcome.IGNORED:
            return None
        failed = outcome is CallOutcome.FAILURE
        self.recent.add(failed, now_s)
        self.consecutive_failures = self.consecutive_failures + 1 if failed else 0
        if self.consecutive_failures >= self.settings.failures:
            return BreakerChangeReason.CONSECUTIVE_FAILURES
        enough = self.recent.calls >= self.settings.rate_calls_min
        # Only a failure may open: a success that completes the least number of calls must not.
        if failed and enough and self.recent.failures >= self.settings.failure_rate * self.recent.calls:
            return BreakerChangeReason.FAILURE_RATE
        return None

    def retry_after_s(self, _now_s: float) -> float:
        """Return 0: every call is admitted."""
        return 0.0


@dataclass(slots=True)
class Open:
    """Nothing passes until a moment on the loop's clock."""

    state: ClassVar[BreakerState] = BreakerState.OPEN
    until_s: float

    def retry_after_s(self, now_s: float) -> float:
        """Return the rest of the open time."""
        return max(0.0, self.until_s - now_s)


@dataclass(slots=True)
class HalfOpen:
    """A few probes at once; each holds its place until it reports or its lease ends.

    The lease concerns the place only: a probe that reports after it has still told something about
    the dependency as it is now, and counts.

    Bounds: ``settings.probes`` leases.
    """

    state: ClassVar[BreakerState] = BreakerState.HALF_OPEN
    settings: BreakerSettings
    successes: int = 0
    leases: dict[Ticket, float] = field(default_factory=dict)

    def admit(self, ticket: Ticket, now_s: float) -> bool:
        """Let a probe pass if there is a place for it."""
        for held in [held for held, until_s in self.leases.items() if until_s <= now_s]:
            del self.leases[held]
        if len(self.leases) >= self.settings.probes:
            return False
        self.leases[ticket] = now_s + self.settings.probe_lease_s
        return True

    def report(self, ticket: Ticket, outcome: CallOutcome, _now_s: float) -> BreakerChangeReason | None:
        """Free the probe's place and count its outcome; return why to leave this state, if so."""
        self.leases.pop(ticket, None)
        if outcome is CallOutcome.FAILURE:
            return BreakerChangeReason.PROBE_FAILED
        self.successes += outcome is CallOutcome.SUCCESS
        return BreakerChangeReason.PROBES_SUCCEEDED if self.successes >= self.settings.successes else None

    def retry_after_s(self, now_s: float) -> float:
        """Return 0 if there is a place, else when to look again."""
        if len(self.leases) < self.settings.probes:
            return 0.0
        return max(0.0, min(PROBE_WAIT_S, min(self.leases.values()) - now_s))


class CallWindow:
    """Counts calls and failures of the last ``window_s`` seconds, in slots.

    What is counted reaches back between ``window_s - window_s / slots`` and ``window_s``.
    A clock that stands still or goes back writes into the latest slot.

    Args:
        window_s: Length of the window, on the loop's clock.
        slots: How many slots it is cut into.

    Bounds: ``slots`` triples of integers.

    Attributes:
        calls: Calls in the window, as of the last ``add``.
        failures: Failed ones among them.
    """

    __slots__ = ("_counts", "_slot_s", "_slots", "calls", "failures")

    def __init__(self, window_s: float, slots: int = 10) -> None:
        self._slot_s = window_s / slots
        self._slots = slots
        self._counts: deque[list[int]] = deque()
        self.calls = 0
        self.failures = 0

    def add(self, failed: bool, now_s: float) -> None:  # noqa: FBT001 - the one thing that is told
        """Count one call that ended now."""
        slot = self._advance(int(now_s // self._slot_s))
        tally = self._counts[-1] if self._counts else None
        if tally is None or tally[0] != slot:
            tally = [slot, 0, 0]
            self._counts.append(tally)
        tally[1] += 1
        tally[2] += failed
        self.calls += 1
        self.failures += failed

    def _advance(self, slot: int) -> int:
        """Forget the slots that have left the window; return the slot to write into."""
        if self._counts:
            slot = max(slot, self._counts[-1][0])
        while self._counts and self._counts[0][0] <= slot - self._slots:
            _, calls, failures = self._counts.popleft()
            self.calls -= calls
            self.failures -= failures
        return slot


@dataclass(frozen=True, slots=True)
class BreakerChange:
    """A change of state, to be logged, counted and alerted."""

    before: BreakerState
    after: BreakerState
    reason: BreakerChangeReason


@dataclass(frozen=True, slots=True)
class BreakerAdmission:
    """Answer to a caller: a ticket for the call, or a refusal.

    Attributes:
        ticket: The right to call, ``None`` when refused.
        change: Change of state caused by asking, if any.
    """

    ticket: Ticket | None
    change: BreakerChange | None = None


class CircuitBreaker:
    """Circuit breaker of one dependency.

    Time alone changes nothing: an open breaker whose time is over turns half-open when the next
    caller asks, and that caller is the first probe.

    Args:
        settings: Its thresholds and times.
        rng: For the jitter of the open time, drawn once for each opening.

    Bounds: the window's slots, or ``settings.probes`` leases.
    """

    def __init__(self, settings: BreakerSettings, rng: Rng) -> None:
        self._settings = settings
        self._rng = rng
        self._epoch = 0
        self._open_s = settings.timeout_s
        self._state: Closed | Open | HalfOpen = self._closed()

    def __repr__(self) -> str:
        return f"<CircuitBreaker {self.state.name.lower().replace('_', '-')} epoch {self._epoch}>"

    @property
    def state(self) -> BreakerState:
        """The state as of the last event."""
        return self._state.state

    def retry_after_s(self, now_s: float) -> float:
        """Return the seconds until a call may be admitted, 0 if one may be now; without jitter."""
        return self._state.retry_after_s(now_s)

    def admit(self, now_s: float) -> BreakerAdmission:
        """Decide whether a call may be made now."""
        state, change = self._state, None
        if isinstance(state, Open):
            if now_s < state.until_s:
                return BreakerAdmission(None)
            state = HalfOpen(self._settings)
            change = self._move(state, BreakerChangeReason.OPEN_TIME_OVER)
        ticket = Ticket(self._epoch)
        return BreakerAdmission(ticket if state.admit(ticket, now_s) else None, change)

    def report(self, ticket: Ticket, outcome: CallOutcome, now_s: float) -> BreakerChange | None:
        """Take in how an admitted call ended.

        Nothing counts twice, and nothing counts that was admitted in an earlier epoch: a call that
        began before the breaker opened says nothing about the dependency after it.
        """
        late = ticket.reported or ticket.epoch != self._epoch
        ticket.reported = True
        if late or isinstance(self._state, Open):
            return None
        reason = self._state.report(ticket, outcome, now_s)
        if reason is None:
            return None
        if reason is BreakerChangeReason.PROBES_SUCCEEDED:
            self._open_s = self._settings.timeout_s
            return self._move(self._closed(), reason)
        return self._open(reason, now_s)

    def _open(self, reason: BreakerChangeReason, now_s: float) -> BreakerChange:
        if reason is BreakerChangeReason.PROBE_FAILED:
            self._open_s = min(self._open_s * self._settings.growth, self._settings.timeout_s_max)
        return self._move(Open(now_s + with_jitter(self._open_s, self._settings.jitter, self._rng())), reason)

    def _closed(self) -> Closed:
        return Closed(self._settings, CallWindow(self._settings.window_s))

    def _move(self, state: Closed | Open | HalfOpen, reason: BreakerChangeReason) -> BreakerChange:
        before, self._state = self._state.state, state
        self._epoch += 1
        return BreakerChange(before, state.state, reason)
