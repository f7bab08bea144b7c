"""The shell toward remote dependencies: well, slow, hanging, dead and flapping ones, on the virtual clock."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from penstock.kernel.context import Context, Deadline
from penstock.kernel.errors import Expired, Invalid, PenstockError, Rejected, Unavailable
from penstock.kernel.settings import GuardSettings
from penstock.policies.breaker import BreakerState
from penstock.policies.limit import LimitSettings
from penstock.policies.retry import RetrySettings
from penstock.pools.guard import CircuitOpen, Guard
from penstock.pools.permits import Permits
from penstock.pools.remote_dependency import PAUSE_CODE, PAUSE_S_MAX, RETRIES_MAX, RemoteDependency
from tests.clock import BEGIN_S, quiet, virtual
from tests.fakes.loop_clock import LoopClock

WORK = Context.background()
#: No retries without savings, so that a test counts what it gives.
SAVINGS = RetrySettings(ratio=1.0, saved_max=100.0, per_s_min=0.0)


def make_remote(
    *, limits: LimitSettings | None = None, retries: RetrySettings = SAVINGS, luck: float = 0.5, failures: int = 5
) -> RemoteDependency:
    guard = Guard("qdrant", GuardSettings(failures=failures), LoopClock(), patience_s=5.0, random=lambda: 0.0)
    limits = limits or LimitSettings()
    return RemoteDependency(guard, LoopClock(), limits=limits, retries=retries, random=lambda: luck)


def within(seconds: float, ctx: Context = WORK) -> Context:
    return replace(ctx, deadline=Deadline(asyncio.get_running_loop().time() + seconds, "search"))


class FakeServer:
    """A server that works on so many calls at once, one after the other beyond that.

    Attributes:
        behave: Called in the course of each call; may raise.
        asked: When it was asked, on the loop's clock.
    """

    def __init__(self, takes_s: float = 0.05, capacity: int = 1000) -> None:
        self.takes_s = takes_s
        self.behave: Callable[[], Awaitable[None]] = self.well
        self.asked: list[float] = []
        self._places = asyncio.Semaphore(capacity)

    async def well(self) -> None:
        return

    async def dead(self) -> None:
        raise Unavailable("connection refused", dependency="qdrant")

    async def hanging(self) -> None:
        await asyncio.sleep(3600)

    def once(self, error: Exception, times: int = 1) -> None:
        """Fail so many times, then be well."""
        left = [times]

        async def behave() -> None:
            left[0] -= 1
            if left[0] >= 0:
                raise error

        self.behave = behave

    async def __call__(self) -> str:
        self.asked.append(asyncio.get_running_loop().time())
        async with self._places:
            await self.behave()
            await asyncio.sleep(self.takes_s)
        return "yes"


DOWN = Unavailable("down", dependency="qdrant")


@virtual
async def test_a_remote_that_is_well_answers_and_nothing_is_retried():
    remote, server = make_remote(), FakeServer()
    for _ in range(20):
        assert await remote.call("search", server, WORK) == "yes"
    counts = remote.counts
    assert (counts.calls, counts.retries, counts.refused, counts.dropped, counts.left_alone) == (20, 0, 0, 0, 0)
    assert repr(remote) == "<RemoteDependency qdrant 0/4 out, closed>"


@virtual
async def test_a_passing_failure_is_retried_after_a_jittered_pause():
    remote, server = make_remote(), FakeServer()
    await savings(remote)
    server.once(DOWN, times=2)
    assert await remote.call("search", server, WORK) == "yes"
    assert [round(at_s - server.asked[0], 6) for at_s in server.asked] == [0.0, 0.025, 0.075]
    assert remote.counts.retries == 2


async def savings(remote: RemoteDependency) -> None:
    """Let a budget have enough for what follows."""
    server = FakeServer(0.0)
    for _ in range(10):
        await remote.call("ping", server, WORK)


@virtual
async def test_a_call_is_retried_twice_at_most():
    remote, server = make_remote(failures=100), FakeServer()
    await savings(remote)
    server.behave = server.dead
    with pytest.raises(Unavailable, match="connection refused"):
        await remote.call("search", server, WORK)
    assert len(server.asked) == 1 + RETRIES_MAX


@pytest.mark.parametrize(
    "error",
    [
        Invalid("bad"),
        Rejected("full"),
        Expired("search"),
        ValueError("bug"),
        Unavailable("full", dependency="qdrant", code="disk_full"),
        Unavailable("changed", dependency="qdrant", code="write_conflict"),
    ],
    ids=repr,
)
@virtual
async def test_an_error_that_another_try_would_not_mend_is_not_retried(error):
    remote, server = make_remote(), FakeServer()
    await savings(remote)
    server.once(error)
    with pytest.raises(type(error)):
        await remote.call("search", server, WORK)
    assert (len(server.asked), remote.counts.retries) == (1, 0)


@virtual
async def test_what_may_not_be_done_twice_is_not_retried():
    remote, server = make_remote(), FakeServer()
    await savings(remote)
    server.once(DOWN)
    with pytest.raises(Unavailable):
        await remote.call("publish", server, WORK, idempotent=False)
    assert len(server.asked) == 1


@virtual
async def test_nothing_is_retried_while_the_works_own_queue_is_congested():
    remote, server = make_remote(), FakeServer()
    await savings(remote)
    server.once(DOWN, times=2)
    with pytest.raises(Unavailable):
        await remote.call("search", server, WORK, congested=lambda: True)
    assert len(server.asked) == 1


@virtual
async def test_nothing_is_retried_beyond_the_deadline():
    remote, server = make_remote(), FakeServer()
    await savings(remote)
    server.once(DOWN)
    with pytest.raises(Unavailable):
        await remote.call("search", server, within(0.02))
    assert asyncio.get_running_loop().time() == BEGIN_S
    assert len(server.asked) == 1


@virtual
async def test_an_empty_budget_allows_no_retry():
    remote, server = make_remote(retries=RetrySettings(ratio=0.1, per_s_min=0.0)), FakeServer()
    server.once(DOWN)
    with pytest.raises(Unavailable):
        await remote.call("search", server, WORK)
    assert len(server.asked) == 1


@virtual
async def test_a_failure_that_opens_the_breaker_is_not_retried_and_others_are_left_alone():
    remote, server = make_remote(failures=2), FakeServer()
    await savings(remote)
    server.behave = server.dead
    with pytest.raises(Unavailable, match="refused"):
        await remote.call("search", server, WORK)
    assert (len(server.asked), remote.counts.retries) == (2, 1)
    with pytest.raises(CircuitOpen):
        await remote.call("search", server, WORK)
    assert (len(server.asked), remote.counts.left_alone) == (2, 1)


@virtual
async def test_above_the_limit_a_call_is_refused_at_once():
    remote, server = make_remote(limits=LimitSettings(initial=2)), FakeServer()
    await known(remote)
    server.takes_s = 0.5
    out = [asyncio.create_task(remote.call("search", server, WORK)) for _ in range(2)]
    await quiet()
    now_s = asyncio.get_running_loop().time()
    with pytest.raises(Rejected) as caught:
        await remote.call("search", server, WORK)
    assert asyncio.get_running_loop().time() == now_s
    error = caught.value
    assert (error.code, error.by_client, error.retry_after_s) == ("dependency_busy", False, pytest.approx(0.05))
    assert (remote.in_flight, remote.counts.refused, len(server.asked)) == (2, 1, 2)
    assert await asyncio.gather(*out) == ["yes"] * 2
    assert await remote.call("search", server, WORK) == "yes"
    assert remote.in_flight == 0


async def known(remote: RemoteDependency) -> None:
    """Let it learn what the server takes when it is not loaded."""
    server = FakeServer(0.05)
    for _ in range(8):
        await remote.call("search", server, WORK)


@pytest.mark.parametrize("steps", range(6))
@virtual
async def test_a_cancelled_call_gives_its_place_back_wherever_it_is_cancelled(steps):
    remote, server = make_remote(), FakeServer(0.0)
    await savings(remote)
    server.once(DOWN)
    task = asyncio.create_task(remote.call("search", server, WORK))
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert remote.in_flight == 0


@virtual
async def test_a_slow_remote_lowers_the_limit_and_is_asked_no_more_than_it_takes():
    limits = LimitSettings(initial=16)
    remote, server = make_remote(limits=limits), FakeServer(0.05)

    async def caller() -> None:
        while asyncio.get_running_loop().time() < BEGIN_S + 20:
            try:
                await remote.call("search", server, WORK)
            except Rejected:
                await asyncio.sleep(0.05)

    callers = [asyncio.create_task(caller()) for _ in range(16)]
    await asyncio.sleep(5)
    assert remote.limit >= 16
    server.takes_s = 1.0
    await asyncio.sleep(14)
    assert remote.limit < 8
    await asyncio.gather(*callers)


@virtual
async def test_a_hanging_remote_costs_each_caller_its_deadline_and_no_more_until_the_breaker_opens():
    remote, server = make_remote(), FakeServer(0.005)
    for _ in range(16):
        await remote.call("search", server, WORK)
    server.behave = server.hanging
    before = len(server.asked)
    for _ in range(5):
        began_s = asyncio.get_running_loop().time()
        with pytest.raises(Expired) as caught:
            await remote.call("search", server, within(0.5))
        assert caught.value.operation == "search"
        assert asyncio.get_running_loop().time() - began_s == pytest.approx(0.5, abs=0.01)
    with pytest.raises(CircuitOpen):
        await remote.call("search", server, within(0.5))
    assert (len(server.asked) - before, remote.counts.dropped, remote.counts.retries) == (5, 5, 0)


@virtual
async def test_a_dead_remote_is_asked_a_few_times_and_then_left_alone():
    remote, server = make_remote(), FakeServer()
    server.behave = server.dead
    for _ in range(1000):
        with pytest.raises(Unavailable):
            await remote.call("search", server, within(10))
    assert len(server.asked) == 5
    server.behave = server.well
    await asyncio.sleep(30)
    assert [await remote.call("search", server, WORK) for _ in range(3)] == ["yes"] * 3
    assert remote._guard.state is BreakerState.CLOSED


@virtual
async def test_a_flapping_remote_is_used_while_it_is_up():
    remote, server = make_remote(), FakeServer(0.01)
    answered = failed = 0
    while asyncio.get_running_loop().time() < BEGIN_S + 600:
        up = int(asyncio.get_running_loop().time()) // 30 % 2 == 0
        server.behave = server.well if up else server.dead
        try:
            await remote.call("search", server, within(1))
            answered += 1
        except PenstockError:
            failed += 1
        await asyncio.sleep(0.1)
    assert answered > 600 * 0.2 / 0.11
    assert remote.counts.calls == answered + failed
    assert len(server.asked) - answered < 20 * 10, "while it is down it is hardly asked"


async def crowd(remote: RemoteDependency, server: FakeServer, seconds: float, chance: random.Random) -> list[int]:
    """Let 100 callers ask as fast as they are answered; return the limit, once a tenth of a second."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + seconds

    async def caller() -> None:
        while loop.time() < end_s:
            try:
                await remote.call("search", server, within(2))
            except PenstockError:
                await asyncio.sleep(chance.uniform(0.05, 0.5))

    callers = [asyncio.create_task(caller()) for _ in range(100)]
    limits = []
    while loop.time() < end_s:
        await asyncio.sleep(0.1)
        limits.append(remote.limit)
    await asyncio.gather(*callers)
    return limits


