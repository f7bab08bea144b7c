"""Which collections stay open, and whose turn it is to be opened; no clock, no engine."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.stores.backends.edge import ipc
from penstock.stores.backends.edge.collection_lru import CollectionLru
from penstock.stores.backends.edge.request_queue import opening_timeout_error, schedule_openings
from penstock.stores.commands import ListDocuments


def nobody(_name):
    return False


def opened(residency, *names, at_s=0.0, busy=nobody):
    """Open collections as a shelf does; return what was closed for them."""
    closed = []
    for name in names:
        if name not in residency:
            for surplus in residency.eviction_candidates(busy):
                residency.remove(surplus)
                closed.append(surplus)
        residency.touch(name, at_s)
    return closed


def test_the_least_recently_used_is_closed_for_another():
    residency = CollectionLru(open_max=2, keep_open=0)
    assert opened(residency, "a", "b", "a", "c") == ["b"]
    assert list(residency) == ["a", "c"]


def test_one_of_which_something_is_made_is_not_closed():
    residency = CollectionLru(open_max=2, keep_open=0)
    assert opened(residency, "a", "b", "c", busy=lambda name: name == "a") == ["b"]
    assert opened(residency, "d", busy=lambda _: True) == []
    assert len(residency) == 3
    assert opened(residency, "e") == ["a", "c"], "the surplus goes as soon as it may"


def test_few_are_never_closed_for_being_idle():
    residency = CollectionLru(open_max=10, keep_open=2, idle_s=60)
    opened(residency, "a", "b", at_s=0.0)
    assert residency.idle_candidate(nobody, 1e9) is None
    opened(residency, "c", at_s=50.0)
    assert residency.idle_candidate(nobody, 59.0) is None
    assert residency.idle_candidate(nobody, 60.0) == "a"
    assert residency.idle_candidate(lambda name: name == "a", 60.0) == "b"
    residency.remove("a")
    assert residency.idle_candidate(nobody, 1e9) is None


@given(st.lists(st.integers(0, 30), max_size=200), st.integers(1, 8), st.integers(0, 10_000))
def test_never_more_are_open_than_may_be_and_those_are_the_last_used(uses, open_max, seed):
    residency, luck, last = CollectionLru(open_max=open_max, keep_open=0), random.Random(seed), []
    for number in uses:
        name = str(number)
        opened(residency, name, at_s=luck.random())
        last = [*(one for one in last if one != name), name][-open_max:]
        assert len(residency) <= open_max
        assert list(residency) == last


def asked(number, collection, expires_at_s=None):
    return ipc.StoreRequest(number, ListDocuments(collection, [], None, 1), expires_at_s)


def numbers(requests):
    return [request.number for request in requests]


def test_one_collection_is_opened_in_a_round_and_the_others_keep_their_order():
    turns = schedule_openings([[asked(1, "a"), asked(2, "a")], [asked(3, "b")], [asked(4, "c")]], 0.0, 0.1)
    assert (numbers(turns.next_batch), numbers(turns.later), turns.too_late) == ([1, 2], [3, 4], [])


def test_who_would_be_answered_too_late_is_refused_at_once_and_takes_nobodys_turn():
    waiting = [[asked(1, "a", 10.05)], [asked(2, "b", 10.15), asked(3, "b")], [asked(4, "c", 10.25)]]
    turns = schedule_openings(waiting, 10.0, 0.1)
    assert numbers(turns.too_late) == [1]
    assert numbers(turns.next_batch) == [2, 3]
    assert numbers(turns.later) == [4]
    assert opening_timeout_error(0.1).retryable
    assert opening_timeout_error(0.1).code == "collection_opening"


def test_a_burst_over_a_thousand_collections_is_answered_or_refused_within_its_deadlines():
    """Simulated rounds: each opens one collection, which takes a tenth of a second."""
    waiting = [[asked(number, f"c{number}", 10.0)] for number in range(1000)]
    now_s, answered, refused = 0.0, 0, 0
    while waiting:
        turns = schedule_openings(waiting, now_s, 0.1)
        refused += len(turns.too_late)
        if turns.next_batch:
            now_s += 0.1
            answered += 1
            assert now_s < 10.0, "answered in time"
        waiting = [[request] for request in turns.later]
    assert (answered, answered + refused) == (pytest.approx(99, abs=1), 1000)
