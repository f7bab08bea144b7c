"""What every broker promises the bus (:mod:`penstock.bus.broker`): one suite, the fake one included.

The fake runs on virtual time; real brokers run in processes of their own, on the wall clock, and share one server for
all tests: each test has names of its own there.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from penstock.bus.broker import Broker, Channel, ChannelKind, Delivery, Reader, ReplyMessage
from penstock.kernel.errors import Invalid, Rejected, Unavailable
from penstock.kernel.settings import BusSettings, KafkaSettings, RedisSettings
from tests.clock import run
from tests.fakes.broker import FakeBroker, Server
from tests.rigs import kafka, redis

WORK = Channel("t", ChannelKind.QUEUE)
NEWS = Channel("t", ChannelKind.PUBSUB)
CAPACITY = 4
#: Long enough for a broker to deliver what is there, and to share it out anew.
SOON_S = 15.0
#: Long enough to believe that nothing comes.
NEVER_S = 0.5


@dataclass
class Place:
    """A broker's server, as one test sees it.

    Attributes:
        make: A new instance's connection to it.
        crash: End an instance as if its process were gone.
        unreachable: A connection to where no broker is.
    """

    make: Callable[[], Broker]
    crash: Callable[[Any], Coroutine[Any, Any, None]]
    unreachable: Callable[[], Broker]


@dataclass(frozen=True)
class Backend:
    """A way to carry records.

    Attributes:
        name: Its name.
        server: Where a test's instances connect; skips the test where there is none.
        run: Run a coroutine to its end.
    """

    name: str
    server: Callable[[], Place]
    run: Callable[[Coroutine[Any, Any, None]], None]


def fake_server() -> Place:
    server, down = Server(capacities={"t": CAPACITY}), Server(down=True)

    async def crash(broker: FakeBroker) -> None:
        broker.crash()

    return Place(lambda: FakeBroker(server), crash, lambda: FakeBroker(down))


def kafka_server() -> Place:
    from penstock.bus.backends.kafka.broker import KafkaBroker

    cluster = kafka.shared()
    bus = BusSettings(prefix=f"test-{uuid.uuid4().hex[:8]}")
    here = KafkaSettings(bootstrap=cluster.bootstrap, partitions=2, mailboxes=2, session_timeout=2.0)
    nowhere = KafkaSettings(bootstrap="127.0.0.1:1")
    return Place(lambda: KafkaBroker(bus, here, {"t": CAPACITY}), kafka.crash, lambda: KafkaBroker(bus, nowhere, {}))


def redis_server() -> Place:
    from penstock.bus.backends.redis.broker import RedisBroker

    server = redis.shared()
    bus = BusSettings(prefix=f"test-{uuid.uuid4().hex[:8]}", lease=2.0)
    here, nowhere = RedisSettings(url=server.url), RedisSettings(url="redis://127.0.0.1:1/0")
    return Place(
        lambda: RedisBroker(bus, here, {"t": CAPACITY}),
        redis.crash,
        lambda: RedisBroker(bus, nowhere, {}),
    )


BACKENDS = [
    Backend("fake", fake_server, run),
    Backend("redis", redis_server, asyncio.run),
    Backend("kafka", kafka_server, asyncio.run),
]


@dataclass
class Rig:
    """A server under test and what was made on it."""

    server: Place
    brokers: list[Broker] = field(default_factory=list)
    beats: set[asyncio.Task[None]] = field(default_factory=set)

    async def broker(self) -> Broker:
        broker = self.server.make()
        self.brokers.append(broker)
        await broker.start()
        self.beats.add(asyncio.create_task(beating(broker)))
        return broker

    async def crash(self, broker: Broker) -> None:
        self.brokers.remove(broker)
        await self.server.crash(broker)


async def beating(broker: Broker) -> None:
    while True:
        await asyncio.sleep(0.5)
        with contextlib.suppress(Unavailable):
            await broker.heartbeat()


@asynccontextmanager
async def rigged(backend: Backend) -> AsyncIterator[Rig]:
    rig = Rig(backend.server())
    try:
        yield rig
    finally:
        for task in rig.beats:
            task.cancel()
        await asyncio.gather(*rig.beats, return_exceptions=True)
        for broker in rig.brokers:
            await broker.close()


def on_every_broker(test: Callable[[Rig], Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Make a test of a coroutine that takes a ``Rig``, run on each backend."""

    @pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)
    def ordinary(backend: Backend) -> None:
        async def main() -> None:
            async with rigged(backend) as rig:
                await test(rig)

        backend.run(main())

    functools.update_wrapper(ordinary, test, assigned=("__name__", "__doc__", "__module__", "__qualname__"))
    del ordinary.__wrapped__  # type: ignore[attr-defined]
    return ordinary


