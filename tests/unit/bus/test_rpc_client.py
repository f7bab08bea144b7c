"""Requests whose worker is missed go to another, those that may be repeated, and once."""

import asyncio

import pytest

from penstock.bus.broker import Channel, ChannelKind
from penstock.bus.broker_breaker import BrokerBreaker
from penstock.bus.record_codec import Cancel, HandlerReply, Hello, Message, RecordCodec
from penstock.bus.rpc_client import HANDOVERS_MAX, BrokerTransport, RpcClient
from penstock.bus.service_registry import HELLOS_MISSED, PRESENCE_S, ServiceRegistry
from penstock.kernel.context import Context
from penstock.kernel.errors import Unavailable
from penstock.kernel.messages import REPEATABLE_TOPICS, REQUEST_TOPICS, Topic
from penstock.kernel.settings import GuardSettings
from tests.clock import virtual
from tests.fakes.loop_clock import LoopClock

CODEC = RecordCodec({}, 10_000)
MISSED_S = HELLOS_MISSED * PRESENCE_S


class Mail:
    """A broker that keeps what it is given."""

    name = "mail"
    address = "me"

    def __init__(self):
        self.queued, self.mailed, self.all = [], [], []
        self.fails = False

    def check(self):
        if self.fails:
            raise Unavailable("gone", dependency="mail")

    async def send(self, channel, record, key, within_s):
        self.check()
        self.queued.append(CODEC.decode(record).id)

    async def reply(self, address, record):
        self.check()
        self.mailed.append((address, CODEC.decode(record).id))

    async def broadcast(self, record):
        self.all.append(CODEC.decode(record))


class House:
    """A client with workers ``a`` and ``b``, which say hello as long as they live."""

    def __init__(self, topic=Topic.ML_EMBED):
        self.broker, self.registry, self.topic = Mail(), ServiceRegistry(), topic
        transport = BrokerTransport(self.broker, CODEC, BrokerBreaker("mail", GuardSettings()))
        self.client = RpcClient(transport, LoopClock(), 1.0, self.registry)
        self.client.mailbox_ready.set()
        self.alive = {"a", "b"}
        self.hello()

    def hello(self):
        now_s = asyncio.get_running_loop().time()
        for one in sorted(self.alive):
            self.registry.update(Hello(one, {str(self.topic): 4}, 0, takes_requests=True), now_s)
        self.registry.echo(now_s)

    async def live(self, seconds=2 * MISSED_S):
        """Let hellos come for a while, and look for who is missed after each."""
        for _ in range(round(seconds / PRESENCE_S)):
            await asyncio.sleep(PRESENCE_S)
            self.hello()
            await self.client.rescue()

    def ask(self):
        channel = Channel(self.topic, ChannelKind.QUEUE)
        return asyncio.create_task(self.client.call(self.topic, channel, "m", Context.background()))

    def answer(self, number):
        reply = CODEC.decode(CODEC.encode_reply(number, self.topic, number))
        assert isinstance(reply, HandlerReply)
        self.client.on_reply(reply)


def test_what_writes_is_never_repeated():
    assert set(REQUEST_TOPICS) - REPEATABLE_TOPICS == {Topic.INDEX_REQUEST}


@virtual
async def test_in_calm_each_request_is_sent_once():
    house = House()
    asked = [house.ask() for _ in range(5)]
    await house.live(60)
    assert (house.broker.queued, house.broker.mailed) == ([1, 2, 3, 4, 5], [])
    for number in range(1, 6):
        house.answer(number)
    assert await asyncio.gather(*asked) == [1, 2, 3, 4, 5]
    assert house.broker.all == []


@virtual
async def test_what_a_missed_worker_may_hold_goes_to_another_and_the_first_reply_counts():
    house = House()
    asked = [house.ask() for _ in range(3)]
    await house.live(PRESENCE_S)
    house.alive.discard("a")
    await house.live()
    assert house.broker.mailed == [("b", 1), ("b", 2), ("b", 3)], "each once, however long it is missed"
    for number in (1, 2, 3, 3):
        house.answer(number)
    assert await asyncio.gather(*asked) == [1, 2, 3]
    assert house.client.late_replies == {Topic.ML_EMBED: 1}
    await asyncio.sleep(0)
    assert house.broker.all == [Cancel("me", number) for number in (1, 2, 3)], "who gets it later need not begin"


@virtual
async def test_while_a_worker_is_missed_new_requests_go_to_another_alone():
    house = House()
    await house.live(PRESENCE_S)
    house.alive.discard("a")
    await house.live()
    asked = house.ask()
    await asyncio.sleep(0)
    assert (house.broker.queued, house.broker.mailed) == ([], [("b", 1)])
    house.answer(1)
    assert await asked == 1
    assert house.broker.all == []
    house.alive = {"b", "c"}
    await house.live(20)
    house.ask().cancel()
    house.ask()
    await asyncio.sleep(0)
    assert house.broker.queued == [2], "the missed one is forgotten, and the channel is shared out again"
    await house.client.close()


@virtual
async def test_what_writes_stays_in_its_channel():
    house = House(Topic.INDEX_REQUEST)
    asked = house.ask()
    await house.live(PRESENCE_S)
    house.alive.discard("a")
    await house.live()
    assert (house.broker.queued, house.broker.mailed) == ([1], [])
    house.answer(1)
    assert await asked == 1


@virtual
async def test_a_request_is_handed_over_so_often_at_most_and_is_in_its_channel_then():
    house = House()
    house.alive = {"a", "b", "c", "d", "e"}
    await house.live(PRESENCE_S)
    house.alive.discard("e")
    await house.live()
    asked = house.ask()
    await asyncio.sleep(0)
    for _ in range(4):
        house.alive.discard(house.broker.mailed[-1][0])
        await house.live()
    assert len(house.broker.mailed) == HANDOVERS_MAX
    assert house.broker.queued == [1]
    house.answer(1)
    assert await asked == 1


@virtual
async def test_without_another_worker_a_request_waits_in_its_channel():
    house = House()
    await house.live(PRESENCE_S)
    house.alive.clear()
    await house.live()
    asked = house.ask()
    await house.live()
    assert (house.broker.queued, house.broker.mailed) == ([1], [])
    house.answer(1)
    assert await asked == 1


@virtual
async def test_a_broker_that_fails_while_requests_are_handed_over_ends_nothing():
    house = House()
    asked = house.ask()
    await house.live(PRESENCE_S)
    house.alive.discard("a")
    house.broker.fails = True
    await house.live()
    house.answer(1)
    assert await asked == 1
    with pytest.raises(Unavailable):
        await house.ask()


def test_a_request_is_read_from_a_mailbox_as_from_a_channel():
    ctx = Context.background()
    record = CODEC.encode_message(7, "me", "ml.embed", "m", (ctx, 0.0))
    assert isinstance(CODEC.decode(record), Message)
