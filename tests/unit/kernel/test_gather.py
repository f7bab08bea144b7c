"""Several at once: the first error cancels the rest and is raised as it is (SPEC W1)."""

from __future__ import annotations

import asyncio

import pytest

from penstock.kernel.context import run_all
from penstock.kernel.errors import Unavailable
from tests.clock import virtual


@virtual
async def test_all_parts_run_at_the_same_time() -> None:
    loop = asyncio.get_running_loop()
    began_s, ended = loop.time(), []

    async def part(number: int) -> None:
        await asyncio.sleep(10 - number)
        ended.append(number)

    await run_all([part(number) for number in range(5)])
    assert loop.time() - began_s == pytest.approx(10)
    assert ended == [4, 3, 2, 1, 0]


@virtual
async def test_nothing_to_do_is_done() -> None:
    await run_all([])


@virtual
async def test_the_first_error_cancels_the_rest_and_is_raised_itself() -> None:
    raised = Unavailable("down", dependency="store")
    ended = []

    async def fails(delay_s: float, error: Exception) -> None:
        await asyncio.sleep(delay_s)
        raise error

    async def waits() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(1)
            ended.append("cleaned up")
            raise

    with pytest.raises(Unavailable) as caught:
        await run_all([waits(), fails(2, KeyError("later")), fails(1, raised)])
    assert caught.value is raised
    assert ended == ["cleaned up"]


@virtual
async def test_an_error_while_cleaning_up_does_not_replace_the_first() -> None:
    async def cleans_up_badly() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            raise KeyError("while cleaning up")

    async def fails() -> None:
        await asyncio.sleep(1)
        raise ValueError("first")

    with pytest.raises(ValueError, match="first"):
        await run_all([cleans_up_badly(), fails()])


@virtual
async def test_an_error_keeps_its_own_cause() -> None:
    cause = OSError("the wire broke")

    async def fails() -> None:
        raise Unavailable("down", dependency="store") from cause

    with pytest.raises(Unavailable) as caught:
        await run_all([fails()])
    assert caught.value.__cause__ is cause
    assert caught.value.__context__ is None
    assert caught.value.__suppress_context__


@virtual
async def test_a_cancellation_ends_every_part_first() -> None:
    ended = []

    async def part(number: int) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(number)

    task = asyncio.create_task(run_all([part(number) for number in range(3)]))
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(ended) == [0, 1, 2]


@virtual
async def test_an_error_leaves_no_cancellation_behind() -> None:
    async def fails(delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        raise ValueError

    for delay_s in (0.0, 1.0):
        with pytest.raises(ValueError):  # noqa: PT011 - whichever it is
            await run_all([fails(delay_s), asyncio.sleep(60)])
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0


@pytest.mark.parametrize("steps", range(6))
@virtual
async def test_a_cancellation_beside_an_error_is_not_swallowed_at_any_step(steps: int) -> None:
    ended = []

    async def fails() -> None:
        await asyncio.sleep(1)
        raise ValueError

    async def cleans_up() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(1)
            ended.append(1)

    task = asyncio.create_task(run_all([fails(), cleans_up()]))
    await asyncio.sleep(1)
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == [1]