async def take(reader: Reader, count: int, wait_s: float = SOON_S) -> list[Delivery]:
    """Return ``count`` deliveries, or fewer if they do not come soon."""
    loop = asyncio.get_running_loop()
    until_s, taken = loop.time() + wait_s, []
    while len(taken) < count and loop.time() < until_s:
        taken += await reader.poll(count - len(taken), min(1.0, until_s - loop.time()))
    return taken


async def until(found: Callable[[], Coroutine[Any, Any, bool]]) -> None:
    """Wait until something is so."""
    loop = asyncio.get_running_loop()
    until_s = loop.time() + SOON_S
    while not await found():
        assert loop.time() < until_s, "it did not come about"
        await asyncio.sleep(0.05)


def texts(deliveries: list[Delivery]) -> list[bytes]:
    return [delivery.record for delivery in deliveries]


# --- Work


@on_every_broker
async def test_work_reaches_a_reader_whole_and_once(rig: Rig) -> None:
    broker = await rig.broker()
    reader = await broker.join(WORK)
    await broker.send(WORK, b"\x00 any bytes \xff", "", 1.0)
    (delivery,) = await take(reader, 1)
    assert (delivery.record, delivery.attempts) == (b"\x00 any bytes \xff", 1)
    assert 0.0 <= delivery.age_s < 2.0
    await reader.ack(delivery)
    assert await reader.poll(1, NEVER_S) == []


@on_every_broker
async def test_work_sent_before_anybody_reads_is_kept(rig: Rig) -> None:
    broker = await rig.broker()
    for n in range(3):
        await broker.send(WORK, b"%d" % n, "one key", 1.0)
    assert texts(await take(await broker.join(WORK), 3)) == [b"0", b"1", b"2"]


@on_every_broker
async def test_a_reader_without_work_returns_empty_handed(rig: Rig) -> None:
    broker = await rig.broker()
    reader = await broker.join(WORK)
    began_s = asyncio.get_running_loop().time()
    assert await reader.poll(1, NEVER_S) == []
    assert NEVER_S * 0.9 <= asyncio.get_running_loop().time() - began_s < NEVER_S + 1


@on_every_broker
async def test_readers_of_several_instances_share_the_work(rig: Rig) -> None:
    first, second = await rig.broker(), await rig.broker()
    readers = [await first.join(WORK), await second.join(WORK)]
    got: list[set[bytes]] = [set(), set()]

    async def read(which: int) -> None:
        while True:
            for delivery in await readers[which].poll(2, 1.0):
                await readers[which].ack(delivery)
                got[which].add(delivery.record)

    tasks = [asyncio.create_task(read(n)) for n in range(2)]
    sent = 0
    while not (got[0] and got[1]):
        await first.send(WORK, b"%d" % sent, "", SOON_S)
        sent += 1
    await until(lambda: _is(len(got[0] | got[1]) == sent))
    for task in tasks:
        task.cancel()


async def _is(truth: bool) -> bool:  # noqa: FBT001
    return truth


@on_every_broker
async def test_a_cancelled_take_loses_nothing(rig: Rig) -> None:
    broker = await rig.broker()
    reader = await broker.join(WORK)
    taking = asyncio.create_task(reader.poll(1, SOON_S))
    await asyncio.sleep(0.1)
    sending = asyncio.create_task(broker.send(WORK, b"m", "", 1.0))
    await asyncio.sleep(0)
    taking.cancel()
    await asyncio.gather(taking, return_exceptions=True)
    await sending
    assert texts(await take(reader, 1)) == [b"m"]


@on_every_broker
async def test_an_answer_goes_out_with_the_acknowledgement(rig: Rig) -> None:
    asks, works = await rig.broker(), await rig.broker()
    reader = await works.join(WORK)
    await asks.send(WORK, b"m", "", 1.0)
    (delivery,) = await take(reader, 1)
    await reader.ack(delivery, ReplyMessage(asks.address, b"the answer"))
    assert await asks.receive(SOON_S) == [b"the answer"]


@on_every_broker
async def test_what_is_handed_back_comes_again_and_counts_no_more_than_a_delivery(rig: Rig) -> None:
    broker = await rig.broker()
    reader = await broker.join(WORK)
    await broker.send(WORK, b"m", "", 1.0)
    (delivery,) = await take(reader, 1)
    await asyncio.sleep(0.2)
    await reader.requeue(delivery)
    (again,) = await take(reader, 1)
    assert again.record == b"m"
    assert again.attempts <= 2
    assert again.age_s >= 0.15


@on_every_broker
async def test_what_a_closed_reader_left_undone_comes_to_another(rig: Rig) -> None:
    leaves, stays = await rig.broker(), await rig.broker()
    reader = await leaves.join(WORK)
    await leaves.send(WORK, b"m", "", 1.0)
    assert len(await take(reader, 1)) == 1
    await reader.close()
    assert texts(await take(await stays.join(WORK), 1)) == [b"m"]


