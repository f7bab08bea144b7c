"""Kafka for real: who is let in, what goes wrong, partitions that move, messages that kill, a leader that dies."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from penstock.bus.backends.kafka.broker import KafkaBroker
from penstock.bus.backends.kafka.cluster import TopicSpec
from penstock.bus.broker import Channel, ChannelKind, Delivery, Reader, ReplyMessage
from penstock.kernel.context import Context, Deadline
from penstock.kernel.errors import Invalid, PenstockError, Unavailable
from penstock.kernel.messages import Topic
from penstock.kernel.settings import BusSettings, KafkaSettings
from tests.rigs import kafka
from tests.rigs.bus_worker import bus_over_kafka

log = logging.getLogger(__name__)

WORK = Channel("work", ChannelKind.QUEUE)
NEWS = Channel("news", ChannelKind.PUBSUB)
SOON_S = 20.0
#: Connections to one broker at most: requirement L5.
CONNECTIONS_MAX = 10


@pytest.fixture
def one() -> kafka.Cluster:
    return kafka.shared()


@pytest.fixture
def three(request: pytest.FixtureRequest) -> kafka.Cluster:
    kafka.needed()
    return request.getfixturevalue("cluster_of_three")


@pytest.fixture(scope="module")
def cluster_of_three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[kafka.Cluster]:
    with kafka.kafka(tmp_path_factory.mktemp("kafka") / "three", 3) as cluster:
        yield cluster


def names() -> BusSettings:
    """Return settings with names that no other test has."""
    return BusSettings(prefix=f"test-{uuid.uuid4().hex[:8]}", buffer_size=100_000)


def settings(bootstrap: str, **others: Any) -> KafkaSettings:
    return KafkaSettings(**{"bootstrap": bootstrap, "partitions": 4, "mailboxes": 2, "session_timeout": 2.0} | others)


async def take(reader: Reader, count: int) -> list[Delivery]:
    until_s, taken = time.monotonic() + SOON_S, []
    while len(taken) < count and time.monotonic() < until_s:
        taken += await reader.poll(count - len(taken), 0.5)
    return taken


async def refused(broker: KafkaBroker) -> PenstockError:
    """Start a broker that cannot start; return why, which must be known soon."""
    began_s = time.monotonic()
    with pytest.raises(PenstockError) as caught:
        await broker.start()
    await broker.close()
    assert time.monotonic() - began_s < 5.0
    return caught.value


async def beating(broker: KafkaBroker) -> None:
    while True:
        with contextlib.suppress(Unavailable):
            await broker.heartbeat()
        await asyncio.sleep(0.5)


@contextlib.asynccontextmanager
async def started(*brokers: KafkaBroker) -> Any:
    beats = []
    try:
        for broker in brokers:
            await broker.start()
            beats.append(asyncio.create_task(beating(broker)))
        yield
    finally:
        for task in beats:
            task.cancel()
        await asyncio.gather(*beats, return_exceptions=True)
        for broker in brokers:
            await broker.close()


# --- Who is let in


@pytest.mark.parametrize("sasl", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
@pytest.mark.parametrize("way", ["clear", "tls"])
def test_a_name_and_a_password_are_let_in(one: kafka.Cluster, sasl: str, way: str) -> None:
    tls = way == "tls"
    address = one.sasl_tls if tls else one.sasl
    ca = str(one.certificate) if tls else ""
    login = settings(address, sasl=sasl, user=kafka.USER, password=kafka.PASSWORD, tls=tls, ca=ca)

    async def main() -> None:
        broker = KafkaBroker(names(), login, {})
        async with started(broker):
            await broker.reply(broker.address, b"note")
            assert await broker.receive(SOON_S) == [b"note"]

    asyncio.run(main())


def test_a_wrong_password_is_told_without_showing_it(one: kafka.Cluster) -> None:
    login = settings(one.sasl, sasl="PLAIN", user=kafka.USER, password="my own secret")
    error = asyncio.run(refused_by(login))
    assert isinstance(error, Invalid)
    assert error.field == "kafka.user"
    assert kafka.USER in error.detail
    assert "my own secret" not in repr(error) + error.detail + repr(login)


async def refused_by(kafka_settings: KafkaSettings) -> PenstockError:
    return await refused(KafkaBroker(names(), kafka_settings, {}))


def test_a_password_where_none_is_wanted_and_none_where_one_is(one: kafka.Cluster) -> None:
    login = {"sasl": "PLAIN", "user": kafka.USER, "password": kafka.PASSWORD}
    assert isinstance(asyncio.run(refused_by(settings(one.bootstrap, **login))), Invalid)
    assert asyncio.run(refused_by(settings(one.sasl))).detail.startswith(f"Kafka at {one.sasl}")


def test_a_certificate_not_to_be_believed_is_named(one: kafka.Cluster) -> None:
    login = settings(one.sasl_tls, sasl="PLAIN", user=kafka.USER, password=kafka.PASSWORD, tls=True)
    error = asyncio.run(refused_by(login))
    assert isinstance(error, Invalid)
    assert error.field == "kafka.ca"


def test_tls_where_there_is_none_is_told(one: kafka.Cluster) -> None:
    error = asyncio.run(refused_by(settings(one.bootstrap, tls=True, ca=str(one.certificate))))
    assert one.bootstrap in error.detail


def test_incomplete_settings_are_told_before_anything_is_tried(tmp_path: Path) -> None:
    async def main() -> None:
        for wrong, field in (
            (settings("127.0.0.1:1", sasl="PLAIN", user="me"), "kafka.user"),
            (settings("127.0.0.1:1", tls=True, ca=str(tmp_path / "nothing.pem")), "kafka.ca"),
        ):
            with pytest.raises(Invalid) as caught:
                KafkaBroker(names(), wrong, {})
            assert caught.value.field == field

    asyncio.run(main())


# --- Brokers in trouble


@pytest.mark.parametrize("address", ["127.0.0.1:1", "no-such-host.invalid:9092", "127.0.0.1:1,127.0.0.1:2"])
def test_brokers_that_are_not_there_are_named(address: str) -> None:
    error = asyncio.run(refused_by(settings(address)))
    assert isinstance(error, Unavailable)
    assert (error.dependency, address in error.detail) == ("kafka", True)


@pytest.mark.parametrize("address", ["127.0.0.1:none", "127.0.0.1:9092:9093", ""])
def test_what_is_no_address_is_told(address: str) -> None:
    error = asyncio.run(refused_by(settings(address)))
    assert isinstance(error, Invalid | Unavailable)


def test_a_broker_that_accepts_and_never_answers_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        error = asyncio.run(refused_by(settings(f"127.0.0.1:{silent.getsockname()[1]}")))
    assert isinstance(error, Unavailable)


def test_a_second_bootstrap_server_is_enough(one: kafka.Cluster) -> None:
    async def main() -> None:
        async with started(KafkaBroker(names(), settings(f"127.0.0.1:1,{one.bootstrap}"), {})):
            pass

    asyncio.run(main())


def test_a_frozen_broker_stops_nothing_for_longer_than_the_patience(three: kafka.Cluster) -> None:
    # All three at once: there is nobody to ask.
    async def main() -> None:
        broker = KafkaBroker(names(), settings(three.bootstrap), {})
        await broker.start()
        reader = await broker.join(WORK)
        for server in three.brokers:
            server.freeze()
        try:
            for call in (
                lambda: broker.send(WORK, b"m", "", 0.0),
                lambda: broker.reply(broker.address, b"m"),
            ):
                began_s = time.monotonic()
                with pytest.raises(Unavailable):
                    await call()
                assert time.monotonic() - began_s < 5.0
            began_s = time.monotonic()
            with contextlib.suppress(Unavailable):
                assert await reader.poll(1, 0.5) == []
            assert time.monotonic() - began_s < 5.0
            began_s = time.monotonic()
            await broker.close()
            assert time.monotonic() - began_s < 6.0
        finally:
            for server in three.brokers:
                server.thaw()

    asyncio.run(main())


def test_a_record_that_is_too_large_is_refused_with_the_bound(one: kafka.Cluster) -> None:
    async def main() -> None:
        broker = KafkaBroker(replace(names(), record_max=2_000_000), settings(one.bootstrap), {})
        async with started(broker):
            reader = await broker.join(WORK)
            with pytest.raises(Invalid) as caught:
                await broker.send(WORK, bytes(100_000_000), "", 1.0)
            assert caught.value.code == "too_large"
            assert "2000000" in caught.value.detail
            whole = os.urandom(2_000_000)
            await broker.send(WORK, whole, "", 1.0)
            (delivery,) = await take(reader, 1)
            assert delivery.record == whole
            await reader.dead_letter(delivery, "too_large")
            (letter,) = await broker.dead_letters(1)
            assert (letter.size, len(letter.record)) == (2_000_000, 65_536)
            assert not await broker.requeue_dead_letter(letter.id)

    asyncio.run(main())


# --- Topics that are there already


def test_a_topic_with_too_few_partitions_is_used_with_a_warning_that_names_both_numbers(
    one: kafka.Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        bus = names()
        small, large = settings(one.bootstrap, partitions=1), settings(one.bootstrap, partitions=6)
        async with started(KafkaBroker(bus, small, {}), broker := KafkaBroker(bus, small, {})):
            await broker.join(WORK)
        async with started(broker := KafkaBroker(bus, large, {})):
            await broker.send(WORK, b"m", "", 1.0)
            assert len(await take(await broker.join(WORK), 1)) == 1

    with caplog.at_level(logging.WARNING, "penstock"):
        asyncio.run(main())
    (warning,) = [record.getMessage() for record in caplog.records if "partitions" in record.getMessage()]
    assert "has 1 of 6 partitions" in warning


def test_a_mailbox_topic_without_room_for_a_mailbox_is_refused(one: kafka.Cluster) -> None:
    async def main() -> PenstockError:
        bus = names()
        broker = KafkaBroker(bus, settings(one.bootstrap), {})
        await broker._cluster.start()
        await broker._cluster.ensure_topic(f"{bus.prefix}-notes", TopicSpec(1, 1, {}))
        await broker.close()
        return await refused(KafkaBroker(bus, settings(one.bootstrap), {}))

    error = asyncio.run(main())
    assert isinstance(error, Invalid)
    assert "has 1 partitions and needs 2" in error.detail


# --- Connections: limit L5


def test_an_instance_never_has_more_connections_to_a_broker_than_allowed(one: kafka.Cluster) -> None:
    async def main() -> None:
        broker = KafkaBroker(names(), settings(one.bootstrap), {})
        most = 0
        async with started(broker):
            channels = [Channel(f"t{n}", ChannelKind.QUEUE) for n in range(6)]
            readers = [await broker.join(channel) for channel in channels]
            readers += [await broker.join(Channel(f"n{n}", ChannelKind.PUBSUB)) for n in range(6)]

            async def read(reader: Reader) -> None:
                while True:
                    for delivery in await reader.poll(10, 0.5):
                        await reader.ack(delivery, ReplyMessage(broker.address, b"a"))

            tasks = [asyncio.create_task(read(reader)) for reader in readers]
            for _ in range(20):
                await asyncio.gather(*[broker.send(channel, b"m", "", 1.0) for channel in channels for _ in range(10)])
                await broker.send(NEWS, b"m", "", 1.0)
                most = max(most, broker.connections, established(one.brokers[0]))
            for task in tasks:
                task.cancel()
        assert 5 <= most <= CONNECTIONS_MAX

    asyncio.run(main())


def established(broker: kafka.Broker) -> int:
    """Return how many connections of this process a broker has, by the broker's own end of each."""
    assert broker.process
    here = {local for local, _ in sockets("self", "tcp", "tcp6")}
    there = sockets(str(broker.process.pid), "tcp", "tcp6")
    return sum(local == broker.port and remote in here for local, remote in there)


