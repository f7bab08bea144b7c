"""The bus of one process: what it adds to its intakes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from typing import Any

import pytest

from penstock.bus.contract import TopicRefusal
from penstock.bus.local import LocalBus
from penstock.bus.management import TopicState
from penstock.kernel.context import Context, Criticality, Deadline
from penstock.kernel.errors import Expired, PenstockError, Rejected
from penstock.kernel.settings import BusSettings
from penstock.policies.levels import Level
from penstock.pools.permits import Permits
from tests.clock import quiet, virtual
from tests.fakes.loop_clock import LoopClock

FULL = TopicRefusal("topic_full", 1.0, by_client=False)
SHARE = TopicRefusal("client_share", 1.0, by_client=True)


async def never(_message: object, _ctx: Context) -> None:
    await asyncio.Event().wait()


async def slow(message: object, _ctx: Context) -> object:
    await asyncio.sleep(1.0)
    return message


def label(client: str = "a", rank: Criticality = Criticality.STANDARD, within_s: float = 1e6) -> Context:
    return Context(Deadline(asyncio.get_running_loop().time() + within_s, "search"), rank, client)


def bus(capacity: int = 10, subscribers: int = 1, handler: Any = never, share: float = 1.0) -> LocalBus:
    made = LocalBus(BusSettings(client_share=share), {"t": capacity}, LoopClock())
    for n in range(subscribers):
        made.subscribe("t", handler, Permits(f"t{n}", 1))
    return made


def ask(made: LocalBus, count: int, **labels: Any) -> list[asyncio.Task[Any]]:
    return [asyncio.create_task(made.request("t", n, label(**labels))) for n in range(count)]


async def leave(made: LocalBus, tasks: list[asyncio.Task[Any]]) -> None:
    await made.close()
    await asyncio.gather(*tasks, return_exceptions=True)


@virtual
async def test_the_gate_hears_of_a_topic_that_is_almost_full() -> None:
    made = bus()
    tasks = ask(made, 9)
    await quiet()
    assert made.fill_ratio("t") == 0.8
    assert made.check_admission("t", label()) is None
    assert made.check_admission("t", label(), Level.HIGH) == FULL
    tasks += ask(made, 1)
    await quiet()
    assert made.check_admission("t", label()) == FULL
    assert made.check_admission("nobody", label()) is None
    await leave(made, tasks)


@virtual
async def test_the_gate_hears_of_a_client_that_fills_its_share() -> None:
    made = bus(share=0.2)
    tasks = ask(made, 3, client="greedy")
    await quiet()
    assert made.check_admission("t", label("greedy")) == SHARE
    assert made.check_admission("t", label("modest")) is made.check_admission("t", label()) is None
    await leave(made, tasks)


@virtual
async def test_the_gate_refuses_only_if_every_subscriber_would() -> None:
    made = bus(subscribers=2)
    tasks = ask(made, 17)
    await quiet()
    assert made.check_admission("t", label()) is None
    tasks += ask(made, 5)
    await quiet()
    assert made.check_admission("t", label()) == FULL
    await leave(made, tasks)


@virtual
async def test_congestion_is_told_for_each_class() -> None:
    made = bus(handler=slow)
    tasks = ask(made, 4, rank=Criticality.BULK)
    await asyncio.sleep(0.5)
    tasks += ask(made, 1, rank=Criticality.BULK)  # a message that comes has the age of the oldest looked at
    await quiet()
    assert made.congested("t")
    assert made.pressure("t", Criticality.BULK) > 1.0
    assert made.pressure("t", Criticality.INTERACTIVE) == 0.0
    assert not made.congested("nobody")
    assert made.pressure("nobody", Criticality.BULK) == 0.0
    assert made.state()[0].congested
    await leave(made, tasks)


@virtual
async def test_the_state_adds_up_the_subscribers() -> None:
    made = bus(capacity=2, subscribers=2)
    tasks = ask(made, 7)
    await quiet()
    (state,) = made.state()
    assert state == TopicState("t", 4, 4, 2)
    assert (state.blocked, state.level, state.counts.offered) == (1, Level.CRITICAL, 7)
    await leave(made, tasks)
    assert made.state()[0].counts.refused == {"draining": 7}


@virtual
async def test_an_event_refused_by_one_subscriber_at_once_reaches_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.bus.topic_queue.BLOCKED_MAX", 0)
    seen: list[object] = []

    async def note(message: object, _ctx: Context) -> None:
        seen.append(message)

    made = bus(capacity=1)
    made.subscribe("t", note, Permits("note", 1))
    for n in range(2):
        await made.publish("t", n, label())
        await quiet()
    with pytest.raises(Rejected):
        await made.publish("t", 2, label())
    await quiet()
    assert seen == [0, 1, 2]
    await made.close()


@virtual
async def test_a_publisher_cancelled_while_two_subscribers_are_full_takes_both_back() -> None:
    made = bus(capacity=1, subscribers=2)
    for n in range(2):
        await made.publish("t", n, label())
    task = asyncio.create_task(made.publish("t", 2, label()))
    await quiet()
    assert made.state()[0].blocked == 2
    task.cancel()
    await quiet()
    assert task.cancelled()
    assert (made.state()[0].blocked, made.state()[0].counts.left) == (0, 2)
    await made.close()


@virtual
async def test_errors_leave_no_reference_cycles() -> None:
    # Under overload each refusal would otherwise be work for the garbage collector.
    made = bus(capacity=1, handler=slow)
    tasks = ask(made, 2)
    await quiet()
    gc.collect()
    before = {id(one) for one in gc.get_objects() if isinstance(one, Expired)}  # other tests' may still be there
    gc.disable()
    try:
        for _ in range(3):
            with contextlib.suppress(PenstockError):
                await made.request("t", "late", label(within_s=0.1))
            with contextlib.suppress(PenstockError):
                await made.publish("t", "late", label(within_s=0.1))
        await leave(made, tasks)  # the buffer holds nothing dead any more
        tasks.clear()
        left = sum(isinstance(one, Expired) and id(one) not in before for one in gc.get_objects())
    finally:
        gc.enable()
    assert left == 0


@virtual
async def test_the_gate_hears_that_a_deadline_cannot_be_met_behind_what_waits() -> None:
    made = bus(handler=slow)
    for n in range(20):  # it learns that one takes a second
        await made.request("t", n, label())
    assert made.check_admission("t", label(within_s=0.5)) is None, "nothing waits: an estimate may be wrong"
    tasks = ask(made, 4)
    await quiet()
    refusal = made.check_admission("t", label(within_s=2.0))
    assert refusal is not None
    assert (refusal.code, refusal.by_client) == ("hopeless", False)
    assert 1.5 < refusal.retry_after_s < 3.0
    assert made.check_admission("t", label(within_s=8.0)) is None
    assert made.check_admission("t", label(within_s=2.0, rank=Criticality.INTERACTIVE)) is None, (
        "it is served before them"
    )
    await leave(made, tasks)


@virtual
async def test_what_is_refused_by_its_handler_teaches_nothing_of_how_long_work_takes() -> None:
    refusing = False

    async def handler(message: object, ctx: Context) -> object:
        if refusing:
            raise Rejected("no")
        return await slow(message, ctx)

    made = bus(handler=handler)
    for n in range(20):
        await made.request("t", n, label())
    refusing = True
    for n in range(200):
        with pytest.raises(Rejected):
            await made.request("t", n, label())
    refusing = False
    tasks = ask(made, 4)
    await quiet()
    with pytest.raises(Rejected, match="too busy"):
        await made.request("t", "late", label(within_s=2.0))
    await leave(made, tasks)