@on_every_broker
async def test_what_a_dead_instance_held_comes_to_another_and_counts(rig: Rig) -> None:
    dies, lives = await rig.broker(), await rig.broker()
    reader = await dies.join(WORK)
    await lives.send(WORK, b"m", "", 1.0)
    assert len(await take(reader, 1)) == 1
    await rig.crash(dies)
    (delivery,) = await take(await lives.join(WORK), 1)
    assert (delivery.record, delivery.attempts) == (b"m", 2)


@on_every_broker
async def test_what_is_done_does_not_come_back_when_its_reader_has_left(rig: Rig) -> None:
    leaves, stays = await rig.broker(), await rig.broker()
    reader = await leaves.join(WORK)
    for n in range(3):
        await leaves.send(WORK, b"%d" % n, "one key", 1.0)
    first, second, third = await take(reader, 3)
    await reader.ack(third)
    await reader.ack(first)
    await reader.close()
    other = await stays.join(WORK)
    # Kafka cannot say that the third is done while the second is not.
    assert second.record in texts(await take(other, 2, 5.0))
    assert first.record not in texts(await other.poll(2, NEVER_S))


@on_every_broker
async def test_records_of_one_key_keep_their_order(rig: Rig) -> None:
    broker = await rig.broker()
    reader = await broker.join(WORK)
    for n in range(CAPACITY):
        await broker.send(WORK, b"%d" % n, "one key", 1.0)
    assert texts(await take(reader, CAPACITY)) == [b"%d" % n for n in range(CAPACITY)]


# --- Bounds


@on_every_broker
async def test_a_full_channel_refuses_after_the_time_given(rig: Rig) -> None:
    broker = await rig.broker()
    for _ in range(CAPACITY):
        await broker.send(WORK, b"m", "", 1.0)
    began_s = asyncio.get_running_loop().time()
    with pytest.raises(Rejected) as caught:
        await broker.send(WORK, b"too many", "", 0.5)
    assert caught.value.code == "topic_full"
    assert 0.45 <= asyncio.get_running_loop().time() - began_s < 2
    assert await broker.depth(WORK) == CAPACITY


@on_every_broker
async def test_a_sender_goes_on_when_there_is_room(rig: Rig) -> None:
    broker = await rig.broker()
    reader = await broker.join(WORK)
    for _ in range(CAPACITY):
        await broker.send(WORK, b"m", "", 1.0)
    waits = asyncio.create_task(broker.send(WORK, b"waits", "", SOON_S))
    for delivery in await take(reader, CAPACITY):
        await reader.ack(delivery)
    await waits
    assert texts(await take(reader, 1)) == [b"waits"]


@on_every_broker
async def test_what_is_being_handled_takes_room_too(rig: Rig) -> None:
    broker = await rig.broker()
    reader = await broker.join(WORK)
    for _ in range(CAPACITY):
        await broker.send(WORK, b"m", "", 1.0)
    assert len(await take(reader, CAPACITY)) == CAPACITY
    assert await broker.depth(WORK) == CAPACITY
    with pytest.raises(Rejected):
        await broker.send(WORK, b"too many", "", 0.0)


# --- News


@on_every_broker
async def test_each_reader_gets_all_news_since_it_came_in_order(rig: Rig) -> None:
    first, second = await rig.broker(), await rig.broker()
    await first.send(NEWS, b"before", "", 1.0)
    readers = [await first.join(NEWS), await second.join(NEWS)]
    for n in range(CAPACITY):
        await first.send(NEWS, b"%d" % n, "", 1.0)
    for reader in readers:
        news = await take(reader, CAPACITY)
        assert texts(news) == [b"%d" % n for n in range(CAPACITY)]
        for one in news:
            await reader.ack(one)
    third = await second.join(NEWS)
    await first.send(NEWS, b"after", "", 1.0)
    assert texts(await take(third, 1)) == [b"after"]


# --- Notes


@on_every_broker
async def test_a_note_reaches_its_mailbox_only(rig: Rig) -> None:
    brokers = [await rig.broker() for _ in range(3)]
    assert len({broker.address for broker in brokers}) == 3
    await brokers[0].reply(brokers[1].address, b"for the second")
    await brokers[0].reply(brokers[1].address, b"for the second too")
    notes = await brokers[1].receive(SOON_S)
    if len(notes) < 2:
        notes += await brokers[1].receive(SOON_S)
    assert notes == [b"for the second", b"for the second too"]
    assert await brokers[0].receive(NEVER_S) == await brokers[2].receive(NEVER_S) == []


@on_every_broker
async def test_a_note_to_all_reaches_all(rig: Rig) -> None:
    brokers = [await rig.broker() for _ in range(3)]
    await brokers[0].broadcast(b"to all")
    assert [await broker.receive(SOON_S) for broker in brokers] == [[b"to all"]] * 3


