"""The circuit breaker's three states, each with what it alone knows and decides."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import ClassVar

from penstock.policies.bounds import at_least, within
from penstock.policies.window import CallWindow

#: While all probes are out nobody knows how long they take; this is when to ask again at the latest.
PROBE_WAIT_S = 1.0


class State(enum.IntEnum):
    """The states, by the numbers of the metric ``circuit_breaker_state`` (M5)."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class Outcome(enum.Enum):
    """How an admitted call ended."""

    SUCCESS = enum.auto()
    FAILURE = enum.auto()
    #: Cancelled, or the caller's own bad input: says nothing about the dependency.
    IGNORED = enum.auto()


class Reason(enum.StrEnum):
    """Why a breaker changed its state."""

    CONSECUTIVE_FAILURES = "consecutive failures"
    FAILURE_RATE = "failure rate"
    OPEN_TIME_OVER = "open time over"
    PROBE_FAILED = "probe failed"
    PROBES_SUCCEEDED = "probes succeeded"


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    """When to open, for how long, and what closes again; times in seconds on the loop's clock.

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

    state: ClassVar[State] = State.CLOSED
    settings: BreakerSettings
    recent: CallWindow
    in_a_row: int = 0

    def admit(self, _ticket: Ticket, _now_s: float) -> bool:
        """Let every call pass."""
        return True

    def report(self, _ticket: Ticket, outcome: Outcome, now_s: float) -> Reason | None:
        """Count an outcome; return why to open, if so."""
        if outcome is Outcome.IGNORED:
            return None
        failed = outcome is Outcome.FAILURE
        self.recent.add(failed, now_s)
        self.in_a_row = self.in_a_row + 1 if failed else 0
        if self.in_a_row >= self.settings.failures:
            return Reason.CONSECUTIVE_FAILURES
        enough = self.recent.calls >= self.settings.rate_calls_min
        if failed and enough and self.recent.failures >= self.settings.failure_rate * self.recent.calls:
            return Reason.FAILURE_RATE
        return None

    def retry_after_s(self, _now_s: float) -> float:
        """Return 0: nobody waits."""
        return 0.0


@dataclass(slots=True)
class Open:
    """Nothing passes until a moment on the loop's clock."""

    state: ClassVar[State] = State.OPEN
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

    state: ClassVar[State] = State.HALF_OPEN
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

    def report(self, ticket: Ticket, outcome: Outcome, _now_s: float) -> Reason | None:
        """Free the probe's place and count its outcome; return why to leave this state, if so."""
        self.leases.pop(ticket, None)
        if outcome is Outcome.FAILURE:
            return Reason.PROBE_FAILED
        self.successes += outcome is Outcome.SUCCESS
        return Reason.PROBES_SUCCEEDED if self.successes >= self.settings.successes else None

    def retry_after_s(self, now_s: float) -> float:
        """Return 0 if there is a place, else when to look again."""
        if len(self.leases) < self.settings.probes:
            return 0.0
        return max(0.0, min(PROBE_WAIT_S, min(self.leases.values()) - now_s))
