"""One bounded buffer: who gets in, who waits for room, who is refused. Synchronous: time is a number here."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from penstock.bus import topic_queue as topic_module
from penstock.bus.dispatcher import Dispatcher
from penstock.bus.envelope import Envelope, MessageStage
from penstock.bus.fair_queue import SWEEP_MIN, Discipline
from penstock.bus.topic_queue import KINDS_MAX, TopicQueue
from penstock.kernel.context import Context, Criticality, Deadline, MonotonicClock
from penstock.kernel.errors import Rejected
from penstock.kernel.settings import BusSettings
from penstock.policies.levels import Level, LevelSettings
from penstock.pools.permits import Permits

NOW_S = 1000.0
FREE = Discipline(client_share=1.0)
FIFO = Discipline.of(BusSettings(discipline="fifo"))


async def nothing(_message: Any, _ctx: Context) -> None:
    """Handle nothing."""


INTAKE = Dispatcher(TopicQueue("t", 1), nothing, Permits("t", 1), BusSettings(), MonotonicClock())


class Reply:
    """Stands for a requester's future; a topic never looks inside."""


class Watcher:
    """Notes the levels it is told."""

    def __init__(self) -> None:
        self.levels: list[Level] = []

    def on_level(self, topic: str, level: Level) -> None:
        self.levels.append(level)


def event(message: object = "event", client: str = "a") -> Envelope:
    return Envelope(message, Context(Deadline.never(), client=client), INTAKE, NOW_S)


def request(message: object = "request", client: str = "a", within_s: float = math.inf) -> Envelope:
    ctx = Context(Deadline(NOW_S + within_s, "search"), client=client)
    reply: Any = Reply()
    return Envelope(message, ctx, INTAKE, NOW_S, reply)


def enter(topic: TopicQueue, *envelopes: Envelope, working: int = 1) -> list[bool]:
    return [topic.enqueue(one, NOW_S, working) for one in envelopes]


def drain(topic: TopicQueue) -> list[object]:
    return [one.message for one in iter(lambda: topic.dequeue(NOW_S), None) if one is not None]


def learn(topic: TopicQueue, seconds: float, message: object = "request", times: int = 40) -> None:
    """Let the topic see that messages of this kind take so long."""
    service = topic.service_time_of(request(message))
    for _ in range(times):
        topic.observe_duration(service, seconds)


# --- Bounds


def test_a_full_topic_takes_no_more_and_lets_publishers_wait() -> None:
    topic = TopicQueue("t", 2, FREE)
    assert enter(topic, event(0), event(1), event(2)) == [True, True, False]
    assert (len(topic), topic.blocked) == (2, 1)
    assert drain(topic) == [0, 1, 2]
    assert topic.dequeue(NOW_S) is None


def test_publishers_get_room_in_the_order_of_their_arrival_at_the_moment_it_is_free() -> None:
    topic, granted = TopicQueue("t", 1, FREE), list[object]()
    topic.on_admitted = lambda one: granted.append(one.message)
    enter(topic, *(event(n) for n in range(4)))
    for n in range(4):
        assert granted == list(range(1, n + 1))
        one = topic.dequeue(NOW_S)
        assert one is not None
        assert one.message == n
        assert len(topic) == (1 if n < 3 else 0)


def test_nobody_slips_in_before_those_that_wait_for_room() -> None:
    topic = TopicQueue("t", 1, FREE)
    first, waits, quick = event(0), event(1), event(2)
    enter(topic, first, waits)
    topic.remove(first, NOW_S)
    assert enter(topic, quick) == [False]
    assert drain(topic) == [1, 2]


def test_a_publisher_that_leaves_the_line_swallows_no_room() -> None:
    topic = TopicQueue("t", 1, FREE)
    envelopes = [event(n) for n in range(4)]
    enter(topic, *envelopes)
    topic.remove(envelopes[1], NOW_S)
    assert (len(topic), topic.blocked) == (1, 2)
    assert envelopes[1].stage is MessageStage.ENDED
    assert drain(topic) == [0, 2, 3]


