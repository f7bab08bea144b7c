"""What the bus promises where several instances share a broker (SPEC B6, DESIGN §6), whichever broker it is.

The fake broker runs on virtual time; a real one in a process of its own, on the wall clock.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from penstock.bus.broker import HEARTBEAT_S, Broker, Channel, ChannelKind
from penstock.bus.broker_breaker import BrokerBreaker
from penstock.bus.distributed import BrokerBus
from penstock.bus.record_codec import MAGIC, VERSION, MessageTypes, RecordCodec
from penstock.bus.rpc_client import BrokerTransport
from penstock.kernel.context import Context, Criticality
from penstock.kernel.errors import Broken, Expired, Invalid, PenstockError, Rejected, Unavailable
from penstock.kernel.messages import EmbedBatch, TextKind, Topic
from penstock.kernel.settings import BusSettings, GuardSettings, KafkaSettings, RedisSettings
from penstock.pools.permits import Permits
from tests.clock import run
from tests.fakes.broker import FakeBroker, Server
from tests.fakes.loop_clock import LoopClock
from tests.rigs import kafka, redis

WORK = Channel("t", ChannelKind.QUEUE)
LIMITS = BusSettings(
    buffer_size=4,
    publish_timeout=1.0,
    request_timeout=20.0,
    handler_timeout=15.0,
    client_share=1.0,
    lease=2.0,
    ahead=0,
    record_max=50_000,
)
SHAPES = {"typed": MessageTypes(EmbedBatch, list[int])}
#: How many records a channel holds.
HELD = 100
#: Long enough for whatever should happen.
SOON_S = 15.0


@dataclass
class Place:
    """A broker's server, as one test sees it.

    Attributes:
        make: A new instance's connection.
        crash: End an instance's connection as if its process were gone.
        silence: Let the server accept everything and answer nothing, or end that.
    """

    make: Callable[[], Broker]
    crash: Callable[[Any], Coroutine[Any, Any, None]]
    silence: Callable[[bool], None]


@dataclass(frozen=True)
class Backend:
    """A way to carry records.

    Attributes:
        name: Its name.
        place: Where a test's instances connect; skips the test where there is none.
        run: Run a coroutine to its end.
    """

    name: str
    place: Callable[[], Place]
    run: Callable[[Coroutine[Any, Any, None]], None]


def fake_place() -> Place:
    server = Server(HELD, lease_s=LIMITS.lease)

    async def crash(broker: FakeBroker) -> None:
        broker.crash()

    def silence(on: bool) -> None:  # noqa: FBT001
        server.silent = on

    return Place(lambda: FakeBroker(server), crash, silence)


def redis_place() -> Place:
    from penstock.bus.backends.redis.broker import RedisBroker

    server = redis.shared()
    bus = replace(LIMITS, prefix=f"test-{uuid.uuid4().hex[:8]}", buffer_size=HELD)

    def silence(on: bool) -> None:  # noqa: FBT001
        server.freeze() if on else server.thaw()

    return Place(lambda: RedisBroker(bus, RedisSettings(url=server.url), {}), redis.crash, silence)


def kafka_place() -> Place:
    from penstock.bus.backends.kafka.broker import KafkaBroker

    cluster = kafka.shared()
    bus = replace(LIMITS, prefix=f"test-{uuid.uuid4().hex[:8]}", buffer_size=HELD)
    here = KafkaSettings(bootstrap=cluster.bootstrap, partitions=2, mailboxes=2, session_timeout=2.0)

    def silence(on: bool) -> None:  # noqa: FBT001
        for server in cluster.brokers:
            server.freeze() if on else server.thaw()

    return Place(lambda: KafkaBroker(bus, here, {}), kafka.crash, silence)


BACKENDS = [
    Backend("fake", fake_place, run),
    Backend("redis", redis_place, asyncio.run),
    Backend("kafka", kafka_place, asyncio.run),
]


class Instance:
    """One instance of the bus."""

    def __init__(self, broker: Broker, limits: BusSettings, marks: dict[str, str]) -> None:
        self.broker = broker
        self.link = BrokerBreaker(broker.name, GuardSettings())
        self.wire = RecordCodec(SHAPES, limits.record_max)
        self.bus = BrokerBus(
            BrokerTransport(broker, self.wire, self.link), limits, {}, LoopClock(), compatibility_keys=marks
        )

    def serve(self, handler: Any, slots: int = 1, topic: str = "t") -> Permits:
        permits = Permits(topic, slots)
        self.bus.subscribe(topic, handler, permits)
        return permits

    def ask(self, message: object, topic: str = "t", ctx: Context | None = None) -> asyncio.Task[Any]:
        return asyncio.create_task(self.bus.request(topic, message, ctx or Context.background()))

    def state(self, topic: str = "t") -> Any:
        return next((state for state in self.bus.state() if state.name == topic), None)


@dataclass
class Rig:
    """Instances at one broker."""

    place: Place
    instances: list[Instance] = field(default_factory=list)

    async def instance(self, marks: dict[str, str] | None = None, **limits: Any) -> Instance:
        broker = self.place.make()
        await broker.start()
        one = Instance(broker, replace(LIMITS, **limits), marks or {})
        self.instances.append(one)
        return one

    async def crash(self, one: Instance) -> None:
        """End an instance as if its process were gone."""
        self.instances.remove(one)
        await self.place.crash(one.broker)
        bus = one.bus
        tasks = [
            *bus._membership._tasks,
            *(c._task for c in bus._consumers),
            *(t for c in bus._consumers for t in c._tasks),
        ]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        bus._closed = True
        await bus._worker_bus.close()

    async def until(self, so: Callable[[], object], within_s: float = SOON_S) -> None:
        """Wait until something is so."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + within_s
        while not so():
            assert loop.time() < end_s, "it did not come about"
            await asyncio.sleep(0.02)

    async def empty(self, seen_by: Instance) -> None:
        """Wait until nothing is in the channel."""
        end_s = asyncio.get_running_loop().time() + SOON_S
        while await seen_by.broker.depth(WORK):
            assert asyncio.get_running_loop().time() < end_s, "something stayed"
            await asyncio.sleep(0.05)

    async def served(self, by: Instance, topic: str = "t", count: int = 1) -> None:
        """Wait until an instance knows of so many who serve a topic."""
        await self.until(lambda: by.bus.instance_counts().get(topic, 0) == count)

    async def letters(self, count: int) -> list[Any]:
        """Wait for dead letters."""
        broker, found = self.instances[0].broker, []
        end_s = asyncio.get_running_loop().time() + SOON_S
        while len(found) < count and asyncio.get_running_loop().time() < end_s:
            found = await broker.dead_letters(100)
            await asyncio.sleep(0.02)
        return found


