import asyncio

import pytest

from penstock.http.timeout_queue import TimeoutQueue
from tests.clock import BEGIN_S, virtual


class Calls:
    def __init__(self, patience_s):
        self.due = []
        self.line = TimeoutQueue(
            patience_s, lambda thing: self.due.append((thing, asyncio.get_running_loop().time() - BEGIN_S))
        )


@virtual
async def test_each_is_due_when_its_own_time_is_over():
    calls = Calls(10)
    for name in "abc":
        calls.line.add(name)
        await asyncio.sleep(3)
    await asyncio.sleep(30)
    assert [name for name, _ in calls.due] == ["a", "b", "c"]
    assert [at_s for _, at_s in calls.due] == pytest.approx([10, 13, 16])
    assert len(calls.line) == 0


@virtual
async def test_who_left_is_not_due_and_who_comes_back_begins_anew():
    calls = Calls(10)
    calls.line.add("a")
    calls.line.add("b")
    await asyncio.sleep(5)
    calls.line.discard("a")
    calls.line.discard("never here")
    calls.line.add("a")
    assert calls.line.oldest() == "b"
    await asyncio.sleep(30)
    assert calls.due == [("b", pytest.approx(10)), ("a", pytest.approx(15))]


@virtual
async def test_who_joins_twice_keeps_its_time():
    calls = Calls(10)
    calls.line.add("a")
    await asyncio.sleep(6)
    calls.line.add("a")
    assert "a" in calls.line
    assert repr(calls.line) == "<TimeoutQueue of 1, 10 s each>"
    await asyncio.sleep(6)
    assert calls.due == [("a", pytest.approx(10))]


@virtual
async def test_an_empty_line_sets_no_timer_for_ever():
    calls = Calls(1)
    calls.line.add("a")
    calls.line.discard("a")
    await asyncio.sleep(2)
    assert calls.due == []
    assert calls.line._timer is None
    calls.line.add("a")
    await asyncio.sleep(2)
    assert calls.due == [("a", pytest.approx(3))]


@virtual
async def test_one_that_joins_again_while_it_is_due_does_not_keep_the_loop_busy():
    seen = []

    def due(thing):
        seen.append(thing)
        if len(seen) < 3:
            line.add(thing)

    line = TimeoutQueue(1, due)
    line.add("a")
    await asyncio.sleep(10)
    assert seen == ["a", "a", "a"]