def sockets(process: str, *families: str) -> list[tuple[int, int]]:
    """Return the ports of each connection that a process has: its own, and the other's."""
    inodes = set()
    for entry in Path(f"/proc/{process}/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            inodes.add(str(entry.readlink()))
    found = []
    for family in families:
        for line in Path(f"/proc/{process}/net/{family}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "01" and f"socket:[{fields[9]}]" in inodes:
                local, remote = (int(end.rpartition(":")[2], 16) for end in fields[1:3])
                found.append((local, remote))
    return found


# --- Partitions that move


class Flow:
    """Senders, and instances that come and go; counts what was acknowledged to whom."""

    def __init__(self, make: Callable[[], KafkaBroker]) -> None:
        self.make = make
        self.sent: list[bytes] = []
        self.handled: Counter[bytes] = Counter()
        self.failed = 0
        self.gaps_s: list[float] = []

    def __repr__(self) -> str:
        gap_s = max(self.gaps_s)
        return f"<Flow {len(self.sent)} sent, {self.failed} refused, {self.twice} twice, {gap_s:.1f} s without>"

    async def send(self, broker: KafkaBroker, until: asyncio.Event) -> None:
        last_s = time.monotonic()
        while not until.is_set():
            record = b"%d" % len(self.sent)
            try:
                await broker.send(WORK, record, "", 5.0)
            except Unavailable:
                self.failed += 1
                continue
            self.sent.append(record)
            self.gaps_s.append(time.monotonic() - last_s)
            last_s = time.monotonic()
            await asyncio.sleep(0.002)

    async def work(self, reader: Reader) -> None:
        while True:
            try:
                for delivery in await reader.poll(8, 0.5):
                    self.handled[delivery.record] += 1
                    await reader.ack(delivery)
            except Unavailable:
                await asyncio.sleep(0.1)

    async def all_handled(self) -> None:
        until_s = time.monotonic() + 30
        while set(self.sent) - set(self.handled):
            assert time.monotonic() < until_s, f"{len(set(self.sent) - set(self.handled))} lost"
            await asyncio.sleep(0.05)

    @property
    def twice(self) -> int:
        return sum(count - 1 for count in self.handled.values())


def flowing(cluster: kafka.Cluster, disturb: Callable[[Flow], Coroutine[Any, Any, None]]) -> Flow:
    """Let records flow through two workers while something happens, and for a while after."""
    bus, here = names(), settings(cluster.bootstrap)
    flow = Flow(lambda: KafkaBroker(bus, here, {}))

    async def main() -> None:
        sender, first, second = flow.make(), flow.make(), flow.make()
        async with started(sender, first, second):
            workers = [asyncio.create_task(flow.work(await one.join(WORK))) for one in (first, second)]
            enough = asyncio.Event()
            sending = asyncio.create_task(flow.send(sender, enough))
            await asyncio.sleep(1.0)
            await disturb(flow)
            await asyncio.sleep(1.0)
            enough.set()
            await sending
            await flow.all_handled()
            for task in workers:
                task.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    asyncio.run(main())
    assert len(flow.sent) > 30
    return flow


def test_instances_that_come_and_go_lose_nothing_and_repeat_nothing(one: kafka.Cluster) -> None:
    async def come_and_go(flow: Flow) -> None:
        for _ in range(3):
            async with started(broker := flow.make()):
                reader = await broker.join(WORK)
                working = asyncio.create_task(flow.work(reader))
                await asyncio.sleep(1.0)
                working.cancel()
                await asyncio.gather(working, return_exceptions=True)
                await reader.close()

    flow = flowing(one, come_and_go)
    # What a reader had fetched and not handed out is no delivery; what ran has been settled and committed.
    assert flow.twice <= 8
    assert flow.failed == 0


def test_topics_joined_or_left_together_make_the_group_share_out_only_once(one: kafka.Cluster) -> None:
    async def main() -> tuple[int, int]:
        bus, here = names(), settings(one.bootstrap)
        channels = [Channel(f"t{n}", ChannelKind.QUEUE) for n in range(6)]
        async with started(first := KafkaBroker(bus, here, {}), second := KafkaBroker(bus, here, {})):
            stays = [await first.join(channel) for channel in channels]
            await asyncio.gather(*(reader.wait_joined() for reader in stays))
            crew = first._workers

            begun = crew.rebalances
            goes = await asyncio.gather(*(second.join(channel) for channel in channels))
            await asyncio.gather(*(reader.wait_joined() for reader in (*goes, *stays)))
            joined = crew.rebalances - begun

            begun = crew.rebalances
            await asyncio.gather(*(reader.close() for reader in goes))
            while any(crew.foreign_partitions(reader.topic) for reader in stays):  # noqa: ASYNC110 - the crew has no event for it
                await asyncio.sleep(0.01)
            return joined, crew.rebalances - begun

    assert asyncio.run(main()) == (1, 1)


def test_a_slow_handler_s_partition_may_go_and_come_back_without_a_second_delivery(one: kafka.Cluster) -> None:
    async def main() -> None:
        bus, here = names(), settings(one.bootstrap, partitions=1)
        first, second = KafkaBroker(bus, here, {}), KafkaBroker(bus, here, {})
        async with started(first, second):
            reader = await first.join(WORK)
            await first.send(WORK, b"slow", "", 1.0)
            (slow,) = await take(reader, 1)
            # Whoever joins for another topic has everything shared out anew, this partition too.
            await second.join(Channel("other", ChannelKind.QUEUE))
            assert await reader.poll(1, 6.0) == []
            await reader.ack(slow)
            await first.send(WORK, b"next", "", 1.0)
            assert [one.record for one in await take(reader, 1)] == [b"next"]

    asyncio.run(main())


# --- Messages that kill


TRIES = 3


def test_deaths_over_a_message_count_as_its_deliveries_and_no_bystander_is_buried(one: kafka.Cluster) -> None:
    # Each owner takes all three at once; the poison, in the middle, kills it before anything is done.
    tries: dict[bytes, int] = {}
    ended: set[bytes] = set()

    async def live(reader: Reader) -> bool:
        """Handle what comes; return whether that was survived."""
        while len(ended) < 3:
            batch = await reader.poll(3, 1.0)
            tries.update({delivery.record: delivery.attempts for delivery in batch})
            if any(one.record == b"poison" and one.attempts <= TRIES for one in batch):
                return False
            for delivery in batch:
                await (reader.dead_letter(delivery, "tries") if delivery.attempts > TRIES else reader.ack(delivery))
                ended.add(delivery.record)
        return True

    async def main() -> list[bytes]:
        bus, here = names(), settings(one.bootstrap, partitions=1)
        async with started(sender := KafkaBroker(bus, here, {})):
            for record in (b"before", b"poison", b"after"):
                await sender.send(WORK, record, "", 1.0)
            for _ in range(10):
                owner = KafkaBroker(bus, here, {})
                await owner.start()
                if await live(await owner.join(WORK)):
                    await owner.close()
                    break
                await kafka.crash(owner)
            return [letter.record for letter in await sender.dead_letters(10)]

    assert asyncio.run(main()) == [b"poison"]
    assert tries[b"poison"] == TRIES + 1
    assert max(tries[b"before"], tries[b"after"]) <= TRIES


# --- A cluster that loses its leader


def test_a_killed_leader_costs_some_seconds_and_nothing_that_was_acknowledged(three: kafka.Cluster) -> None:
    async def kill(flow: Flow) -> None:
        victim = three.brokers[0]
        victim.kill()
        await asyncio.sleep(6.0)
        three.launch(victim.number)
        await asyncio.to_thread(three.await_start, victim.number)

    flow = flowing(three, kill)
    assert max(flow.gaps_s) < 15.0
    log.info("%r", flow)


def test_a_frozen_leader_costs_some_seconds_and_nothing_that_was_acknowledged(three: kafka.Cluster) -> None:
    async def freeze(flow: Flow) -> None:
        victim = three.brokers[1]
        victim.freeze()
        await asyncio.sleep(8.0)
        victim.thaw()
        await asyncio.sleep(2.0)

    flow = flowing(three, freeze)
    assert max(flow.gaps_s) < 15.0
    log.info("%r", flow)


# --- A worker that is killed

#: Longer than every request may take: no partition has moved by then.
SESSION_S = 12.0
#: Within which a request is answered whose worker was killed. The goal of 2.5 s is the benchmark's.
ELSEWHERE_S = 6.0


def test_a_killed_worker_costs_requests_that_may_be_repeated_a_moment_and_not_its_session(one: kafka.Cluster) -> None:
    prefix = f"test-{uuid.uuid4().hex[:8]}"
    command = [sys.executable, "-m", "tests.rigs.bus_worker", one.bootstrap, prefix, str(SESSION_S)]
    workers = [subprocess.Popen(command, cwd=Path(__file__).parents[2]) for _ in range(2)]

    async def main() -> None:
        bus = await bus_over_kafka(one.bootstrap, prefix, SESSION_S)
        loop, took = asyncio.get_running_loop(), {}

        async def ask(number: int) -> None:
            began_s = loop.time()
            ctx = Context(Deadline(began_s + ELSEWHERE_S, "embed"))
            assert await bus.request(Topic.ML_EMBED, number, ctx) == number
            took[number] = loop.time() - began_s

        try:
            until_s = loop.time() + 60
            while bus.instance_counts().get(Topic.ML_EMBED, 0) < 2:
                assert loop.time() < until_s
                await asyncio.sleep(0.05)
            tasks = []
            for number in range(60):
                tasks.append(asyncio.create_task(ask(number)))
                if number == 20:
                    workers[0].kill()
                await asyncio.sleep(0.05)
            await asyncio.gather(*tasks)
            log.info("slowest %.2f s", max(took.values()))
        finally:
            await bus.close()

    try:
        asyncio.run(main())
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
