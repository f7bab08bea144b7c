"""Circuit breaker: leaves a sick dependency alone, then feels its way back (SPEC §5).

After Nygard, *Release It!* (2007), with what he leaves open settled so: half-open admits a capped
number of probes at once; every admitted call holds a ticket, and a report counts only in the epoch that
admitted the call; the open time grows while probes fail; cancellation and bad input count as nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from penstock.policies.breaker_states import (
    BreakerSettings,
    Closed,
    HalfOpen,
    Open,
    Outcome,
    Reason,
    State,
    Ticket,
)
from penstock.policies.jitter import Random, later
from penstock.policies.window import CallWindow

__all__ = ["Admission", "Breaker", "BreakerSettings", "Change", "Outcome", "Reason", "State", "Ticket"]


@dataclass(frozen=True, slots=True)
class Change:
    """A change of state, to be logged, counted and alerted."""

    before: State
    after: State
    reason: Reason


@dataclass(frozen=True, slots=True)
class Admission:
    """The answer to a caller.

    Attributes:
        ticket: The right to call, ``None`` when refused.
        change: What asking changed, if anything.
    """

    ticket: Ticket | None
    change: Change | None = None


class Breaker:
    """One dependency's breaker.

    Time alone changes nothing: an open breaker whose time is over turns half-open when the next
    caller asks, and that caller is the first probe.

    Args:
        settings: Its thresholds and times.
        random: For the jitter of the open time, drawn once for each opening.

    Bounds: the window's slots, or ``settings.probes`` leases.
    """

    def __init__(self, settings: BreakerSettings, random: Random) -> None:
        self._settings = settings
        self._random = random
        self._epoch = 0
        self._open_s = settings.timeout_s
        self._state: Closed | Open | HalfOpen = self._closed()

    def __repr__(self) -> str:
        return f"<Breaker {self.state.name.lower().replace('_', '-')} epoch {self._epoch}>"

    @property
    def state(self) -> State:
        """The state as of the last event."""
        return self._state.state

    @property
    def state_code(self) -> int:
        """The value of ``circuit_breaker_state``: 0 closed, 1 half-open, 2 open."""
        return int(self._state.state)

    def retry_after_s(self, now_s: float) -> float:
        """Return the seconds until a call may be admitted, 0 if one may be now; without jitter."""
        return self._state.retry_after_s(now_s)

    def admit(self, now_s: float) -> Admission:
        """Decide whether a call may be made now."""
        state, change = self._state, None
        if isinstance(state, Open):
            if now_s < state.until_s:
                return Admission(None)
            state = HalfOpen(self._settings)
            change = self._move(state, Reason.OPEN_TIME_OVER)
        ticket = Ticket(self._epoch)
        return Admission(ticket if state.admit(ticket, now_s) else None, change)

    def report(self, ticket: Ticket, outcome: Outcome, now_s: float) -> Change | None:
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
        if reason is Reason.PROBES_SUCCEEDED:
            self._open_s = self._settings.timeout_s
            return self._move(self._closed(), reason)
        return self._open(reason, now_s)

    def _open(self, reason: Reason, now_s: float) -> Change:
        if reason is Reason.PROBE_FAILED:
            self._open_s = min(self._open_s * self._settings.growth, self._settings.timeout_s_max)
        return self._move(Open(now_s + later(self._open_s, self._settings.jitter, self._random())), reason)

    def _closed(self) -> Closed:
        return Closed(self._settings, CallWindow(self._settings.window_s))

    def _move(self, state: Closed | Open | HalfOpen, reason: Reason) -> Change:
        before, self._state = self._state.state, state
        self._epoch += 1
        return Change(before, state.state, reason)
