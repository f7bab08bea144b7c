"""Permits: never more than allowed, none leaked, nobody starved."""

from __future__ import annotations

from collections import Counter, deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from penstock.kernel.errors import Invalid
from penstock.pools.permits import Budget, Permits


class Pool:
    """A topic as permits see it: messages wait, a pump starts as many as it may."""

    def __init__(self, permits: Permits) -> None:
        self.permits = permits
        self.waiting = 0
        self.running = 0
        self.served = 0
        permits.on_free(self.pump)

    def arrive(self) -> None:
        self.waiting += 1
        self.pump()

    def pump(self) -> None:
        while self.waiting and self.permits.try_acquire():
            self.waiting -= 1
            self.running += 1

    def end(self) -> None:
        self.running -= 1
        self.served += 1
        self.permits.release()


def test_a_pool_never_exceeds_its_limit() -> None:
    permits = Permits("search", 2)
    assert [permits.try_acquire() for _ in range(3)] == [True, True, False]
    permits.release()
    assert permits.try_acquire()
    assert repr(permits) == "<Permits search 2/2>"


def test_pools_borrow_from_one_budget() -> None:
    budget = Budget(3)
    embed, sparse = Permits("embed", 2, budget), Permits("sparse", 2, budget)
    assert [embed.try_acquire() for _ in range(3)] == [True, True, False]
    assert [sparse.try_acquire() for _ in range(2)] == [True, False]
    embed.release()
    assert sparse.try_acquire()
    assert repr(budget) == "<Budget 3/3>"


def test_a_permit_dearer_than_the_whole_budget_is_refused_at_start() -> None:
    with pytest.raises(Invalid):
        Permits("embed", 4, Budget(2), weight=3)


def test_a_release_tells_every_listener_who_may_use_it() -> None:
    budget = Budget(1)
    pools = [Pool(Permits(name, 1, budget)) for name in "abc"]
    for pool in pools:
        pool.arrive()
    assert [pool.running for pool in pools] == [1, 0, 0]
    pools[0].end()
    assert [pool.running for pool in pools] == [0, 1, 0]
    pools[1].end()
    assert [pool.running for pool in pools] == [0, 0, 1]


@pytest.mark.parametrize("listeners", [1, 3])
def test_topics_on_the_same_permits_take_turns(listeners: int) -> None:
    permits = Permits("shared", 1)
    topics = [Pool(permits) for _ in range(listeners)]
    for topic in topics:
        topic.waiting = 30
    topics[0].pump()
    for _ in range(30):
        next(topic for topic in topics if topic.running).end()
    # The first had a turn before anything was given back.
    assert all(abs(topic.served - 30 // listeners) <= 1 for topic in topics)


def test_a_pool_that_wants_nothing_costs_the_others_no_turn() -> None:
    budget = Budget(1)
    first, _idle, second = pools = [Pool(Permits(name, 1, budget)) for name in "abc"]
    first.waiting = second.waiting = 20
    first.pump()
    for _ in range(20):
        next(pool for pool in pools if pool.running).end()
    assert abs(first.served - second.served) <= 2


def test_heavy_work_is_not_starved_by_light_work() -> None:
    budget = Budget(4)
    light, heavy = Pool(Permits("light", 4, budget)), Pool(Permits("heavy", 1, budget, weight=3))
    running: deque[Pool] = deque()
    served: Counter[str] = Counter()
    for _ in range(200):
        # Light work is always waiting, and its runs end one by one: never three units free at once by chance.
        light.waiting, heavy.waiting = 8, 1
        light.pump()
        heavy.pump()
        for pool in (light, heavy):
            running.extend([pool] * (pool.running - running.count(pool)))
        ended = running.popleft()
        ended.end()
        served[ended.permits.name] += 1
        assert budget.used <= 4
    assert served["heavy"] > 20
    assert served["light"] > 60


def test_what_is_kept_for_heavy_work_is_given_up_when_that_work_is_gone() -> None:
    budget = Budget(2)
    light, heavy = Pool(Permits("light", 2, budget)), Pool(Permits("heavy", 1, budget, weight=2))
    light.arrive()
    light.arrive()
    heavy.arrive()
    light.end()  # one unit is kept for the heavy one
    light.arrive()
    assert (light.running, budget.used) == (1, 1)
    heavy.waiting = 0  # its requester left
    light.end()
    assert (light.running, light.waiting) == (1, 0)
    assert light.permits.try_acquire()


class PermitsMachine(RuleBasedStateMachine):
    """Three pools over one budget: work arrives, ends, and is taken back, in any order."""

    @initialize(total=st.integers(2, 6), shapes=st.tuples(*[st.tuples(st.integers(1, 4), st.integers(1, 2))] * 3))
    def begin(self, total: int, shapes: tuple[tuple[int, int], ...]) -> None:
        self.budget = Budget(total)
        self.weights = [weight for _, weight in shapes]
        self.pools = [Pool(Permits(str(n), limit, self.budget, weight)) for n, (limit, weight) in enumerate(shapes)]

    @rule(n=st.integers(0, 2))
    def arrive(self, n: int) -> None:
        self.pools[n].arrive()

    @rule(n=st.integers(0, 2))
    def end(self, n: int) -> None:
        if self.pools[n].running:
            self.pools[n].end()

    @rule(n=st.integers(0, 2))
    def leave(self, n: int) -> None:
        if self.pools[n].waiting:
            self.pools[n].waiting -= 1

    @invariant()
    def no_permit_leaked_and_no_limit_exceeded(self) -> None:
        if not hasattr(self, "budget"):
            return
        for pool in self.pools:
            assert pool.permits.active == pool.running <= pool.permits.limit
        used = sum(pool.running * weight for pool, weight in zip(self.pools, self.weights, strict=True))
        assert self.budget.used == used <= self.budget.total

    @invariant()
    def nothing_waits_while_everything_is_free(self) -> None:
        if hasattr(self, "budget") and self.budget.used == 0:
            assert not any(pool.waiting for pool in self.pools)

    def teardown(self) -> None:
        if not hasattr(self, "budget"):
            return
        while any(pool.running for pool in self.pools):
            next(pool for pool in self.pools if pool.running).end()
            self.no_permit_leaked_and_no_limit_exceeded()
        assert self.budget.used == 0
        assert not any(pool.waiting for pool in self.pools)


TestPermits = PermitsMachine.TestCase
TestPermits.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
