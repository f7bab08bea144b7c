"""The one kind of place where work waits: bounded, fair, and nothing gets lost in it."""

from __future__ import annotations

import asyncio
from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from penstock.bus.topic import Envelope, Topic
from penstock.kernel.work import Work
from tests.clock import VirtualLoop, quiet, tick, virtual

WORK = Work.background()


def envelope(message: object) -> Envelope:
    return Envelope(message, WORK, 0.0)


def drain(topic: Topic) -> list[object]:
    messages = []
    while (one := topic.poll()) is not None:
        messages.append(one.message)
    return messages


def test_a_full_topic_takes_no_more() -> None:
    topic = Topic("t", 2)
    assert [topic.offer(envelope(n)) for n in range(3)] == [True, True, False]
    assert len(topic) == 2
    assert drain(topic) == [0, 1]
    assert topic.poll() is None


def test_peek_leaves_the_message_where_it_is() -> None:
    topic = Topic("t", 2)
    assert topic.peek() is None
    first = envelope(1)
    topic.offer(first)
    assert topic.peek() is first
    assert topic.poll() is first


def test_discarding_what_is_gone_does_nothing() -> None:
    topic = Topic("t", 2)
    topic.offer(envelope(1))
    topic.discard(envelope(1))
    assert len(topic) == 1


def test_its_repr_is_a_status_line() -> None:
    topic = Topic("ml.embed", 2)
    topic.offer(envelope(1))
    assert repr(topic) == "<Topic ml.embed 1/2 +0>"


@pytest.mark.parametrize("answered", [True, False])
def test_a_message_is_abandoned_once_its_reply_is_settled(answered: bool) -> None:  # noqa: FBT001
    loop = VirtualLoop()
    reply = loop.create_future()
    one = Envelope("m", WORK, 0.0, reply)
    assert not one.abandoned
    if answered:
        reply.set_result(1)
    else:
        reply.cancel()
    assert one.abandoned
    assert not envelope("an event").abandoned
    loop.close()


@virtual
async def test_publishers_wait_for_room_in_the_order_of_their_arrival() -> None:
    topic = Topic("t", 1)
    topic.offer(envelope(0))
    done = []

    async def publisher(n: int) -> None:
        await topic.put(envelope(n))
        done.append(n)

    tasks = [asyncio.create_task(publisher(n)) for n in (1, 2, 3)]
    await quiet()
    assert done == []
    for expected in range(4):
        polled = topic.poll()
        assert polled is not None
        assert polled.message == expected
        await quiet()
    assert done == [1, 2, 3]
    await asyncio.gather(*tasks)


@virtual
async def test_nobody_slips_in_before_a_publisher_that_was_granted_room() -> None:
    topic = Topic("t", 1)
    topic.offer(envelope("first"))
    task = asyncio.create_task(topic.put(envelope("waiting")))
    await quiet()
    topic.poll()
    assert not topic.offer(envelope("quick"))
    await task
    assert drain(topic) == ["waiting"]


@virtual
async def test_a_publisher_cancelled_before_its_grant_leaves_nothing() -> None:
    topic = Topic("t", 1)
    topic.offer(envelope("first"))
    leaves = asyncio.create_task(topic.put(envelope("leaves")))
    stays = asyncio.create_task(topic.put(envelope("stays")))
    await quiet()
    leaves.cancel()
    await quiet()
    topic.poll()
    await stays
    assert drain(topic) == ["stays"]
    assert repr(topic) == "<Topic t 0/1 +0>"


@virtual
async def test_a_publisher_cancelled_after_its_grant_passes_the_room_on() -> None:
    topic = Topic("t", 1)
    topic.offer(envelope("first"))
    leaves = asyncio.create_task(topic.put(envelope("leaves")))
    stays = asyncio.create_task(topic.put(envelope("stays")))
    await quiet()
    topic.poll()  # the room is granted to the first of them, who has not woken up yet
    leaves.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaves
    await stays
    assert drain(topic) == ["stays"]


@virtual
async def test_a_publisher_cancelled_and_then_reached_swallows_no_room() -> None:
    topic = Topic("t", 1)
    topic.offer(envelope("first"))
    leaves = asyncio.create_task(topic.put(envelope("leaves")))
    stays = asyncio.create_task(topic.put(envelope("stays")))
    await quiet()
    leaves.cancel()
    topic.poll()  # before the cancelled publisher woke up
    await stays
    assert leaves.cancelled() or leaves.cancelling()
    assert drain(topic) == ["stays"]


