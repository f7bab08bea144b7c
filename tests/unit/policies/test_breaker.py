"""Circuit breaker: SPEC §5 and the traps of DESIGN §4."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from penstock.kernel.errors import Invalid
from penstock.policies.breaker import (
    BreakerChange,
    BreakerChangeReason,
    BreakerSettings,
    BreakerState,
    CallOutcome,
    CircuitBreaker,
    Ticket,
)

SUCCESS, FAILURE, IGNORED = CallOutcome.SUCCESS, CallOutcome.FAILURE, CallOutcome.IGNORED


def breaker(luck: float = 0.0, **changed: float) -> CircuitBreaker:
    return CircuitBreaker(BreakerSettings(**changed), lambda: luck)  # type: ignore[arg-type]


def admitted(it: CircuitBreaker, now_s: float) -> Ticket:
    ticket = it.admit(now_s).ticket
    assert ticket is not None
    return ticket


def call(it: CircuitBreaker, outcome: CallOutcome, now_s: float) -> BreakerChange | None:
    return it.report(admitted(it, now_s), outcome, now_s)


def opened(it: CircuitBreaker, now_s: float = 0.0) -> CircuitBreaker:
    while it.state is BreakerState.CLOSED:
        call(it, FAILURE, now_s)
    return it


def test_breaker_opens_after_five_failures_in_a_row() -> None:
    it = breaker()
    assert [call(it, FAILURE, 0) for _ in range(4)] == [None] * 4
    assert (int(it.state), it.retry_after_s(0)) == (0, 0.0)
    assert call(it, FAILURE, 0) == BreakerChange(
        BreakerState.CLOSED, BreakerState.OPEN, BreakerChangeReason.CONSECUTIVE_FAILURES
    )
    assert (it.state, int(it.state), it.retry_after_s(10)) == (BreakerState.OPEN, 2, 20.0)
    assert it.admit(29.9).ticket is None
    assert repr(it) == "<CircuitBreaker open epoch 1>"


def test_a_success_breaks_a_row_of_failures() -> None:
    it = breaker()
    for outcome in [FAILURE] * 4 + [SUCCESS] + [FAILURE] * 4:
        assert call(it, outcome, 0) is None


def test_breaker_opens_at_a_failure_rate_where_volume_allows() -> None:
    it = breaker()
    changes = [call(it, outcome, 1.0) for _ in range(10) for outcome in (SUCCESS, FAILURE)]
    assert changes[:-1] == [None] * 19
    assert changes[-1] == BreakerChange(BreakerState.CLOSED, BreakerState.OPEN, BreakerChangeReason.FAILURE_RATE)


def test_failures_older_than_the_window_do_not_count_in_the_rate() -> None:
    it = breaker()
    for second in range(100):
        assert call(it, FAILURE if second % 2 else SUCCESS, second) is None


def test_a_success_never_opens_the_breaker() -> None:
    it = breaker(failures=100, rate_calls_min=3)
    assert [call(it, outcome, 0) for outcome in (FAILURE, FAILURE, SUCCESS)] == [None] * 3


def test_cancellation_is_not_a_failure() -> None:
    it = breaker()
    for _ in range(100):
        assert call(it, IGNORED, 0) is None
    assert it.state is BreakerState.CLOSED


def test_cancellation_is_not_a_success_either() -> None:
    it = breaker()
    for outcome in [FAILURE, IGNORED] * 4:
        call(it, outcome, 0)
    assert call(it, FAILURE, 0) is not None
    assert call(it, IGNORED, 30) is None
    assert it.state is BreakerState.HALF_OPEN


def test_breaker_half_opens_after_its_delay_when_somebody_asks() -> None:
    it = opened(breaker())
    assert int(it.state) == 2
    assert it.retry_after_s(30) == 0.0
    admission = it.admit(30)
    assert admission.ticket is not None
    assert admission.change == BreakerChange(
        BreakerState.OPEN, BreakerState.HALF_OPEN, BreakerChangeReason.OPEN_TIME_OVER
    )
    assert int(it.state) == 1


@pytest.mark.parametrize("probes", [1, 2])
def test_half_open_never_exceeds_its_probe_cap(probes: int) -> None:
    it = opened(breaker(probes=probes))
    tickets = [it.admit(30).ticket for _ in range(100)]
    assert sum(ticket is not None for ticket in tickets) == probes
    assert it.retry_after_s(30) == 1.0
    it.report(tickets[0], SUCCESS, 31)  # type: ignore[arg-type]
    assert it.retry_after_s(31) == 0.0
    assert [it.admit(31).ticket is not None for _ in range(3)] == [True, False, False]


def test_breaker_closes_after_two_successful_probes() -> None:
    it = opened(breaker())
    assert call(it, SUCCESS, 30) is None
    assert call(it, SUCCESS, 30) == BreakerChange(
        BreakerState.HALF_OPEN, BreakerState.CLOSED, BreakerChangeReason.PROBES_SUCCEEDED
    )
    assert call(it, FAILURE, 30) is None


def test_an_ignored_probe_frees_its_place() -> None:
    it = opened(breaker())
    assert call(it, IGNORED, 30) is None
    assert it.admit(30).ticket is not None


def test_a_failed_probe_opens_for_twice_as_long_up_to_a_cap() -> None:
    it, now, waits = opened(breaker()), 0.0, []
    for _ in range(6):
        waits.append(it.retry_after_s(now))
        now += waits[-1]
        change = call(it, FAILURE, now)
        assert change == BreakerChange(BreakerState.HALF_OPEN, BreakerState.OPEN, BreakerChangeReason.PROBE_FAILED)
    assert waits == [30, 60, 120, 240, 300, 300]


def test_the_open_time_is_short_again_once_closed() -> None:
    it = opened(breaker())
    call(it, FAILURE, 30)
    call(it, SUCCESS, 100)
    call(it, SUCCESS, 100)
    opened(it, 100)
    assert it.retry_after_s(100) == 30


def test_the_open_time_is_jittered_and_never_shortened() -> None:
    assert opened(breaker(luck=0.5)).retry_after_s(0) == pytest.approx(33)


def test_a_late_report_after_reopening_does_not_count() -> None:
    it = breaker()
    slow = admitted(it, 0)
    opened(it)
    assert it.report(slow, FAILURE, 1) is None
    first = opened(breaker(probes=2))
    probe, other = admitted(first, 30), admitted(first, 30)
    first.report(probe, FAILURE, 31)
    assert first.report(other, SUCCESS, 32) is None
    assert (first.state, first.retry_after_s(31)) == (BreakerState.OPEN, 60)
    call(first, SUCCESS, 91)
    assert first.report(other, SUCCESS, 91) is None
    assert first.state is BreakerState.HALF_OPEN


def test_a_late_failure_does_not_hurt_a_recovered_breaker() -> None:
    it = breaker(failures=1)
    slow = admitted(it, 0)
    opened(it)
    call(it, SUCCESS, 30)
    call(it, SUCCESS, 30)
    assert it.report(slow, FAILURE, 31) is None
    assert it.state is BreakerState.CLOSED


def test_a_second_report_of_one_call_does_not_count() -> None:
    it = opened(breaker())
    probe = admitted(it, 30)
    assert it.report(probe, SUCCESS, 30) is None
    assert it.report(probe, SUCCESS, 30) is None
    assert it.state is BreakerState.HALF_OPEN


def test_a_probe_that_never_reports_gives_its_place_away() -> None:
    it = opened(breaker())
    lost = admitted(it, 30)
    assert it.admit(89).ticket is None
    assert it.retry_after_s(89.5) == 0.5
    assert call(it, SUCCESS, 90) is None
    assert it.report(lost, FAILURE, 91) is not None, "late for its place, but of this epoch: it counts"


@pytest.mark.parametrize(
    "wrong", [{"failures": 0}, {"timeout_s": 0}, {"timeout_s_max": 1}, {"failure_rate": 0}, {"window_s": float("nan")}]
)
def test_absurd_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(Invalid, match=next(iter(wrong))):
        breaker(**wrong)


class BreakerMachine(RuleBasedStateMachine):
    """Beside the breaker runs a model that knows only the rules: a row, an epoch, places, a jittered open time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.luck = 0.0
        changed = BreakerSettings(failures=3, rate_calls_min=10_000, probes=2, probe_lease_s=40.0)
        self.it = CircuitBreaker(changed, lambda: self.luck)
        self.out: list[tuple[Ticket, int, float]] = []
        self.reported: list[Ticket] = []
        self.epoch = 0
        self.state = BreakerState.CLOSED
        self.row = 0
        self.good = 0
        self.open_s = 30.0
        self.until = 0.0

    def go(self, state: BreakerState) -> None:
        self.state, self.row, self.good = state, 0, 0
        self.epoch += 1
        if state is BreakerState.OPEN:
            self.until = self.now + self.open_s * (1.0 + 0.2 * self.luck)
            assert self.open_s <= self.until - self.now < 1.2 * self.open_s + 1e-9

    def places(self) -> int:
        return 2 - sum(epoch == self.epoch and self.now < until for _, epoch, until in self.out)

    @rule(seconds=st.sampled_from([0.0, 1.0, 10.0, 31.0, 41.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(luck=st.floats(0.0, 1.0, exclude_max=True))
    def change_its_luck(self, luck: float) -> None:
        self.luck = luck

    @rule()
    def ask(self) -> None:
        if self.state is BreakerState.OPEN and self.now >= self.until:
            self.go(BreakerState.HALF_OPEN)
        expected = self.state is BreakerState.CLOSED or (self.state is BreakerState.HALF_OPEN and self.places() > 0)
        ticket = self.it.admit(self.now).ticket
        assert (ticket is not None) == expected
        if ticket is not None:
            self.out.append((ticket, self.epoch, self.now + 40.0))

    @precondition(lambda self: self.out)
    @rule(data=st.data(), outcome=st.sampled_from(CallOutcome))
    def end(self, data: st.DataObject, outcome: CallOutcome) -> None:
        ticket, epoch, _ = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        change = self.it.report(ticket, outcome, self.now)
        self.reported.append(ticket)
        before = self.state
        if epoch == self.epoch and outcome is not IGNORED:
            self.count(failed=outcome is FAILURE)
        assert (change is None) == (before is self.state)

    def count(self, *, failed: bool) -> None:
        if self.state is BreakerState.CLOSED:
            self.row = self.row + 1 if failed else 0
            if self.row == 3:
                self.go(BreakerState.OPEN)
        elif failed:
            self.open_s = min(300.0, self.open_s * 2)
            self.go(BreakerState.OPEN)
        else:
            self.good += 1
            if self.good == 2:
                self.open_s = 30.0
                self.go(BreakerState.CLOSED)

    @precondition(lambda self: self.reported)
    @rule(data=st.data(), outcome=st.sampled_from(CallOutcome))
    def report_again(self, data: st.DataObject, outcome: CallOutcome) -> None:
        assert self.it.report(data.draw(st.sampled_from(self.reported)), outcome, self.now) is None

    @invariant()
    def agrees(self) -> None:
        assert self.it.state is self.state
        if self.state is BreakerState.OPEN:
            assert self.it.retry_after_s(self.now) == pytest.approx(max(0.0, self.until - self.now))
        else:
            assert self.it.retry_after_s(self.now) <= 1.0


TestBreakerMachine = BreakerMachine.TestCase
TestBreakerMachine.settings = settings(max_examples=60, stateful_step_count=40)
