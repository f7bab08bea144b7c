"""Waiting for a task: how often it is looked at, and what is waited through."""

import pytest

from penstock.client import Expired, Invalid, NotReachable, ServerTask
from penstock.client.task_records import AWAY_S_MAX, POLL_S_MAX, wait_steps


def drive(seen, timeout_s=None, progress=None):
    """Run the steps over what is seen at each look; return the task, the waits and the time."""
    now, waits, looks = [0.0], [], iter(seen)
    steps = wait_steps("look", progress, timeout_s, lambda: now[0])
    outcome = None
    while True:
        try:
            step = steps.send(outcome)
        except StopIteration as done:
            return done.value, waits
        if step == "look":
            outcome = next(looks)
        else:
            waits.append(step)
            now[0] += step
            outcome = None


def task(status, done=0):
    return ServerTask("1", status=status, done=done, total=3)


@pytest.mark.parametrize("status", ["succeeded", "failed", "cancelled"])
def test_a_task_that_has_ended_is_returned_at_once(status):
    assert drive([task(status)]) == (task(status), [])


def test_progress_is_told_at_each_look_and_looks_become_rarer():
    told = []
    ended, waits = drive([*(task("running", n) for n in range(20)), task("succeeded", 3)], progress=told.append)
    assert (ended.status, len(told)) == ("succeeded", 21)
    assert waits == sorted(waits)
    assert waits[-1] == POLL_S_MAX


def test_a_restart_of_the_server_is_waited_through():
    away = NotReachable("lost", dependency="server")
    ended, _ = drive([task("running"), away, away, task("running"), task("succeeded")])
    assert ended.status == "succeeded"


def test_a_server_that_stays_away_is_given_up():
    away = NotReachable("lost", dependency="server")
    with pytest.raises(NotReachable):
        drive([task("running"), *[away] * int(AWAY_S_MAX)])


def test_an_unknown_task_is_told_at_once():
    with pytest.raises(Invalid):
        drive([Invalid("no task", code="task_not_found")])


def test_a_wait_ends_in_time_and_the_task_goes_on():
    with pytest.raises(Expired, match="it goes on"):
        drive([task("running")] * 100, timeout_s=5.0)