def test_a_message_that_leaves_the_buffer_makes_room() -> None:
    topic = TopicQueue("t", 2, FREE)
    envelopes = [event(n) for n in range(3)]
    enter(topic, *envelopes)
    topic.remove(envelopes[0], NOW_S)
    assert [one.stage for one in envelopes] == [MessageStage.ENDED, MessageStage.QUEUED, MessageStage.QUEUED]
    assert drain(topic) == [1, 2]


def test_the_line_for_room_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topic_module, "BLOCKED_MAX", 3)
    topic = TopicQueue("t", 1, FREE)
    enter(topic, *(request(n) for n in range(4)))
    for refused in (request(4), event(5)):
        with pytest.raises(Rejected) as caught:
            topic.enqueue(refused, NOW_S, 1)
        assert caught.value.code == "topic_full"
    assert topic.counts.refused == {"topic_full": 2}
    assert (topic.blocked, topic._client_requests.get("a", 0)) == (3, 4)


def test_those_that_left_the_line_do_not_pile_up() -> None:
    topic = TopicQueue("t", 1, FREE)
    enter(topic, event())
    for n in range(1000):
        leaves = event(n)
        enter(topic, leaves)
        topic.remove(leaves, NOW_S)
        assert len(topic._blocked_queue) <= SWEEP_MIN + 1
    assert topic.blocked == 0


def test_all_that_waits_is_taken_out_at_once() -> None:
    topic = TopicQueue("t", 2, FREE)
    envelopes = [request(n, f"client {n % 2}") for n in range(5)]
    enter(topic, *envelopes)
    topic.remove(envelopes[3], NOW_S)
    assert [one.message for one in topic.drain(NOW_S)] == [2, 4, 0, 1]
    assert (
        len(topic),
        topic.blocked,
        topic._client_requests.get("client 0", 0),
        topic._client_requests.get("client 1", 0),
    ) == (
        0,
        0,
        0,
        0,
    )


def test_its_repr_is_a_status_line() -> None:
    topic = TopicQueue("ml.embed", 1, FREE)
    assert repr(topic) == "<TopicQueue ml.embed 0/1 +0 calm>"
    enter(topic, event(), event())
    assert repr(topic) == "<TopicQueue ml.embed 1/1 +1 critical>"


# --- A client's share


def test_one_client_fills_no_more_than_its_share() -> None:
    topic = TopicQueue("t", 8, Discipline(client_share=0.25))
    enter(topic, request(), request())
    assert topic.over_share("a")
    assert not topic.over_share("b")
    with pytest.raises(Rejected) as caught:
        topic.enqueue(request(), NOW_S, 1)
    assert (caught.value.code, caught.value.by_client) == ("client_share", True)
    assert enter(topic, request(client="b"), event()) == [True, True]  # facts are never refused for it
    topic.dequeue(NOW_S)
    assert not topic.over_share("a")
    assert enter(topic, request()) == [True]


def test_those_that_wait_for_room_count_towards_the_share() -> None:
    topic = TopicQueue("t", 4, Discipline(client_share=0.5))
    enter(topic, *(event() for _ in range(4)))
    blocked = request()
    assert enter(topic, blocked, request()) == [False, False]
    with pytest.raises(Rejected, match="too many requests of this client"):
        topic.enqueue(request(), NOW_S, 1)
    topic.remove(blocked, NOW_S)
    assert topic._client_requests.get("a", 0) == 1
    assert enter(topic, request()) == [False]


@pytest.mark.parametrize(("capacity", "share", "most"), [(1, 0.001, 1), (10, 0.25, 3), (1000, 0.25, 250)])
def test_a_share_is_never_less_than_one_message(capacity: int, share: float, most: int) -> None:
    topic = TopicQueue("t", capacity, Discipline(client_share=share))
    for _ in range(most):
        topic.enqueue(request(), NOW_S, 1)
    with pytest.raises(Rejected):
        topic.enqueue(request(), NOW_S, 1)


def test_a_share_of_all_is_no_limit() -> None:
    topic = TopicQueue("t", 2, FREE)
    assert enter(topic, *(request() for _ in range(4))) == [True, True, False, False]
    assert not topic.over_share("a")


# --- What could not end in time


