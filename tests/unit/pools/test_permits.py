"""Permits: never more than allowed, none leaked, nobody starved."""

from __future__ import annotations

from collections import Counter, deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from penstock.kernel.context import Criticality
from penstock.kernel.errors import Invalid
from penstock.pools.permits import Budget, Permits


class Pool:
    """A topic as permits see it: messages wait, a pump starts as many as it may.

    Attributes:
        gone: Messages that wait but are found to have been given up when their turn comes.
    """

    def __init__(self, permits: Permits) -> None:
        self.permits = permits
        self.waiting = 0
        self.running = 0
        self.served = 0
        self.gone = 0
        permits.on_free(self.pump)

    def arrive(self) -> None:
        self.waiting += 1
        self.pump()

    def pump(self) -> None:
        while self.waiting and self.permits.try_acquire():
            while self.gone and self.waiting:
                self.gone -= 1
                self.waiting -= 1
            if not self.waiting:
                self.gone = 0
                self.permits.release()
                return
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


def test_some_permits_are_kept_from_bulk_work() -> None:
    permits = Permits("embed", 4, reserved=2)
    assert [permits.try_acquire(Criticality.BULK) for _ in range(3)] == [True, True, False]
    assert [permits.try_acquire(rank) for rank in (Criticality.STANDARD, Criticality.INTERACTIVE)] == [True, True]
    assert not permits.try_acquire()
    for _ in range(3):
        permits.release()
    assert permits.try_acquire(Criticality.BULK)


def test_a_pool_of_one_permit_gives_it_to_bulk_work_as_well() -> None:
    assert Permits("embed", 1, reserved=1).try_acquire(Criticality.BULK)


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


def test_a_pool_that_shrinks_while_full_kills_nothing_and_grants_nothing_until_it_fits() -> None:
    pool = Pool(Permits("search", 4))
    for _ in range(6):
        pool.arrive()
    pool.permits.resize(2)
    assert (pool.permits.active, pool.permits.limit, pool.waiting) == (4, 2, 2)
    pool.end()
    pool.end()
    assert (pool.permits.active, pool.waiting) == (2, 2)
    pool.end()
    assert (pool.permits.active, pool.waiting) == (2, 1)


@pytest.mark.parametrize("shared", [True, False])
def test_a_pool_that_grows_tells_those_who_wait(shared: bool) -> None:  # noqa: FBT001
    pool = Pool(Permits("search", 1, Budget(9) if shared else None))
    for _ in range(4):
        pool.arrive()
    pool.permits.resize(3)
    assert (pool.running, pool.waiting) == (3, 1)


def test_a_budget_that_shrinks_while_all_of_it_is_out_grants_nothing_until_it_fits() -> None:
    budget = Budget(4)
    pools = [Pool(Permits(name, 4, budget)) for name in "ab"]
    for pool in pools * 3:
        pool.arrive()
    budget.resize(1)
    assert (budget.used, repr(budget)) == (4, "<Budget 4/1>")
    while budget.used > 1:
        next(pool for pool in pools if pool.running).end()
        assert sum(pool.waiting for pool in pools) == 2
    next(pool for pool in pools if pool.running).end()
    assert (budget.used, sum(pool.waiting for pool in pools)) == (1, 1)


def test_a_budget_that_grows_tells_those_who_wait_in_every_pool() -> None:
    budget = Budget(1)
    pools = [Pool(Permits(name, 4, budget)) for name in "ab"]
    for pool in pools * 2:
        pool.arrive()
    budget.resize(4)
    assert [pool.running for pool in pools] == [2, 2]


@pytest.mark.parametrize("size", [0, -1])
def test_nothing_is_resized_to_less_than_one(size: int) -> None:
    permits, budget = Permits("search", 2), Budget(2)
    for resize in (permits.resize, budget.resize, Budget, lambda size: Permits("x", size)):
        with pytest.raises(Invalid):
            resize(size)
    with pytest.raises(Invalid):
        Permits("x", 1, weight=size)
    assert (permits.limit, budget.total) == (2, 2)


def test_a_budget_is_not_resized_to_less_than_a_permit_costs() -> None:
    budget = Budget(4)
    Permits("heavy", 1, budget, weight=3)
    with pytest.raises(Invalid):
        budget.resize(2)
    budget.resize(3)
    assert budget.total == 3


class PermitsMachine(RuleBasedStateMachine):
    """Three pools over one budget and one with its own: work arrives, ends, is taken back, sizes change, in any order.

    A pool's pump sometimes takes a permit and finds that the work has gone, as a topic's does.
    """

    pools: list[Pool]

    @initialize(total=st.integers(2, 6), shapes=st.tuples(*[st.tuples(st.integers(1, 4), st.integers(1, 2))] * 3))
    def begin(self, total: int, shapes: tuple[tuple[int, int], ...]) -> None:
        self.budget = Budget(total)
        self.weights = [weight for _, weight in shapes]
        self.pools = [Pool(Permits(str(n), limit, self.budget, weight)) for n, (limit, weight) in enumerate(shapes)]
        self.pools.append(Pool(Permits("alone", 2)))
        self.most = [pool.permits.limit for pool in self.pools]
        self.most_used = total

    @rule(n=st.integers(0, 3))
    def arrive(self, n: int) -> None:
        self.pools[n].arrive()

    @rule(n=st.integers(0, 3))
    def end(self, n: int) -> None:
        if self.pools[n].running:
            self.pools[n].end()

    @rule(n=st.integers(0, 3))
    def leave(self, n: int) -> None:
        if self.pools[n].waiting:
            self.pools[n].waiting -= 1

    @rule(n=st.integers(0, 3))
    def leave_unseen(self, n: int) -> None:
        pool = self.pools[n]
        if pool.waiting > pool.gone:
            pool.gone += 1

    @rule(n=st.integers(0, 3), limit=st.integers(-1, 5))
    def resize(self, n: int, limit: int) -> None:
        permits = self.pools[n].permits
        if limit < 1:
            with pytest.raises(Invalid):
                permits.resize(limit)
            return
        permits.resize(limit)
        assert permits.limit == limit

    @rule(total=st.integers(-1, 8))
    def resize_budget(self, total: int) -> None:
        if total < max(1, *self.weights):
            with pytest.raises(Invalid):
                self.budget.resize(total)
            return
        self.budget.resize(total)
        assert self.budget.total == total

    @invariant()
    def no_permit_leaked_and_no_limit_exceeded_but_after_a_shrink(self) -> None:
        if not hasattr(self, "budget"):
            return
        for n, pool in enumerate(self.pools):
            # What is out above a limit was out before: it may fall, never rise.
            self.most[n] = max(pool.permits.limit, min(self.most[n], pool.running))
            assert pool.permits.active == pool.running <= self.most[n]
        used = sum(pool.running * weight for pool, weight in zip(self.pools, self.weights, strict=False))
        self.most_used = max(self.budget.total, min(self.most_used, used))
        assert self.budget.used == used <= self.most_used

    @invariant()
    def nothing_waits_while_everything_is_free(self) -> None:
        if hasattr(self, "budget") and self.budget.used == 0:
            assert not any(pool.waiting for pool in self.pools[:3])

    def teardown(self) -> None:
        if not hasattr(self, "budget"):
            return
        while any(pool.running for pool in self.pools):
            next(pool for pool in self.pools if pool.running).end()
            self.no_permit_leaked_and_no_limit_exceeded_but_after_a_shrink()
        assert self.budget.used == 0
        assert not any(pool.waiting for pool in self.pools)


TestPermits = PermitsMachine.TestCase
TestPermits.settings = settings(max_examples=150, stateful_step_count=40)
