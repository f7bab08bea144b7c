"""Tokens on lease: one rate over several servers, decided by each at once."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from penstock.policies.bucket import RateSettings
from penstock.policies.token_leases import IDLE_S, TOKEN_WAIT_S, LeasedLimiter, TokenGrant, TokenRequest

RATE, BURST = 10.0, 40.0
CREDIT = 10
SETTINGS = RateSettings(RATE, BURST, clients_max=100)


class Buckets:
    """The shared buckets, as a server for all of them keeps them."""

    def __init__(self) -> None:
        self.levels: dict[str, tuple[float, float]] = {}

    def reserve(self, asks: Sequence[TokenRequest], now_s: float) -> list[TokenGrant]:
        grants = []
        for ask in asks:
            level, at_s = self.levels.get(ask.client, (BURST, now_s))
            level = min(BURST, min(BURST, level + RATE * (now_s - at_s)) - ask.owed)
            tokens = max(0, min(ask.wanted, int(level)))
            self.levels[ask.client] = level - tokens, now_s
            grants.append(TokenGrant(tokens, level - tokens))
        return grants


def exchange(limiter: LeasedLimiter, buckets: Buckets, now_s: float) -> list[TokenRequest]:
    asks = limiter.pending_requests(now_s, 100)
    limiter.granted(asks, buckets.reserve(asks, now_s), now_s)
    return asks


def passed(limiter: LeasedLimiter, times: int, now_s: float, client: str = "a") -> int:
    return sum(limiter.decide(client, now_s).allowed for _ in range(times))


def test_a_new_client_passes_on_credit_and_is_charged_for_it():
    limiter, buckets = LeasedLimiter(SETTINGS), Buckets()
    assert passed(limiter, 6, 0.0) == 6
    assert exchange(limiter, buckets, 0.0) == [TokenRequest("a", CREDIT, CREDIT)]
    assert buckets.levels["a"][0] == BURST - 2 * CREDIT


def test_a_whole_burst_passes_when_exchanges_keep_up():
    limiter, buckets = LeasedLimiter(SETTINGS), Buckets()
    count = 0
    for step in range(60):
        count += passed(limiter, 1, step * 1e-6)
        exchange(limiter, buckets, step * 1e-6)
    assert count == BURST


def test_what_is_refused_says_when_to_come_back():
    limiter, buckets = LeasedLimiter(SETTINGS), Buckets()
    for _ in range(60):
        passed(limiter, 1, 0.0)
        exchange(limiter, buckets, 0.0)
    refused = limiter.decide("a", 0.0)
    assert (refused.allowed, refused.remaining) == (False, 0)
    assert refused.retry_after_s == pytest.approx(1 / RATE, abs=0.01)
    assert refused.reset_s == pytest.approx(BURST / RATE, abs=0.01)
    assert limiter.pending_requests(0.0, 10) == [], "there is nothing to be had yet"
    limiter.decide("a", 0.11)
    exchange(limiter, buckets, 0.11)
    assert limiter.decide("a", 0.11).allowed


def test_tokens_on_their_way_are_waited_for_a_moment_only():
    limiter = LeasedLimiter(SETTINGS)
    assert passed(limiter, CREDIT, 0.0) == CREDIT
    refused = limiter.decide("a", 0.0)
    assert (refused.allowed, refused.retry_after_s) == (False, TOKEN_WAIT_S)


@pytest.mark.parametrize("seed", range(20))
def test_several_servers_together_let_the_rate_pass_and_credit_once(seed):
    luck, buckets = random.Random(seed), Buckets()
    servers = [LeasedLimiter(SETTINGS) for _ in range(luck.randint(1, 8))]
    now_s, count = 0.0, 0
    for _ in range(3000):
        now_s += luck.expovariate(200)
        server = luck.choice(servers)
        count += server.decide("a", now_s).allowed
        if luck.random() < 0.3:
            exchange(luck.choice(servers), buckets, now_s)
        if luck.random() < 0.01:
            server.sweep(now_s)
    assert count <= BURST + RATE * now_s + len(servers) * CREDIT
    for server in servers:
        exchange(server, buckets, now_s)
    assert count >= RATE * now_s * 0.5, "tokens on lease are not lost"


@pytest.mark.parametrize("seed", range(5))
def test_a_client_that_goes_round_many_servers_gains_nothing_by_it(seed):
    buckets, luck = Buckets(), random.Random(seed)
    servers = [LeasedLimiter(SETTINGS) for _ in range(12)]
    now_s, count, seconds = 0.0, 0, 60.0
    while now_s < seconds:
        now_s += 0.005
        count += servers[int(now_s / 1.5) % 12].decide("a", now_s).allowed
        for server in servers:
            if luck.random() < 0.2:
                exchange(server, buckets, now_s)
            if luck.random() < 0.005:
                server.sweep(now_s)
    assert count <= BURST + RATE * seconds + 12 * CREDIT


def test_what_is_not_used_is_given_back_to_the_other_servers():
    ours, theirs, buckets = LeasedLimiter(SETTINGS), LeasedLimiter(SETTINGS), Buckets()
    passed(ours, 6, 0.0)
    exchange(ours, buckets, 0.0)
    assert buckets.levels["a"][0] == BURST - 2 * CREDIT
    ours.sweep(IDLE_S / 2)
    assert ours.pending_requests(IDLE_S / 2, 10) == []
    ours.sweep(IDLE_S)
    assert exchange(ours, buckets, IDLE_S) == [TokenRequest("a", 0, -14.0)]
    count = 0
    for _ in range(80):
        count += passed(theirs, 1, IDLE_S)
        exchange(theirs, buckets, IDLE_S)
    assert count == BURST


def test_a_client_is_forgotten_when_its_bucket_is_told_to_be_full():
    limiter, buckets = LeasedLimiter(SETTINGS), Buckets()
    passed(limiter, 20, 0.0)
    for step in range(1, 10):
        exchange(limiter, buckets, step * 1.0)
        limiter.sweep(step * 1.0)
    assert len(limiter) == 0


def test_a_client_whose_bucket_others_have_emptied_is_not_forgotten():
    limiter, buckets = LeasedLimiter(SETTINGS), Buckets()
    passed(limiter, 20, 0.0)
    for step in range(1, 20):
        exchange(limiter, buckets, step * 1.0)
        buckets.levels["a"] = 0.0, step * 1.0
        limiter.sweep(step * 1.0)
    assert len(limiter) == 1


def test_without_the_shared_buckets_each_server_holds_to_the_whole_rate_alone():
    limiter, buckets = LeasedLimiter(SETTINGS), Buckets()
    passed(limiter, 30, 0.0)
    exchange(limiter, buckets, 0.0)
    limiter.failed()
    assert limiter.is_isolated
    assert passed(limiter, 100, 1.0) == BURST
    assert passed(limiter, 100, 2.0) == RATE
    limiter.granted([], [], 3.0)
    assert not limiter.is_isolated
    assert passed(limiter, 3, 3.0) == 3
    assert exchange(limiter, buckets, 3.0) == []


def test_clients_beyond_the_bound_are_held_by_this_server_alone():
    limiter = LeasedLimiter(RateSettings(RATE, BURST, clients_max=2))
    for client in ("a", "b", "c"):
        limiter.decide(client, 0.0)
    assert passed(limiter, 100, 0.0, "c") == BURST - 1
    assert len(limiter) == 3


def test_one_client_s_tokens_are_not_another_s():
    limiter = LeasedLimiter(SETTINGS)
    assert passed(limiter, 100, 0.0, "a") == CREDIT
    assert passed(limiter, 100, 0.0, "b") == CREDIT


def test_a_rate_of_nothing_is_no_limit():
    limiter = LeasedLimiter(RateSettings(0.0, 10.0))
    assert not limiter.enabled
    assert passed(limiter, 1000, 0.0) == 1000
    assert limiter.window_s == 0


def test_no_more_is_due_than_asked_for():
    limiter = LeasedLimiter(SETTINGS)
    for client in "abcdef":
        passed(limiter, 8, 0.0, client)
    assert [ask.client for ask in limiter.pending_requests(0.0, 4)] == ["a", "b", "c", "d"]
    assert [ask.client for ask in limiter.pending_requests(0.0, 4)] == ["e", "f"]


def test_the_quota_that_is_told_is_the_whole_one():
    limiter = LeasedLimiter(SETTINGS)
    assert (limiter.quota, limiter.window_s) == (40, 4)
    assert limiter.decide("a", 0.0).remaining == 39


def test_a_request_that_costs_more_than_a_batch_is_paid_once_its_tokens_are_there():
    """A key of a rate of its own pays so: of half a request a second here, 20 tokens each."""
    limiter, buckets = LeasedLimiter(SETTINGS), Buckets()
    times_s = []
    for step in range(1000):
        now_s = step * 0.01
        if limiter.decide("a", now_s, cost=20).allowed:
            times_s.append(now_s)
        exchange(limiter, buckets, now_s)
    assert [round(at_s) for at_s in times_s] == [0, 0, 2, 4, 6, 8]


def test_a_request_that_costs_more_than_a_bucket_passes_when_it_is_full():
    limiter, buckets = LeasedLimiter(SETTINGS), Buckets()
    for step in range(1000):
        now_s = step * 0.01
        if limiter.decide("a", now_s, cost=1000).allowed:
            return
        exchange(limiter, buckets, now_s)
    raise AssertionError("it never passes")