def test_what_could_not_end_in_time_is_refused_with_the_time_that_is_missing() -> None:
    topic = TopicQueue("t", 100, FREE)
    learn(topic, 1.0)
    enter(topic, *(request() for _ in range(9)))
    with pytest.raises(Rejected) as caught:
        topic.enqueue(request(within_s=4.0), NOW_S, 1)
    assert caught.value.code == "hopeless"
    assert caught.value.retry_after_s == pytest.approx(6.0, rel=0.1)
    assert not caught.value.by_client
    assert enter(topic, request(within_s=4.0), working=3) == [True]
    assert enter(topic, request(within_s=20.0)) == [True]
    assert enter(topic, request()) == [True]


def test_a_quick_client_is_not_refused_for_the_queue_of_a_slow_one() -> None:
    topic = TopicQueue("t", 100, FREE)
    learn(topic, 1.0)
    enter(topic, *(request() for _ in range(50)))
    assert enter(topic, request(client="b", within_s=3.0)) == [True]


def test_an_event_is_never_refused_for_its_deadline() -> None:
    topic = TopicQueue("t", 100, FREE)
    learn(topic, 1.0, "event")
    enter(topic, *(event() for _ in range(9)))
    late = Envelope("event", Context(Deadline(NOW_S + 0.1, "x")), INTAKE, NOW_S)
    assert enter(topic, late) == [True]


def test_nothing_is_refused_before_anything_is_known() -> None:
    topic = TopicQueue("t", 100, FREE)
    enter(topic, *(request() for _ in range(50)))
    assert enter(topic, request(within_s=0.001)) == [True]


def within(topic: TopicQueue, limit_s: float, at_s: float, running: int) -> bool:
    """Return whether a request that comes then, and has so long, is expected to end in time."""
    return topic.deadline_excess_s(Context(Deadline(at_s + limit_s, "search"), client="a"), at_s, running) == 0.0


def test_a_pace_slower_than_learnt_is_seen_before_anything_has_ended() -> None:
    topic = TopicQueue("t", 100, FREE)
    learn(topic, 0.01)
    enter(topic, *(request() for _ in range(20)), working=4)
    assert within(topic, 1.0, NOW_S + 0.04, running=4), "too early to tell"
    assert not within(topic, 1.0, NOW_S + 0.4, running=4), "4 run for .4 s, none of 20 has been taken out"
    assert within(topic, 60.0, NOW_S + 0.4, running=4)


def test_a_pace_as_learnt_changes_nothing() -> None:
    topic = TopicQueue("t", 100, FREE)
    learn(topic, 0.01)
    enter(topic, *(request() for _ in range(80)), working=1)
    for n in range(60):
        topic.dequeue(NOW_S + n / 100)
    assert within(topic, 0.4, NOW_S + 0.6, running=1), "20 of 10 ms, and some caution"


def test_a_pace_is_that_of_about_the_last_second() -> None:
    topic = TopicQueue("t", 100, FREE)
    learn(topic, 0.01)
    enter(topic, *(request() for _ in range(20)), working=1)
    for n in range(200):  # a stall of a second, and then as quick as ever
        at_s = NOW_S + 1.0 + n / 100
        topic.enqueue(request(), at_s, 1)
        topic.dequeue(at_s)
        quick = within(topic, 0.5, at_s, running=1)
        if n == 0:
            assert not quick
    assert quick


def test_nothing_is_refused_as_hopeless_when_that_is_switched_off() -> None:
    topic = TopicQueue("t", 100, Discipline(client_share=1.0, refuse_hopeless=False))
    learn(topic, 1.0)
    enter(topic, *(request() for _ in range(50)))
    assert enter(topic, request(within_s=0.1)) == [True]


# --- Levels