@on_every_broker
async def test_a_note_to_nobody_is_no_error(rig: Rig) -> None:
    broker, gone = await rig.broker(), await rig.broker()
    rig.brokers.remove(gone)
    await gone.close()
    await broker.reply(gone.address, b"too late")
    await broker.reply("no address of ours", b"lost")


# --- Dead letters


@on_every_broker
async def test_a_buried_record_is_a_letter_that_can_be_revived(rig: Rig) -> None:
    broker = await rig.broker()
    reader = await broker.join(WORK)
    await broker.send(WORK, b"poison", "", 1.0)
    (delivery,) = await take(reader, 1)
    await reader.dead_letter(delivery, "tries")
    assert await reader.poll(1, NEVER_S) == []
    (letter,) = await broker.dead_letters(10)
    assert (letter.topic, letter.group, letter.reason, letter.attempts) == ("t", "", "tries", 1)
    assert (letter.record, letter.size) == (b"poison", 6)
    assert await broker.requeue_dead_letter(letter.id)
    (delivery,) = await take(reader, 1)
    assert (delivery.record, delivery.attempts) == (b"poison", 1)
    assert await broker.dead_letters(10) == []
    assert not await broker.requeue_dead_letter(letter.id)


@on_every_broker
async def test_letters_come_oldest_first_and_can_be_dropped(rig: Rig) -> None:
    broker = await rig.broker()
    reader = await broker.join(WORK)
    for n in range(3):
        await broker.send(WORK, b"%d" % n, "one key", 1.0)
    for delivery in await take(reader, 3):
        await reader.dead_letter(delivery, "unreadable")
    letters = await broker.dead_letters(2)
    assert [letter.record for letter in letters] == [b"0", b"1"]
    assert await broker.delete_dead_letter(letters[0].id)
    assert not await broker.delete_dead_letter(letters[0].id)
    assert [letter.record for letter in await broker.dead_letters(10)] == [b"1", b"2"]


# --- Trouble


@on_every_broker
async def test_a_broker_that_is_not_there_is_reported_within_five_seconds(rig: Rig) -> None:
    broker = rig.server.unreachable()
    began_s = asyncio.get_running_loop().time()
    with pytest.raises((Unavailable, Invalid)) as caught:
        await broker.start()
    assert asyncio.get_running_loop().time() - began_s < 5.0
    assert getattr(caught.value, "dependency", broker.name) == broker.name
    await broker.close()


@on_every_broker
async def test_closing_twice_is_allowed(rig: Rig) -> None:
    broker = await rig.broker()
    reader = await broker.join(WORK)
    await reader.close()
    await reader.close()
    await broker.close()
    await broker.close()


@on_every_broker
async def test_readers_of_one_instance_each_get_the_news(rig: Rig) -> None:
    broker = await rig.broker()
    readers = [await broker.join(NEWS) for _ in range(3)]
    for n in range(2):
        await broker.send(NEWS, b"%d" % n, "", 1.0)
    for reader in readers:
        assert texts(await take(reader, 2)) == [b"0", b"1"]


@on_every_broker
async def test_what_comes_to_a_reader_that_pauses_is_for_the_others(rig: Rig) -> None:
    pauses, works = await rig.broker(), await rig.broker()
    paused, reader = await pauses.join(WORK), await works.join(WORK)
    await reader.wait_joined()
    await paused.wait_joined()  # after the other, whose joining has it all shared out anew
    await paused.pause()
    for n in range(CAPACITY):
        await works.send(WORK, b"%d" % n, "", 1.0)
    got = await take(reader, CAPACITY)
    assert sorted(texts(got)) == [b"%d" % n for n in range(CAPACITY)]
    assert all(delivery.attempts == 1 for delivery in got)


@on_every_broker
async def test_what_was_on_its_way_to_a_reader_that_pauses_is_for_the_others(rig: Rig) -> None:
    pauses, works = await rig.broker(), await rig.broker()
    paused, reader = await pauses.join(WORK), await works.join(WORK)
    await reader.wait_joined()
    await paused.wait_joined()  # after the other, whose joining has it all shared out anew
    taking = asyncio.create_task(paused.poll(CAPACITY, 1.0))
    await asyncio.sleep(0.2)  # it has asked by now, and is who the broker hands the next record to
    taking.cancel()
    await asyncio.gather(taking, return_exceptions=True)
    pausing = asyncio.create_task(paused.pause())
    for n in range(CAPACITY):
        await works.send(WORK, b"%d" % n, "", 1.0)
    got = await take(reader, CAPACITY)
    await pausing
    assert sorted(texts(got)) == [b"%d" % n for n in range(CAPACITY)]
    assert all(delivery.attempts == 1 for delivery in got)