@asynccontextmanager
async def rigged(backend: Backend) -> AsyncIterator[Rig]:
    rig = Rig(backend.place())
    try:
        yield rig
    finally:
        for one in rig.instances:
            await one.bus.close()


def on_every_broker(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Make a test of a coroutine that takes a ``Rig``, run on each backend."""

    @pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)
    def ordinary(backend: Backend, caplog: pytest.LogCaptureFixture) -> None:
        async def main() -> None:
            async with rigged(backend) as rig:
                await (test(rig, caplog) if test.__code__.co_argcount > 1 else test(rig))

        backend.run(main())

    functools.update_wrapper(ordinary, test, assigned=("__name__", "__doc__", "__module__", "__qualname__"))
    del ordinary.__wrapped__  # type: ignore[attr-defined]
    return ordinary


class Gate:
    """A handler that notes what it gets and answers when it is let."""

    def __init__(self, *, opened: bool = False) -> None:
        self.begun: list[object] = []
        self.ended: list[object] = []
        self.cancelled: list[object] = []
        self.open = asyncio.Event()
        if opened:
            self.open.set()

    async def __call__(self, message: object, _ctx: Context) -> object:
        self.begun.append(message)
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled.append(message)
            raise
        self.ended.append(message)
        return message


async def echo(message: object, _ctx: Context) -> object:
    return message


async def outcome(task: asyncio.Task[Any]) -> object:
    """Return a task's result, or the error it raised."""
    return (await asyncio.gather(task, return_exceptions=True))[0]


def within(limit_s: float, criticality: Criticality = Criticality.STANDARD) -> Context:
    now_s = asyncio.get_running_loop().time()
    return replace(Context.background(), criticality=criticality).within(limit_s, "search", now_s)


# --- Asked here, served there


@on_every_broker
async def test_a_request_is_answered_by_another_instance(rig: Rig) -> None:
    api, worker = await rig.instance(), await rig.instance()
    seen: list[Context] = []
    worker.serve(echo, 2)
    await rig.served(api)
    assert await asyncio.gather(*(api.ask(n) for n in range(4))) == list(range(4))
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    async def typed(message: EmbedBatch, ctx: Context) -> list[int]:
        seen.append(ctx)
        return [len(text) for text in message.texts]

    worker.serve(typed, topic="typed")
    await rig.served(api, "typed")
    label = replace(within(5.0), client="alice", request_id="r1", traceparent=trace)
    assert await api.ask(EmbedBatch(["a", "bb"], TextKind.QUERY), "typed", label) == [1, 2]
    (ctx,) = seen
    assert (ctx.client, ctx.request_id, ctx.traceparent) == ("alice", "r1", trace)
    assert (ctx.criticality, ctx.deadline.operation) == (Criticality.STANDARD, "search")
    assert 3.0 < ctx.deadline.remaining_s(asyncio.get_running_loop().time()) <= 5.0


@pytest.mark.parametrize(
    "error",
    [
        Rejected("too many", code="topic_full", retry_after_s=7.0, by_client=True),
        Expired("embed"),
        Unavailable("the store is down", dependency="store", code="disk_full"),
        Invalid("no such collection", field="collection", code="collection_not_found"),
        Broken("a bug"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_comes_back_as_it_was_raised(error: PenstockError) -> None:
    async def main() -> None:
        async with rigged(BACKENDS[0]) as rig:
            api, worker = await rig.instance(), await rig.instance()

            async def fails(_message: object, _ctx: Context) -> None:
                raise error

            worker.serve(fails)
            await rig.served(api)
            told = await outcome(api.ask("m"))
            assert type(told) is type(error)
            assert isinstance(told, PenstockError)
            assert (told.code, told.detail, told.retryable) == (error.code, error.detail, error.retryable)
            assert {**vars(error), **vars(told)} == vars(told)

    run(main())


@on_every_broker
async def test_instances_share_the_work(rig: Rig) -> None:
    api, workers = await rig.instance(), [await rig.instance() for _ in range(2)]
    gates = [Gate(), Gate()]
    for worker, gate in zip(workers, gates, strict=True):
        worker.serve(gate)
    await rig.served(api, count=2)
    tasks = [api.ask(n) for n in range(4)]
    await rig.until(lambda: gates[0].begun and gates[1].begun)
    for gate in gates:
        gate.open.set()
    assert await asyncio.gather(*tasks) == [0, 1, 2, 3]


@on_every_broker
async def test_an_event_comes_to_every_instance(rig: Rig) -> None:
    api, workers = await rig.instance(), [await rig.instance() for _ in range(2)]
    gates = [Gate(opened=True), Gate(opened=True)]
    for worker, gate in zip(workers, gates, strict=True):
        worker.serve(gate)
    await rig.served(api, count=2)
    await rig.until(lambda: all(one.bus._consumers[1]._reader for one in workers))
    await api.bus.publish("t", "news", Context.background())
    await rig.until(lambda: [gate.begun for gate in gates] == [["news"]] * 2)


@on_every_broker
async def test_instances_of_different_models_do_not_do_each_other_s_work(rig: Rig) -> None:
    api, other = await rig.instance(marks={"t": "model a"}), await rig.instance(marks={"t": "model b"})
    other.serve(echo)
    await rig.served(other)
    await rig.until(lambda: api.bus._membership.registry.instance_counts(asyncio.get_running_loop().time()))
    told = await outcome(api.ask("m"))
    assert isinstance(told, Unavailable)
    assert told.detail == "no worker serves t with the models used here; others do, with other ones"
    same = await rig.instance(marks={"t": "model a"})
    same.serve(echo)
    await rig.served(api)
    assert await api.ask("m") == "m"
    assert other.state().counts.offered == 0


# --- Bounds where it is asked


@on_every_broker
async def test_an_instance_that_serves_nothing_keeps_the_bounds_and_says_how_full_it_is(rig: Rig) -> None:
    api, worker = await rig.instance(), await rig.instance()
    gate = Gate()
    worker.serve(gate)
    await rig.served(api)
    assert api.bus.fill_ratio("t") == 0.0
    assert api.bus.check_admission("t", Context.background()) is None
    tasks = [api.ask(n, ctx=replace(Context.background(), client=f"c{n}")) for n in range(1 + LIMITS.buffer_size)]
    await rig.until(lambda: gate.begun)
    assert (api.state().waiting, api.state().running, api.bus.fill_ratio("t")) == (LIMITS.buffer_size, 1, 1.0)
    refusal = api.bus.check_admission("t", Context.background())
    assert refusal is not None
    assert refusal.code == "topic_full"
    told = await outcome(api.ask("too many", ctx=replace(Context.background(), client="late")))
    assert isinstance(told, Rejected)
    assert told.code == "topic_full"
    gate.open.set()
    assert await asyncio.gather(*tasks) == list(range(1 + LIMITS.buffer_size))
    assert "too many" not in gate.begun


@on_every_broker
async def test_one_client_holds_no_more_than_its_share(rig: Rig) -> None:
    api, worker = await rig.instance(client_share=0.25), await rig.instance()
    gate = Gate()
    worker.serve(gate)
    await rig.served(api)
    tasks = [api.ask(n) for n in range(2)]
    await rig.until(lambda: gate.begun)
    told = await outcome(api.ask("more than its share"))
    assert isinstance(told, Rejected)
    assert told.code == "client_share"
    gate.open.set()
    await asyncio.gather(*tasks)


@on_every_broker
async def test_a_worker_takes_no_more_than_it_can_begin(rig: Rig) -> None:
    apis, worker = [await rig.instance() for _ in range(3)], await rig.instance(ahead=1)
    gate = Gate()
    worker.serve(gate, 2)
    for api in apis:
        await rig.served(api)
    tasks = [api.ask(n) for api in apis for n in range(3)]
    await rig.until(lambda: len(gate.begun) == 2 and len(worker.bus._consumers[0]._tasks) == 3)
    assert await worker.broker.depth(WORK) > 3
    gate.open.set()
    await asyncio.gather(*tasks)


@on_every_broker
async def test_bulk_work_never_stands_between_the_urgent_and_a_worker(rig: Rig) -> None:
    api, worker = await rig.instance(), await rig.instance(ahead=1)
    gate = Gate()
    worker.serve(gate)
    await rig.served(api)
    bulk = [api.ask(n) for n in range(4)]
    await rig.until(lambda: gate.begun)
    urgent = api.ask("urgent", ctx=within(10.0, Criticality.INTERACTIVE))
    await rig.until(lambda: len(worker.bus._consumers[0]._tasks) == 2)
    gate.open.set()
    await asyncio.gather(*bulk, urgent)
    assert gate.begun[1] == "urgent"


@on_every_broker
async def test_nobody_serves_is_told_at_once_and_a_worker_that_comes_is_found(rig: Rig) -> None:
    api = await rig.instance()
    told = await outcome(api.ask("m"))
    assert isinstance(told, Unavailable)
    assert told.dependency == "t"
    worker = await rig.instance()
    worker.serve(echo)
    await rig.served(api)
    assert await api.ask("m") == "m"


@on_every_broker
async def test_who_has_joined_is_known_before_its_next_beat(rig: Rig) -> None:
    api, worker = await rig.instance(), await rig.instance()
    await rig.until(
        lambda: not any("does not answer" in why for one in (api, worker) for why in one.bus.unready_reasons())
    )
    worker.serve(echo)
    await worker.bus.wait_joined()
    await rig.until(lambda: "t" in api.bus.instance_counts(), within_s=HEARTBEAT_S / 2)
    assert await api.ask("m") == "m"


# --- Requesters that leave


@on_every_broker
async def test_a_request_that_is_withdrawn_is_stopped_where_it_runs(rig: Rig) -> None:
    api, worker = await rig.instance(), await rig.instance()
    gate = Gate()
    slots = worker.serve(gate)
    await rig.served(api)
    leaves, stays = api.ask("leaves"), api.ask("stays")
    await rig.until(lambda: gate.begun)
    leaves.cancel()
    await rig.until(lambda: gate.begun == ["leaves", "stays"])
    assert gate.cancelled == ["leaves"]
    gate.open.set()
    assert await stays == "stays"
    await rig.until(lambda: slots.active == 0)
    await rig.empty(worker)


@on_every_broker
async def test_a_request_that_is_withdrawn_or_too_late_before_a_worker_took_it_is_never_begun(rig: Rig) -> None:
    api, other, worker = await rig.instance(), await rig.instance(), await rig.instance()
    gate = Gate()
    worker.serve(gate)
    for one in (api, other):
        await rig.served(one)
    runs = api.ask("runs")
    await rig.until(lambda: gate.begun)
    leaves, late = other.ask("leaves"), api.ask("late", ctx=within(1.0))
    await rig.until(lambda: (state := other.state()) and state.running == 1)
    leaves.cancel()
    assert isinstance(await outcome(late), Expired | Rejected), "given up by its own clock, or refused by the worker's"
    late_too = asyncio.create_task(other.bus.request("t", "late too", within(1.0)))
    assert isinstance(await outcome(late_too), Expired | Rejected)
    gate.open.set()
    assert await runs == "runs"
    assert await api.ask("next") == "next"
    assert gate.begun == ["runs", "next"]
    await rig.until(lambda: worker.state().counts.left + worker.state().counts.expired_waiting >= 1)


# --- Workers that die or leave


@on_every_broker
async def test_what_a_dead_worker_held_is_done_by_another(rig: Rig) -> None:
    api, dies = await rig.instance(), await rig.instance()
    hangs, gate = Gate(), Gate(opened=True)
    dies.serve(hangs, 2)
    await rig.served(api)
    tasks = [api.ask(n) for n in range(4)]
    await rig.until(lambda: len(hangs.begun) == 2)
    await rig.crash(dies)
    lives = await rig.instance()
    lives.serve(gate)
    assert await asyncio.gather(*tasks) == [0, 1, 2, 3]
    assert sorted(map(str, gate.ended)) == ["0", "1", "2", "3"]


@on_every_broker
async def test_what_may_be_repeated_goes_to_another_when_its_worker_is_missed_and_is_done_there_once(rig: Rig) -> None:
    topic = str(Topic.ML_RERANK)
    api, dies, lives = await rig.instance(), await rig.instance(), await rig.instance()
    hangs, gate = Gate(), Gate()
    dies.serve(hangs, 3, topic)
    lives.serve(gate, 3, topic)
    await rig.served(api, topic, 2)
    tasks = [api.ask(n, topic) for n in range(6)]
    await rig.until(lambda: hangs.begun or gate.begun)
    await rig.crash(dies)
    pending = api.bus._rpc._pending
    await rig.until(lambda: len(gate.begun) >= 3 and all(asked.handovers for asked in pending.values()))
    gate.open.set()
    assert await asyncio.gather(*tasks) == list(range(6))
    # On a busy machine the living one may be missed for a moment too; what it had begun is then done once more.
    assert {*gate.ended} == {*range(6)}
    assert len(gate.ended) <= 9
    again = await asyncio.gather(*(api.ask(n, topic) for n in range(6, 12)))
    assert again == list(range(6, 12))
    # What the dead one held comes to it in the end, and is not begun.
    await rig.until(lambda: lives.state(topic) is not None and not lives.bus._consumers[0]._tasks)
    assert {*gate.begun} == {*range(12)}


@on_every_broker
async def test_what_kills_every_worker_is_buried_and_its_requester_told(rig: Rig) -> None:
    api = await rig.instance(tries=2)
    for _ in range(2):
        worker = await rig.instance(tries=2)
        gate = Gate()
        worker.serve(gate)
        if not api.bus._windows:
            await rig.served(api)
            task = api.ask("poison")
        await rig.until(lambda gate=gate: gate.begun)
        await rig.crash(worker)
    last = await rig.instance(tries=2)
    gate = Gate(opened=True)
    last.serve(gate)
    told = await outcome(task)
    assert isinstance(told, Broken)
    assert told.code == "tries"
    (letter,) = await rig.letters(1)
    assert (letter.reason, letter.topic, letter.attempts) == ("tries", "t", 3)
    assert gate.begun == []
    assert await api.ask("next") == "next"


@on_every_broker
async def test_a_worker_that_closes_hands_its_work_to_another(rig: Rig) -> None:
    api, leaves, stays = await rig.instance(), await rig.instance(), await rig.instance()
    hangs, gate = Gate(), Gate(opened=True)
    leaves.serve(hangs)
    await rig.served(api)
    tasks = [api.ask(n) for n in range(3)]
    await rig.until(lambda: hangs.begun)
    stays.serve(gate)
    rig.instances.remove(leaves)
    await leaves.bus.close()
    assert await asyncio.gather(*tasks) == [0, 1, 2]
    assert sorted(map(str, gate.ended)) == ["0", "1", "2"]


@on_every_broker
async def test_a_worker_that_drains_ends_what_it_has_and_takes_nothing_more(rig: Rig) -> None:
    api, leaves, stays = await rig.instance(), await rig.instance(), await rig.instance()
    slow, gate = Gate(), Gate(opened=True)
    leaves.serve(slow)
    await rig.served(api)
    first = api.ask("first")
    await rig.until(lambda: slow.begun)
    draining = asyncio.create_task(leaves.bus.drain())
    await rig.served(api, count=0)
    stays.serve(gate)
    await rig.served(api, count=1)
    assert await api.ask("second") == "second"
    assert not draining.done()
    slow.open.set()
    assert await first == "first"
    await draining
    # What a worker still works on when partitions move comes a second time: at least once is what is promised.
    assert slow.ended == ["first"]
    assert set(gate.ended) - {"first"} == {"second"}


@on_every_broker
async def test_what_is_asked_while_the_last_worker_is_started_anew_waits_for_it(rig: Rig) -> None:
    api, before = await rig.instance(), await rig.instance()
    before.serve(echo)
    await rig.served(api)
    assert await api.ask("warm") == "warm"
    rig.instances.remove(before)
    await before.bus.close()
    await rig.served(api, count=0)
    asked = api.ask("meanwhile")
    after = await rig.instance()
    after.serve(echo)
    assert await asked == "meanwhile"


# --- Records that cannot be handled


@on_every_broker
async def test_records_that_nobody_understands_are_buried_with_a_reason_and_stop_nothing(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    api, worker = await rig.instance(), await rig.instance()
    worker.serve(echo)
    worker.serve(echo, topic="typed")
    await rig.served(api, "typed")
    label = (Context.background(), 0.0)
    good = api.wire.encode_message(0, "", "t", "m", label)
    bad = {
        "foreign": b"\x89PNG another program's",
        "truncated": good[:-3],
        "newer_version": MAGIC + bytes((VERSION + 1,)) + good[len(MAGIC) + 1 :],
        "too_large": good[: len(MAGIC) + 2] + b"\x00" * LIMITS.record_max,
    }
    with caplog.at_level(logging.CRITICAL):
        for record in bad.values():
            await api.broker.send(WORK, record, "", 1.0)
        wrong = api.wire.encode_message(0, "", "typed", {"texts": 1}, label)
        await api.broker.send(Channel("typed", ChannelKind.QUEUE), wrong, "", 1.0)
        letters = await rig.letters(5)
    assert {letter.reason for letter in letters} == {*bad, "unreadable"}
    assert max(len(letter.record) for letter in letters) <= LIMITS.record_max + 100
    assert await api.ask("still there") == "still there"


@on_every_broker
async def test_what_is_too_large_is_refused_where_it_comes_from(rig: Rig) -> None:
    api, worker = await rig.instance(), await rig.instance()

    async def grows(message: str, _ctx: Context) -> str:
        return message * 1000

    worker.serve(grows)
    await rig.served(api)
    for message in ("x" * (LIMITS.record_max + 1), "x" * 1000):
        told = await outcome(api.ask(message))
        assert isinstance(told, Invalid)
        assert told.code == "too_large"
    assert await api.ask("x") == "x" * 1000


# --- A broker in trouble


@on_every_broker
async def test_a_silent_broker_makes_requests_unavailable_at_once_and_well_again_by_itself(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    api, worker = await rig.instance(), await rig.instance()
    gate = Gate()
    worker.serve(gate)
    await rig.served(api)
    under_way, loop = api.ask("under way"), asyncio.get_running_loop()
    await rig.until(lambda: gate.begun)
    rig.place.silence(True)
    try:
        began_s = loop.time()
        told = await outcome(api.ask("m", ctx=within(10.0)))
        assert isinstance(told, Unavailable)
        assert isinstance(await outcome(under_way), Unavailable)
        assert loop.time() - began_s < 6.0
        assert api.bus.unready_reasons() == [f"{api.broker.name} does not answer"]
        began_s = loop.time()
        told = await outcome(api.ask("at once"))
        assert isinstance(told, Unavailable)
        assert told.dependency == api.broker.name
        assert loop.time() - began_s < 0.1
    finally:
        rig.place.silence(False)
    gate.open.set()
    await rig.until(lambda: not api.link.retry_after_s() and not worker.link.retry_after_s())
    await rig.served(api)
    assert await api.ask("again") == "again"


@pytest.mark.parametrize("persistent", [True, False], ids=["kept", "forgotten"])
def test_a_redis_that_is_killed_and_started_again_is_used_again_by_itself(
    tmp_path: Path,
    persistent: bool,  # noqa: FBT001
    caplog: pytest.LogCaptureFixture,
) -> None:
    redis.needed()

    async def main() -> None:
        def make() -> Broker:
            from penstock.bus.backends.redis.broker import RedisBroker

            bus = replace(LIMITS, prefix="test", buffer_size=HELD)
            return RedisBroker(bus, RedisSettings(url=server.url), {})

        rig = Rig(Place(make, redis.crash, lambda _: None))
        api, worker = await rig.instance(), await rig.instance()
        worker.serve(echo, 2)
        await rig.served(api)
        assert await api.ask("before") == "before"
        server.kill()
        told = [await outcome(api.ask(n, ctx=within(10.0))) for n in range(10)]
        assert all(isinstance(one, Unavailable) for one in told)
        server.start()
        await rig.until(lambda: not api.link.retry_after_s() and not worker.link.retry_after_s())
        await rig.served(api)
        assert await asyncio.gather(*(api.ask(n) for n in range(4))) == list(range(4))
        for one in rig.instances:
            await one.bus.close()

    with caplog.at_level(logging.CRITICAL), redis.redis(tmp_path, persistent=persistent) as server:
        asyncio.run(main())


# --- The end


@on_every_broker
async def test_close_leaves_no_task_behind(rig: Rig) -> None:
    api, worker = await rig.instance(), await rig.instance()
    gate = Gate()
    worker.serve(gate)
    await rig.served(api)
    task = api.ask("m")
    await rig.until(lambda: gate.begun)
    for one in (api, worker):
        await one.bus.close()
    assert isinstance(await outcome(task), Rejected)
    await asyncio.sleep(0.05)
    assert asyncio.all_tasks() == {asyncio.current_task()}