def test_each_level_is_told_once_a_crossing(caplog: pytest.LogCaptureFixture) -> None:
    watcher = Watcher()
    topic = TopicQueue("t", 100, FREE, watcher)
    caplog.set_level(logging.WARNING)
    enter(topic, *(event() for _ in range(79)))
    assert watcher.levels == []
    for _ in range(3):  # a fill that trembles around the bound
        enter(topic, event())
        topic.dequeue(NOW_S)
    assert watcher.levels == [Level.HIGH]
    assert [record.getMessage() for record in caplog.records] == ["t is 80 % full"]
    enter(topic, *(event() for _ in range(11)))
    assert (watcher.levels[1:], topic.level) == ([Level.CRITICAL], Level.CRITICAL)
    for _ in range(5):
        topic.dequeue(NOW_S)
    assert topic.level is Level.CRITICAL  # down to 85
    topic.dequeue(NOW_S)
    assert topic.level is Level.HIGH
    for _ in range(14):
        topic.dequeue(NOW_S)
    assert topic.level is Level.HIGH  # down to 70
    topic.dequeue(NOW_S)
    assert watcher.levels == [Level.HIGH, Level.CRITICAL, Level.HIGH, Level.CALM]
    assert len(caplog.records) == 1
    enter(topic, *(event() for _ in range(11)))
    assert len(caplog.records) == 2


@pytest.mark.parametrize("capacity", [1, 2, 3, 7, 10, 35, 70, 99, 1000])
def test_a_level_begins_at_the_first_count_that_fills_the_share(capacity: int) -> None:
    levels, topic = LevelSettings(), TopicQueue("t", capacity, FREE)
    for count in range(1, capacity + 1):
        enter(topic, event())
        filled = count / capacity
        expected = Level.CRITICAL if filled >= levels.critical else Level(int(filled >= levels.high))
        assert topic.level is expected, count
    for count in range(capacity - 1, -1, -1):
        before = topic.level
        topic.dequeue(NOW_S)
        filled = count / capacity
        if before is Level.CRITICAL and filled >= levels.critical_clear:
            assert topic.level is Level.CRITICAL, count
        elif before >= Level.HIGH and filled >= levels.high_clear:
            assert topic.level is Level.HIGH, count
        else:
            assert topic.level is Level.CALM, count


# --- Kinds


@dataclass(frozen=True)
class Kinded:
    kind: str


def test_kinds_are_told_apart_by_class_or_as_the_message_says() -> None:
    topic = TopicQueue("t", 10)
    assert topic.service_time_of(request(1)) is topic.service_time_of(request(2))
    assert topic.service_time_of(request(1)) is not topic.service_time_of(request("text"))
    short, long = Kinded("short"), Kinded("long")
    assert topic.service_time_of(request(short)) is topic.service_time_of(request(Kinded("short")))
    assert topic.service_time_of(request(short)) is not topic.service_time_of(request(long))


def test_kinds_beyond_the_bound_share_one_estimate() -> None:
    topic = TopicQueue("t", 10)
    services = {id(topic.service_time_of(request(Kinded(str(n + 1))))) for n in range(KINDS_MAX)}
    assert len(services) == KINDS_MAX
    assert topic.service_time_of(request(Kinded("one"))) is topic.service_time_of(request(Kinded("two")))
    shared = topic.service_time_of(request(Kinded("three")))
    for _ in range(20):
        topic.observe_duration(shared, 2.0)
    assert shared.p50_s == pytest.approx(2.0, rel=0.1)


# --- Settings


def test_the_rules_are_what_the_settings_say() -> None:
    settings_ = BusSettings(
        classes=False, class_floor=0.2, fair_clients=False, client_share=0.5, newest_first=False, discard=False
    )
    assert Discipline.of(settings_) == Discipline(False, 0.2, False, 0.5, False, discard=False)
    assert Discipline(False, 0.0, False, 1.0, False) == FIFO


# --- Against a model


