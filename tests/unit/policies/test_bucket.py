"""Token bucket and rate limiter (SPEC D7)."""

from __future__ import annotations

import pytest
from hypothesis import assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from penstock.kernel.errors import Invalid
from penstock.policies.bucket import RateDecision, RateLimiter, RateSettings, TokenBucket


def limiter(rate: float = 10.0, burst: float = 5.0, clients_max: int = 100) -> RateLimiter:
    return RateLimiter(RateSettings(rate, burst, clients_max))


def test_a_burst_passes_and_then_the_rate() -> None:
    it = limiter()
    assert sum(it.decide("a", 0.0).allowed for _ in range(100)) == 5
    assert [it.decide("a", 0.1).allowed for _ in range(2)] == [True, False]


def test_a_refusal_says_when_to_come_back_and_keeps_its_word() -> None:
    it = limiter(rate=3.0)
    now = 1e6 + 0.1
    while (decision := it.decide("a", now)).allowed:
        pass
    assert decision == RateDecision(
        allowed=False, remaining=0, retry_after_s=pytest.approx(1 / 3), reset_s=pytest.approx(5 / 3)
    )
    assert it.decide("a", now + decision.retry_after_s).allowed


def test_a_decision_has_what_the_headers_need() -> None:
    it = limiter(rate=100.0, burst=200.0)
    assert (it.quota, it.window_s) == (200, 2)
    decision = it.decide("a", 0.0)
    assert decision == RateDecision(allowed=True, remaining=199, retry_after_s=0.0, reset_s=pytest.approx(0.01))


def test_a_refused_request_costs_nothing() -> None:
    it = limiter()
    first = [it.decide("a", 0.0) for _ in range(6)][-1]
    assert it.decide("a", 0.0) == first


def test_a_clock_that_stands_still_or_goes_back_lends_nothing() -> None:
    bucket = TokenBucket(10.0, 5.0)
    assert sum(bucket.take(7.0) for _ in range(50)) == 5
    assert not bucket.take(6.0)
    assert bucket.take(7.1)


def test_a_cost_above_the_burst_passes_when_full_and_leaves_a_debt() -> None:
    bucket = TokenBucket(10.0, 5.0)
    assert bucket.take(0.0, 20.0)
    assert bucket.level(0.0) == pytest.approx(-15.0)
    assert bucket.wait_s(0.0) == pytest.approx(1.6)
    assert not bucket.take(1.5)
    assert bucket.take(1.6)


def test_a_cost_of_nothing_only_looks() -> None:
    it = limiter()
    assert it.decide("a", 0.0, 0.0).remaining == 5
    assert it.decide("a", 0.0).remaining == 4


def test_rate_zero_switches_the_limit_off() -> None:
    it = limiter(rate=0.0)
    assert not it.enabled
    assert all(it.decide("a", 0.0).allowed for _ in range(1000))
    assert (len(it), it.window_s) == (0, 0)


def test_one_client_does_not_spend_anothers_tokens() -> None:
    it = limiter()
    while it.decide("hog", 0.0).allowed:
        pass
    assert it.decide("small", 0.0).remaining == 4


def test_full_buckets_are_forgotten_and_others_are_not() -> None:
    it = limiter(clients_max=10)
    for client in range(10):
        it.decide(str(client), 0.0)
    while it.decide("0", 0.0).allowed:
        pass
    for client in range(10, 19):
        assert it.decide(str(client), 0.2).allowed
    assert len(it) <= 10
    assert not it.decide("0", 0.0).allowed
    assert repr(it) == "<RateLimiter 10/s burst 5, 10 clients>"


def test_rotating_keys_gain_nothing_once_all_places_are_taken() -> None:
    it = limiter(clients_max=10)
    passed = sum(it.decide(f"key {n}", 0.0).allowed for n in range(1000))
    assert passed == 10 + 5, "one each for those with a place, one shared burst for the rest"
    assert len(it) == 10