@virtual
async def test_a_publisher_cancelled_after_its_message_was_taken_takes_nothing_back() -> None:
    topic = Topic("t", 1)
    topic.offer(envelope("first"))
    leaves = asyncio.create_task(topic.put(envelope("leaves")))
    await quiet()
    assert drain(topic) == ["first", "leaves"]
    topic.offer(envelope("next"))
    leaves.cancel()
    await quiet()
    assert drain(topic) == ["next"]


class TopicMachine(RuleBasedStateMachine):
    """A topic beside a model: a queue, and who waits for room in it.

    Rules never run the loop; ``tick`` does, one step. So cancellations fall before a grant, after
    it, and between a grant and the publisher's waking up.
    """

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        self.sent = 0
        self.begin(2)

    def begin(self, capacity: int) -> None:
        self.topic = Topic("t", capacity)
        self.items: deque[Envelope] = deque()
        self.waiting: deque[tuple[asyncio.Task[None], Envelope]] = deque()
        self.beginning: list[tuple[asyncio.Task[None], Envelope]] = []
        self.granted: list[tuple[asyncio.Task[None], Envelope]] = []
        self.polled: list[Envelope] = []

    def fresh(self) -> Envelope:
        self.sent += 1
        return envelope(self.sent)

    def grant(self) -> None:
        while self.waiting and len(self.items) < self.topic.capacity:
            task, one = self.waiting.popleft()
            self.items.append(one)
            self.granted.append((task, one))

    @precondition(lambda self: not self.sent)
    @rule(capacity=st.integers(1, 3))
    def size(self, capacity: int) -> None:
        self.begin(capacity)

    @rule()
    def offer(self) -> None:
        one = self.fresh()
        room = len(self.items) < self.topic.capacity and not self.waiting
        assert self.topic.offer(one) is room
        if room:
            self.items.append(one)

    @rule()
    def put(self) -> None:
        one = self.fresh()
        self.beginning.append((self.loop.create_task(self.topic.put(one)), one))

    @rule()
    def poll(self) -> None:
        one = self.topic.poll()
        assert one is (self.items.popleft() if self.items else None)
        if one is not None:
            self.polled.append(one)
        self.grant()

    @precondition(lambda self: self.items)
    @rule(data=st.data())
    def discard(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(list(self.items)))
        self.topic.discard(one)
        self.items.remove(one)
        self.grant()

    @precondition(lambda self: self.polled)
    @rule(data=st.data())
    def discard_what_is_gone(self, data: st.DataObject) -> None:
        self.topic.discard(data.draw(st.sampled_from(self.polled)))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), reached=st.booleans())
    def cancel_waiting(self, data: st.DataObject, reached: bool) -> None:  # noqa: FBT001
        entry = data.draw(st.sampled_from(list(self.waiting)))
        entry[0].cancel()
        self.waiting.remove(entry)
        if reached:  # a grant comes before the cancelled publisher has woken up
            self.poll()
        self.tick()
        assert entry[0].cancelled()

    @precondition(lambda self: self.granted)
    @rule(data=st.data())
    def cancel_granted(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.granted))
        entry[0].cancel()
        self.granted.remove(entry)
        # Those granted before it wake up first; it takes its message back when its turn comes.
        if entry[1] in self.items:
            self.items.remove(entry[1])
            self.tick()
            self.grant()
        else:
            self.tick()
        assert entry[0].cancelled()

    @rule()
    def tick(self) -> None:
        began, self.beginning = self.beginning, []
        for task, one in began:
            if len(self.items) < self.topic.capacity and not self.waiting:
                self.items.append(one)
                self.granted.append((task, one))
            else:
                self.waiting.append((task, one))
        tick(self.loop)
        awake = [entry for entry in self.granted if entry[0].done()]
        assert not any(task.cancelled() or task.exception() for task, _ in awake)
        self.granted = [entry for entry in self.granted if not entry[0].done()]

    @invariant()
    def never_over_capacity(self) -> None:
        assert len(self.topic) <= self.topic.capacity

    @invariant()
    def as_the_model_says(self) -> None:
        assert list(self.topic._items) == list(self.items)

    @invariant()
    def room_is_not_left_empty_while_somebody_waits(self) -> None:
        assert not self.waiting or len(self.topic) == self.topic.capacity

    def teardown(self) -> None:
        self.tick()
        while self.items or self.waiting:
            self.poll()
            self.tick()
        assert len(self.topic) == 0
        assert not self.topic._waiters
        assert len({id(one) for one in self.polled}) == len(self.polled)
        self.loop.run_until_complete(quiet())
        assert not asyncio.all_tasks(self.loop)
        self.loop.close()
        assert not self.loop.complaints


TestTopicAgainstItsModel = TopicMachine.TestCase
TestTopicAgainstItsModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