class TopicMachine(RuleBasedStateMachine):
    """A topic beside a model: what is in the buffer, and who waits for room in which order."""

    @initialize(capacity=st.integers(1, 5), share=st.sampled_from([0.3, 1.0]), fifo=st.booleans())
    def begin(self, capacity: int, share: float, fifo: bool) -> None:  # noqa: FBT001
        self.topic = TopicQueue("t", capacity, FIFO if fifo else Discipline(client_share=share))
        self.granted: list[Envelope] = []
        self.topic.on_admitted = self.granted.append
        self.client_max = math.inf if fifo or share == 1.0 else max(1, math.ceil(capacity * share))
        self.inside: list[Envelope] = []
        self.line: list[Envelope] = []
        self.gone: list[Envelope] = []
        self.refused = 0
        self.offered = 0

    def fill(self) -> None:
        """Move up in the model, and hold that the topic did the same at once."""
        expected = []
        while self.line and len(self.inside) < self.topic.capacity:
            self.inside.append(self.line.pop(0))
            expected.append(self.inside[-1])
        assert self.granted == expected
        self.granted.clear()

    @rule(client=st.sampled_from("ab"), is_event=st.booleans(), rank=st.sampled_from(Criticality))
    def enter(self, client: str, is_event: bool, rank: Criticality) -> None:  # noqa: FBT001
        one = event(client=client) if is_event else request(client=client)
        one.ctx = Context(one.ctx.deadline, rank, client)
        self.offered += 1
        held = sum(other.client == client and not other.ordered for other in self.inside + self.line)
        if held >= self.client_max and not is_event:
            with pytest.raises(Rejected) as caught:
                self.topic.enqueue(one, NOW_S, 1)
            assert caught.value.code == "client_share"
            self.refused += 1
            return
        entered = self.topic.enqueue(one, NOW_S, 1)
        assert entered is (len(self.inside) < self.topic.capacity and not self.line)
        (self.inside if entered else self.line).append(one)

    @rule()
    def next(self) -> None:
        one = self.topic.dequeue(NOW_S)
        assert (one is None) is (not self.inside)
        if one is not None:
            self.inside.remove(one)
            one.stage = MessageStage.ENDED
            self.gone.append(one)
            self.fill()

    @precondition(lambda self: self.inside or self.line)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.inside + self.line))
        self.topic.remove(one, NOW_S)
        (self.inside if one in self.inside else self.line).remove(one)
        self.gone.append(one)
        self.fill()

    @rule()
    def drain(self) -> None:
        expected = {id(one) for one in self.inside + self.line}
        out = self.topic.drain(NOW_S)
        assert len(out) == len(expected)
        assert {id(one) for one in out} == expected
        for one in out:
            one.stage = MessageStage.ENDED
        self.gone += out
        self.inside.clear()
        self.line.clear()
        assert self.granted == []

    @invariant()
    def never_over_capacity(self) -> None:
        assert len(self.topic) == len(self.inside) <= self.topic.capacity
        assert self.topic.blocked == len(self.line)

    @invariant()
    def room_is_not_left_empty_while_somebody_waits(self) -> None:
        assert not self.line or len(self.inside) == self.topic.capacity

    @invariant()
    def stages_say_where_messages_are(self) -> None:
        assert {one.stage for one in self.inside} <= {MessageStage.QUEUED}
        assert {one.stage for one in self.line} <= {MessageStage.BLOCKED}

    @invariant()
    def nobody_is_over_its_share(self) -> None:
        held = Counter(one.client for one in self.inside + self.line if not one.ordered)
        for client in "ab":
            assert self.topic._client_requests.get(client, 0) == held[client] <= self.client_max
            assert self.topic.over_share(client) is (held[client] >= self.client_max)

    @invariant()
    def each_message_leaves_once(self) -> None:
        assert len(self.gone) == len({id(one) for one in self.gone})
        assert self.offered == self.refused + len(self.inside) + len(self.line) + len(self.gone)
        assert self.topic.counts.refused.get("client_share", 0) == self.refused


TestTopicAgainstItsModel = TopicMachine.TestCase
TestTopicAgainstItsModel.settings = settings(max_examples=80, stateful_step_count=50)


@pytest.mark.parametrize("answered", [True, False])
def test_a_message_is_abandoned_once_its_reply_is_settled(answered: bool) -> None:  # noqa: FBT001
    loop = asyncio.new_event_loop()
    reply: asyncio.Future[object] = loop.create_future()
    one = Envelope("m", Context.background(), INTAKE, NOW_S, reply)
    assert not one.abandoned
    if answered:
        reply.set_result(1)
    else:
        reply.cancel()
    assert one.abandoned
    assert not event().abandoned
    assert repr(one) == "<Envelope 'm' new>"
    loop.close()