@pytest.mark.parametrize("wrong", [{"rate": -1}, {"burst": 0}, {"clients_max": 0}])
def test_absurd_settings_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(Invalid):
        RateSettings(**wrong)


class LimiterMachine(RuleBasedStateMachine):
    """Beside the limiter runs the plain bucket: a level that grows with time. Two places, six clients."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.it = limiter(rate=2.0, burst=4.0, clients_max=2)
        self.levels: dict[str, float] = {}
        self.passed: list[tuple[float, str, int]] = []

    @rule(quarters=st.integers(0, 12))
    def wait(self, quarters: int) -> None:
        self.now += quarters / 4
        for client, level in self.levels.items():
            self.levels[client] = min(4.0, level + quarters / 2)

    @rule(client=st.sampled_from("abcdef"), cost=st.integers(1, 4))
    def ask(self, client: str, cost: int) -> None:
        shared = client not in self.it._buckets
        decision = self.it.decide(client, self.now, cost)
        key = "shared" if shared and client not in self.it._buckets else client
        level = self.levels.get(key, 4.0)
        assert decision.allowed == (level >= cost)
        assert decision.retry_after_s == pytest.approx(max(0.0, (cost - level) / 2.0))
        self.levels[key] = level - cost if decision.allowed else level
        assert decision.remaining == int(self.levels[key])
        assert decision.reset_s == pytest.approx((4.0 - self.levels[key]) / 2.0)
        if decision.allowed:
            self.passed.append((self.now, client, cost))

    @rule(client=st.sampled_from("abcdef"), since=st.integers(0, 40))
    def bound(self, client: str, since: int) -> None:
        assume(since <= self.now)
        spent = sum(cost for at, who, cost in self.passed if who == client and at >= since)
        # Own bucket and the shared one: a client may pass through both while places are short.
        assert spent <= 2 * (4.0 + 2.0 * (self.now - since))

    @invariant()
    def bounded(self) -> None:
        assert len(self.it) <= 2


TestLimiterMachine = LimiterMachine.TestCase
TestLimiterMachine.settings = settings(max_examples=60, stateful_step_count=40)


class BucketMachine(RuleBasedStateMachine):
    """One bucket, any costs, any pauses, a clock that may stumble: held against every window there was."""

    RATE, BURST = 3.0, 5.0

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.it = TokenBucket(self.RATE, self.BURST)
        self.passed: list[tuple[float, float]] = []

    @rule(seconds=st.floats(0.0, 5.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(cost=st.floats(0.01, 5.0))
    def take(self, cost: float) -> None:
        wait_s = self.it.wait_s(self.now, cost)
        assert self.it.take(self.now, cost) == (wait_s == 0.0)
        if wait_s == 0.0:
            self.passed.append((self.now, cost))

    @rule(cost=st.floats(0.01, 5.0))
    def come_back_as_told(self, cost: float) -> None:
        wait_s = self.it.wait_s(self.now, cost)
        assert wait_s <= self.BURST / self.RATE + 1e-9
        self.now += wait_s
        assert self.it.take(self.now, cost), "who waited as long as it was told may pass"
        self.passed.append((self.now, cost))

    @rule(back_s=st.floats(0.0, 2.0))
    def stumble(self, back_s: float) -> None:
        level = self.it.level(self.now)
        assert self.it.level(self.now - back_s) <= level + 1e-9, "a clock that goes back lends nothing"

    @invariant()
    def no_window_is_over_its_allowance(self) -> None:
        spent = 0.0
        for at_s, cost in reversed(self.passed):
            spent += cost
            assert spent <= self.BURST + self.RATE * (self.now - at_s) + 0.001 * len(self.passed)

    @invariant()
    def level_within_bounds(self) -> None:
        assert -1e-3 <= self.it.level(self.now) <= self.BURST


TestBucketMachine = BucketMachine.TestCase
TestBucketMachine.settings = settings(max_examples=60, stateful_step_count=40)