@pytest.mark.parametrize("seed", range(3))
@virtual
async def test_a_hundred_callers_find_the_capacity_of_a_remote_and_keep_it_busy(seed):
    chance = random.Random(seed)
    remote, server = make_remote(retries=RetrySettings()), FakeServer(0.05, 5)
    limits = await crowd(remote, server, 60, chance)
    settled = sorted(limits[200:])
    # The limit aims at a latency of 1.5 times the baseline: 7 or 8 calls where 5 are worked on, and a little headroom.
    assert 5 <= settled[len(settled) // 2] <= 12
    assert settled[-1] <= 16
    answered = remote.counts.calls - remote.counts.refused
    assert answered >= 0.9 * 60 * 5 / 0.05
    assert remote.in_flight == 0


@pytest.mark.parametrize("share", [0.05, 0.4])
@virtual
async def test_retries_stay_a_tenth_of_the_calls_and_the_minimum(share):
    chance, settings = random.Random(7), RetrySettings()
    remote, server = make_remote(retries=settings, luck=0.9, failures=1000), FakeServer(0.05, 5)

    async def behave() -> None:
        if chance.random() < share:
            raise DOWN

    server.behave = behave
    await crowd(remote, server, 60, chance)
    counts = remote.counts
    assert counts.retries <= settings.ratio * counts.calls + settings.saved_max + settings.per_s_min * 63
    assert counts.retries > 0


@virtual
async def test_a_remote_that_says_when_to_come_back_is_asked_nothing_until_then():
    remote, server = make_remote(), FakeServer()
    server.once(Rejected("at its limit", code=PAUSE_CODE, retry_after_s=4.0))
    with pytest.raises(Rejected, match="at its limit"):
        await remote.call("search", server, WORK)
    for _ in range(1000):
        with pytest.raises(Rejected, match="left alone") as caught:
            await remote.call("search", server, WORK)
        await asyncio.sleep(0.003)
    assert caught.value.code == "dependency_busy"
    assert caught.value.retry_after_s == pytest.approx(1.0, abs=0.1)
    assert (len(server.asked), remote.counts.refused) == (1, 1000)
    assert remote._guard.state is BreakerState.CLOSED
    await asyncio.sleep(1)
    assert await remote.call("search", server, WORK) == "yes"


@virtual
async def test_a_remote_that_asks_for_a_pause_of_a_day_gets_half_a_minute():
    remote, server = make_remote(), FakeServer()
    server.once(Rejected("at its limit", code=PAUSE_CODE, retry_after_s=86_400.0))
    with pytest.raises(Rejected):
        await remote.call("search", server, WORK)
    await asyncio.sleep(PAUSE_S_MAX)
    assert await remote.call("search", server, WORK) == "yes"


@virtual
async def test_a_pool_with_as_many_permits_as_the_limit_is_never_refused():
    remote, server = make_remote(limits=LimitSettings(ceiling=16)), FakeServer(0.05, 2)
    permits, told = Permits("embed", 16), []
    remote.on_limit = lambda most: (told.append(most), permits.resize(most))
    permits.resize(remote.limit)
    asks = remote.handler(lambda message: message, lambda _message, _ctx: server())
    loop, free = asyncio.get_running_loop(), asyncio.Event()
    permits.on_free(free.set)

    async def pump() -> None:
        running = set()
        while loop.time() < BEGIN_S + 30:
            free.clear()
            while permits.try_acquire():
                running.add(task := asyncio.create_task(asks("query", WORK)))
                task.add_done_callback(lambda task: (running.discard(task), permits.release()))
            await free.wait()
        await asyncio.gather(*running)

    await pump()
    assert told[0] == 4
    assert remote.counts.refused == 0
    assert remote.counts.calls >= 0.9 * 30 * 2 / 0.05
    assert max(told) <= 8
