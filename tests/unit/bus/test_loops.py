"""A bug in one round of what the bus does as long as it lives ends neither the round after it nor the instance."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from penstock.bus.broker_breaker import BrokerBreaker
from penstock.bus.distributed import BrokerBus
from penstock.bus.loops import BACKOFF_S, run_forever
from penstock.bus.membership import Membership
from penstock.bus.record_codec import RecordCodec
from penstock.bus.rpc_client import BrokerTransport
from penstock.kernel.context import Context
from penstock.kernel.errors import Unavailable
from penstock.kernel.settings import BusSettings, GuardSettings
from penstock.pools.permits import Permits
from tests.clock import virtual
from tests.fakes.broker import FakeBroker, FakeReader, Server
from tests.fakes.loop_clock import LoopClock

LIMITS = BusSettings(lease=2.0, ahead=0)


def once_broken(act: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Return the same, but that its first call hits a bug."""
    calls = 0

    async def acts(*args: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise KeyError("a bug")
        return await act(*args, **named)

    return acts


@asynccontextmanager
async def bus_over(server: Server, break_at: str = "") -> AsyncIterator[BrokerBus]:
    broker = FakeBroker(server)
    await broker.start()
    if break_at:
        setattr(broker, break_at, once_broken(getattr(broker, break_at)))
    bus = BrokerBus(
        BrokerTransport(broker, RecordCodec({}, 10_000), BrokerBreaker("fake", GuardSettings())),
        LIMITS,
        {},
        LoopClock(),
    )
    try:
        yield bus
    finally:
        await bus.close()


async def echo(message: object, _ctx: Context) -> object:
    return message


async def asked(bus: BrokerBus) -> object:
    """Return what a request is answered, as soon as somebody is known who serves it."""
    async with asyncio.timeout(30.0):
        while "t" not in bus.instance_counts():  # noqa: ASYNC110 - on the virtual clock
            await asyncio.sleep(0.1)
        return await bus.request("t", "hello", Context.background())


@virtual
async def test_a_round_follows_one_that_failed_after_a_pause() -> None:
    errors, at_s = [Unavailable("away", dependency="x"), ZeroDivisionError()], list[float]()

    async def once() -> None:
        at_s.append(asyncio.get_running_loop().time())
        if errors:
            raise errors.pop()
        await asyncio.sleep(10.0)

    task = asyncio.create_task(run_forever(once, "trying"))
    await asyncio.sleep(3 * BACKOFF_S)
    task.cancel()
    assert [time_s - at_s[0] for time_s in at_s] == pytest.approx([0.0, BACKOFF_S, 2 * BACKOFF_S])
    with pytest.raises(asyncio.CancelledError):
        await task


@virtual
async def test_only_a_bug_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    errors = [ZeroDivisionError("a bug"), Unavailable("away", dependency="x")]

    async def once() -> None:
        await asyncio.sleep(0.0)
        if errors:
            raise errors.pop()
        await asyncio.sleep(10.0)

    task = asyncio.create_task(run_forever(once, "trying"))
    await asyncio.sleep(3 * BACKOFF_S)
    task.cancel()
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError
    assert "trying" in record.getMessage()


@virtual
@pytest.mark.parametrize("bug_in", ["heartbeat", "receive", "join", "broadcast"])
async def test_an_instance_goes_on_after_a_bug(bug_in: str) -> None:
    server = Server(lease_s=2.0)
    async with bus_over(server, bug_in) as serves, bus_over(server) as asks:
        serves.subscribe("t", echo, Permits("t", 1))
        assert await asked(asks) == "hello"
    async with bus_over(server) as serves, bus_over(server, bug_in) as asks:
        serves.subscribe("t", echo, Permits("t", 1))
        assert await asked(asks) == "hello"


@virtual
async def test_a_reader_goes_on_after_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = once_broken(FakeReader.poll)

    async def take(reader: FakeReader, count: int, wait_s: float) -> Any:
        return await broken(reader, count, wait_s)

    monkeypatch.setattr(FakeReader, "poll", take)
    server = Server(lease_s=2.0)
    async with bus_over(server) as serves, bus_over(server) as asks:
        serves.subscribe("t", echo, Permits("t", 1))
        assert await asked(asks) == "hello"


@virtual
async def test_the_notes_behind_one_that_meets_a_bug_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    hear = once_broken(Membership._handle)

    async def heard(presence: Membership, record: bytes) -> None:
        await hear(presence, record)

    server = Server(lease_s=2.0)
    async with bus_over(server) as serves, bus_over(server) as asks:
        serves.subscribe("t", echo, Permits("t", 1))
        await asked(asks)
        monkeypatch.setattr(Membership, "_handle", heard)
        server.mailboxes[asks._broker.address].append(b"anything")
        assert await asks.request("t", "again", Context.background()) == "again"
