"""How far a partition is worked: what may be committed, whatever order things end in."""

import random

from hypothesis import given
from hypothesis import strategies as st

from penstock.bus.backends.kafka.offset_tracker import ISOLATION_RECORDS, UNCOMMITTED_MAX, OffsetTracker


def lane(committed: int = 0, crashes: int = 0) -> OffsetTracker:
    made = OffsetTracker()
    made.resume(committed, crashes, committed + 2 * ISOLATION_RECORDS)
    return made


def test_only_the_row_at_the_front_is_committed() -> None:
    one = lane()
    for offset in range(4):
        assert one.track(offset) == 0
    one.mark_done(1)
    one.mark_done(2)
    assert (one.next_offset, one.dirty) == (0, False)
    one.mark_done(0)
    assert (one.next_offset, one.dirty) == (3, True)
    one.mark_done(3)
    assert (one.next_offset, one.running) == (4, 0)


def test_what_is_done_twice_counts_once() -> None:
    one = lane()
    one.track(0)
    one.track(1)
    one.mark_done(1)
    one.mark_done(1)
    one.mark_done(7)
    assert (one.next_offset, one.running) == (0, 1)


def test_offsets_without_a_record_are_passed_over() -> None:
    one = lane(5)
    one.track(8)
    assert one.next_offset == 8
    one.mark_done(8)
    assert one.next_offset == 9


def test_what_is_worked_here_is_not_taken_again_when_the_partition_comes_back() -> None:
    one = lane()
    for offset in range(3):
        one.track(offset)
    one.mark_done(1)
    one.resume(0, 0)
    assert [one.track(offset) for offset in range(4)] == [-1, -1, -1, 0]
    for offset in (0, 2, 3):
        one.mark_done(offset)
    assert one.next_offset == 4


def test_what_another_owner_has_done_meanwhile_is_forgotten() -> None:
    one = lane()
    for offset in range(3):
        one.track(offset)
    one.resume(2, 0)
    assert (one.next_offset, one.running) == (2, 1)
    assert one.track(2) == -1
    one.resume(10, 0)
    assert (one.next_offset, one.running, one.track(10)) == (10, 0, 0)


def test_what_is_done_and_could_not_be_committed_is_committed_when_the_partition_comes_back() -> None:
    one = lane()
    one.track(0)
    one.mark_done(0)
    one.resume(0, 0)
    assert (one.next_offset, one.dirty, one.track(0)) == (1, True, -1)


def test_a_topic_made_anew_begins_anew() -> None:
    one = lane(100)
    one.track(100)
    one.mark_done(100)
    one.committed = 101
    one.resume(0, 0)
    assert (one.track(0), one.next_offset) == (0, 0)


def test_only_the_record_in_front_is_suspected_of_its_owners_deaths() -> None:
    one = lane(5, 1)
    assert [one.track(offset) for offset in (5, 6, 7)] == [1, 0, 0]


def test_after_a_death_the_partition_is_worked_record_by_record_for_a_while() -> None:
    one = lane(5, 1)
    assert one.isolating
    assert (one.free_slots(), one.track(5)) == (1, 1)
    assert one.free_slots() == 0
    one.mark_done(5)
    assert one.free_slots() == 0  # not before Kafka knows it
    one.committed = 6
    assert one.free_slots() == 1
    one.resume(5 + ISOLATION_RECORDS, 0)
    assert (one.isolating, one.free_slots()) == (False, UNCOMMITTED_MAX)


def test_what_came_after_a_death_is_not_worked_record_by_record() -> None:
    one = OffsetTracker()
    one.resume(5, 1, 7)
    for offset in (5, 6):
        assert one.isolating
        one.track(offset)
        one.mark_done(offset)
        one.committed = one.next_offset
    assert (one.isolating, one.free_slots()) == (False, UNCOMMITTED_MAX)


def test_the_span_of_what_is_not_committed_is_bounded() -> None:
    one = lane()
    for offset in range(UNCOMMITTED_MAX):
        one.track(offset)
    for offset in range(1, UNCOMMITTED_MAX):
        one.mark_done(offset)
    assert one.free_slots() == 0
    one.mark_done(0)
    assert one.free_slots() == UNCOMMITTED_MAX


@given(st.integers(1, 60), st.randoms(use_true_random=False))
def test_in_whatever_order_they_end_nothing_undone_is_committed(count: int, order: random.Random) -> None:
    one, undone = lane(), set(range(count))
    for offset in range(count):
        one.track(offset)
    while undone:
        offset = order.choice(sorted(undone))
        undone.discard(offset)
        one.mark_done(offset)
        assert one.next_offset == min(undone, default=count)
        if order.random() < 0.2:
            one.committed = one.next_offset
            one.resume(one.committed, 0)
            assert all(one.track(again) == -1 for again in range(one.committed, count))
