"""Deadlines nest, and an expiry names the operation whose limit was the tightest."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.kernel.context import Context, Criticality, Deadline, MonotonicClock, enforce_deadline
from penstock.kernel.errors import Expired
from tests.clock import BEGIN_S, run, virtual
from tests.fakes.loop_clock import LoopClock


async def limited(seconds: float, body: Coroutine[Any, Any, None]) -> None:
    """Run the body under the deadline of a search."""
    async with enforce_deadline(Deadline(BEGIN_S + seconds, "search")):
        await body


LIMITS = st.lists(st.tuples(st.floats(0.001, 1e5), st.text(min_size=1, max_size=5)), min_size=1, max_size=8)


@given(LIMITS, st.floats(0, 1e6))
def test_the_tightest_enclosing_limit_wins(limits: list[tuple[float, str]], now_s: float) -> None:
    deadline = Deadline.never()
    for limit_s, operation in limits:
        deadline = deadline.within(limit_s, operation, now_s)
    tightest_s = min(now_s + limit_s for limit_s, _ in limits)
    assert deadline.at_s == tightest_s
    # Of equal limits the outermost is named: it was there first.
    assert deadline.operation == next(name for limit_s, name in limits if now_s + limit_s == tightest_s)


def test_a_looser_limit_inside_changes_nothing() -> None:
    outer = Deadline(10.0, "search")
    assert outer.within(30, "request", 0.0) is outer
    assert outer.within(10, "embed", 0.0) is outer


def test_never_does_not_pass() -> None:
    never = Deadline.never()
    assert not never.passed(1e300)
    assert never.remaining_s(5.0) == math.inf


@pytest.mark.parametrize(("now_s", "passed", "remaining_s"), [(9.0, False, 1.0), (10.0, True, 0.0), (11.0, True, 0.0)])
def test_a_deadline_has_passed_from_its_moment_on(now_s: float, passed: bool, remaining_s: float) -> None:  # noqa: FBT001
    deadline = Deadline(10.0, "search")
    assert deadline.passed(now_s) is passed
    assert deadline.remaining_s(now_s) == remaining_s


@virtual
async def test_limit_cancels_the_body_at_the_deadline_and_names_the_operation() -> None:
    ended = []

    async def body() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(LoopClock().now())

    with pytest.raises(Expired) as caught:
        await limited(10, body())
    assert caught.value.operation == "search"
    assert str(caught.value) == "search did not finish within its time limit"
    assert ended == [BEGIN_S + 10]


@virtual
async def test_a_deadline_already_past_stops_the_body_at_its_first_wait() -> None:
    reached = []

    async def body() -> None:
        reached.append("before")
        await asyncio.sleep(0.001)
        reached.append("after")

    with pytest.raises(Expired):
        await limited(-1, body())
    assert reached == ["before"]


@virtual
async def test_without_a_deadline_nothing_is_limited() -> None:
    async with enforce_deadline(Deadline.never()):
        await asyncio.sleep(1e6)


@pytest.mark.parametrize("outer_s", [5.0, 20.0, 10.0])
def test_of_nested_limits_the_tighter_is_named(outer_s: float) -> None:
    async def main() -> str:
        with pytest.raises(Expired) as caught:
            async with (
                enforce_deadline(Deadline(BEGIN_S + outer_s, "outer")),
                enforce_deadline(Deadline(BEGIN_S + 10, "inner")),
            ):
                await asyncio.sleep(60)
        return caught.value.operation

    assert run(main()) == ("outer" if outer_s <= 10 else "inner")


@virtual
async def test_a_cancellation_from_outside_passes_through() -> None:
    task = asyncio.create_task(limited(10, asyncio.sleep(60)))
    await asyncio.sleep(1)
    task.cancel("from outside")
    with pytest.raises(asyncio.CancelledError, match="from outside"):
        await task


@virtual
async def test_a_timeout_raised_by_the_body_is_not_taken_for_ours() -> None:
    with pytest.raises(TimeoutError, match="the body's own"):
        async with enforce_deadline(Deadline(BEGIN_S + 10, "search")):
            raise TimeoutError("the body's own")


@virtual
async def test_an_error_of_the_body_passes_through() -> None:
    with pytest.raises(KeyError):
        async with enforce_deadline(Deadline(BEGIN_S + 10, "search")):
            raise KeyError("x")


@virtual
async def test_a_label_is_tightened_and_keeps_all_else() -> None:
    ctx = Context(Deadline(BEGIN_S + 10, "search"), Criticality.INTERACTIVE, "alice", "id", "00-aa-bb-01")
    tighter = ctx.within(2, "embed", LoopClock().now())
    assert tighter == Context(Deadline(BEGIN_S + 2, "embed"), Criticality.INTERACTIVE, "alice", "id", "00-aa-bb-01")
    assert ctx.within(20, "embed", LoopClock().now()) == ctx


def test_background_work_has_no_deadline_and_the_lowest_class() -> None:
    first, second = Context.background("nightly"), Context.background("nightly")
    assert first.deadline == Deadline.never()
    assert first.criticality is max(Criticality)
    assert first.client == "nightly"
    assert first.request_id != second.request_id


def test_clocks_never_go_back() -> None:
    clock = MonotonicClock()
    assert clock.now() <= clock.now()
    with pytest.raises(RuntimeError):
        LoopClock().now()


@virtual
async def test_a_limit_outside_a_task_is_refused() -> None:
    refused: list[BaseException] = []

    def enter() -> None:
        with pytest.raises(RuntimeError, match="inside a task") as caught:
            enforce_deadline(Deadline(BEGIN_S + 1, "search")).__aenter__().send(None)  # type: ignore[attr-defined]
        refused.append(caught.value)

    asyncio.get_running_loop().call_soon(enter)
    await asyncio.sleep(0)
    assert len(refused) == 1


@virtual
async def test_a_cancellation_from_outside_in_the_moment_of_the_deadline_passes_through() -> None:
    async def body() -> None:
        await asyncio.sleep(60)

    task = asyncio.create_task(limited(10, body()))
    asyncio.get_running_loop().call_at(BEGIN_S + 10, lambda: task.cancel("from outside"))
    await asyncio.sleep(20)
    assert task.cancelled()


@virtual
async def test_a_body_that_swallows_the_expiry_has_ended_and_is_not_cancelled_again() -> None:
    async with enforce_deadline(Deadline(BEGIN_S + 1, "search")):
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(1)


@virtual
async def test_after_a_jump_of_the_clock_nested_limits_name_the_tighter() -> None:
    loop = asyncio.get_running_loop()

    async def stalled() -> None:
        async with enforce_deadline(Deadline(BEGIN_S + 10, "outer")), enforce_deadline(Deadline(BEGIN_S + 2, "inner")):
            loop.spend(5)  # type: ignore[attr-defined]
            await asyncio.sleep(60)

    with pytest.raises(Expired) as caught:
        await stalled()
    assert caught.value.operation == "inner"
    assert loop.time() < BEGIN_S + 6
