"""Bounds, turns and retention of tasks."""

import datetime as dt

import pytest

from penstock.kernel.errors import Invalid, Rejected
from penstock.kernel.settings import TaskSettings
from penstock.tasks.queue import TaskQueue
from penstock.tasks.records import TaskKind, TaskRecord, TaskStatus

NOON = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)


class Day:
    """A time of day that tests set."""

    def __init__(self):
        self.time = NOON

    def __call__(self):
        return self.time


def queue(day=None, **bounds):
    return TaskQueue(TaskSettings(**bounds), day or Day())


def added(tasks, client="a", size=10, **fields):
    tasks.reserve(client, size)
    record = TaskRecord(tasks.new_id(), TaskKind.INDEX_DOCUMENTS, client, body_bytes=size, **fields)
    return tasks.add(record)


def end(tasks, task, day=NOON):
    task.record = task.record.changed(status=TaskStatus.SUCCEEDED, ended_at=day.isoformat())
    tasks.end(task, was_taken=True)


def test_ids_grow_even_if_the_time_of_day_goes_back():
    day = Day()
    tasks = queue(day)
    first = tasks.new_id()
    day.time -= dt.timedelta(hours=1)
    assert first < tasks.new_id()


def test_ids_grow_beyond_those_of_before_a_restart():
    day = Day()
    before = queue(day)
    task = added(before)
    day.time -= dt.timedelta(hours=1)
    after = queue(day)
    after.restore(task.record)
    assert after.new_id() > task.record.id


def test_tasks_of_a_client_run_one_after_another_in_their_order():
    tasks = queue()
    first, second = added(tasks), added(tasks)
    assert tasks.take() is first
    assert tasks.take() is None
    end(tasks, first)
    assert tasks.take() is second


def test_clients_take_turns():
    tasks = queue()
    mine = [added(tasks, "a") for _ in range(3)]
    other = added(tasks, "b")
    assert [tasks.take(), tasks.take(), tasks.take()] == [mine[0], other, None]
    end(tasks, mine[0])
    later = added(tasks, "c")
    assert [tasks.take(), tasks.take()] == [mine[1], later]


def test_a_task_that_is_put_back_comes_before_its_clients_others():
    tasks = queue()
    first, _ = added(tasks), added(tasks)
    tasks.take()
    tasks.put_back(first, was_taken=True)
    assert tasks.take() is first


def test_a_waiting_task_that_is_put_back_lets_no_second_one_run():
    tasks = queue()
    first, second = added(tasks), added(tasks)
    assert tasks.take() is first
    tasks.withdraw(second)
    tasks.put_back(second, was_taken=False)
    assert tasks.take() is None


def test_a_withdrawn_task_has_no_turn():
    tasks = queue()
    first, second = added(tasks), added(tasks)
    tasks.withdraw(first)
    assert tasks.take() is second


def test_there_are_so_many_tasks_at_most():
    tasks = queue(waiting=2)
    added(tasks, "a")
    added(tasks, "b")
    with pytest.raises(Rejected) as refused:
        tasks.reserve("c", 1)
    assert (refused.value.code, refused.value.by_client) == ("tasks_full", False)


def test_a_client_takes_half_of_the_room_at_most():
    tasks = queue(waiting=10, spool=100)
    added(tasks, "a", 40)
    with pytest.raises(Rejected) as refused:
        tasks.reserve("a", 20)
    assert (refused.value.code, refused.value.by_client) == ("client_share", True)
    added(tasks, "b", 40)
    with pytest.raises(Rejected, match="wait already"):
        tasks.reserve("c", 30)
    assert tasks.spooled_bytes == 80


def test_a_body_larger_than_the_room_is_taken_alone():
    tasks = queue(spool=10)
    added(tasks, "a", 100)
    assert tasks.unended == 1


def test_room_is_given_back():
    tasks = queue(waiting=1)
    tasks.reserve("a", 5)
    tasks.unreserve("a", 5)
    task = added(tasks)
    tasks.take()
    end(tasks, task)
    assert (tasks.unended, tasks.spooled_bytes) == (0, 0)
    added(tasks)


def test_ended_tasks_are_kept_by_number_and_by_age():
    day = Day()
    tasks = queue(day, keep=2, keep_age=60)
    ids = []
    for _ in range(3):
        task = added(tasks)
        tasks.take()
        end(tasks, task)
        ids.append(task.record.id)
    assert tasks.expire() == ids[:1]
    day.time += dt.timedelta(seconds=61)
    assert tasks.expire() == ids[1:]
    assert tasks.expire() == []
    with pytest.raises(Invalid, match="no task"):
        tasks.find(ids[0])


def test_tasks_are_listed_the_newest_first_and_page_by_page():
    tasks = queue()
    ids = [added(tasks).record.id for _ in range(5)]
    assert [task.record.id for task in tasks.newest_first()] == ids[::-1]
    assert [task.record.id for task in tasks.newest_first(ids[2])] == [ids[1], ids[0]]


def test_what_was_loaded_waits_again_whatever_the_bounds_say():
    before = queue()
    records = [added(before).record for _ in range(3)]
    after = queue(waiting=1)
    for record in records:
        after.restore(record)
    assert after.take().record == records[0]
    assert after.counts() == {"waiting": 3}


def test_a_task_is_not_found_by_one_who_may_not_see_it():
    tasks = queue()
    task = added(tasks)
    assert tasks.find(task.record.id) is task
    with pytest.raises(Invalid) as refused:
        tasks.find(task.record.id, lambda _: False)
    assert refused.value.code == "task_not_found"
