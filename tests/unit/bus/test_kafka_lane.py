"""How far a partition is worked: what may be committed, whatever order things end in."""

import random

from hypothesis import given
from hypothesis import strategies as st

from penstock.bus.backends.kafka.lane import CAREFUL_SPAN, SPAN_MAX, Lane


def lane(committed: int = 0, crashes: int = 0) -> Lane:
    made = Lane()
    made.begin(committed, crashes, committed + 2 * CAREFUL_SPAN)
    return made


def test_only_the_row_at_the_front_is_committed() -> None:
    one = lane()
    for offset in range(4):
        assert one.take(offset) == 0
    one.done(1)
    one.done(2)
    assert (one.head, one.dirty) == (0, False)
    one.done(0)
    assert (one.head, one.dirty) == (3, True)
    one.done(3)
    assert (one.head, one.running) == (4, 0)


def test_what_is_done_twice_counts_once() -> None:
    one = lane()
    one.take(0)
    one.take(1)
    one.done(1)
    one.done(1)
    one.done(7)
    assert (one.head, one.running) == (0, 1)


def test_offsets_without_a_record_are_passed_over() -> None:
    one = lane(5)
    one.take(8)
    assert one.head == 8
    one.done(8)
    assert one.head == 9


def test_what_is_worked_here_is_not_taken_again_when_the_partition_comes_back() -> None:
    one = lane()
    for offset in range(3):
        one.take(offset)
    one.done(1)
    one.begin(0, 0)
    assert [one.take(offset) for offset in range(4)] == [-1, -1, -1, 0]
    for offset in (0, 2, 3):
        one.done(offset)
    assert one.head == 4


def test_what_another_owner_has_done_meanwhile_is_forgotten() -> None:
    one = lane()
    for offset in range(3):
        one.take(offset)
    one.begin(2, 0)
    assert (one.head, one.running) == (2, 1)
    assert one.take(2) == -1
    one.begin(10, 0)
    assert (one.head, one.running, one.take(10)) == (10, 0, 0)


def test_what_is_done_and_could_not_be_committed_is_committed_when_the_partition_comes_back() -> None:
    one = lane()
    one.take(0)
    one.done(0)
    one.begin(0, 0)
    assert (one.head, one.dirty, one.take(0)) == (1, True, -1)


def test_a_topic_made_anew_begins_anew() -> None:
    one = lane(100)
    one.take(100)
    one.done(100)
    one.committed = 101
    one.begin(0, 0)
    assert (one.take(0), one.head) == (0, 0)


def test_only_the_record_in_front_is_suspected_of_its_owners_deaths() -> None:
    one = lane(5, 1)
    assert [one.take(offset) for offset in (5, 6, 7)] == [1, 0, 0]


def test_after_a_death_the_partition_is_worked_record_by_record_for_a_while() -> None:
    one = lane(5, 1)
    assert one.careful
    assert (one.room(), one.take(5)) == (1, 1)
    assert one.room() == 0
    one.done(5)
    assert one.room() == 0  # not before Kafka knows it
    one.committed = 6
    assert one.room() == 1
    one.begin(5 + CAREFUL_SPAN, 0)
    assert (one.careful, one.room()) == (False, SPAN_MAX)


def test_what_came_after_a_death_is_not_worked_record_by_record() -> None:
    one = Lane()
    one.begin(5, 1, 7)
    for offset in (5, 6):
        assert one.careful
        one.take(offset)
        one.done(offset)
        one.committed = one.head
    assert (one.careful, one.room()) == (False, SPAN_MAX)


def test_the_span_of_what_is_not_committed_is_bounded() -> None:
    one = lane()
    for offset in range(SPAN_MAX):
        one.take(offset)
    for offset in range(1, SPAN_MAX):
        one.done(offset)
    assert one.room() == 0
    one.done(0)
    assert one.room() == SPAN_MAX


@given(st.integers(1, 60), st.randoms(use_true_random=False))
def test_in_whatever_order_they_end_nothing_undone_is_committed(count: int, order: random.Random) -> None:
    one, undone = lane(), set(range(count))
    for offset in range(count):
        one.take(offset)
    while undone:
        offset = order.choice(sorted(undone))
        undone.discard(offset)
        one.done(offset)
        assert one.head == min(undone, default=count)
        if order.random() < 0.2:
            one.committed = one.head
            one.begin(one.committed, 0)
            assert all(one.take(again) == -1 for again in range(one.committed, count))
