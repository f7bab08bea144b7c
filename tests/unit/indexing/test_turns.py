import asyncio

from penstock.indexing.turns import PacedTurns
from penstock.policies.pace import Pace, PaceSettings
from tests.clock import virtual


def turns(window):
    return PacedTurns(Pace(PaceSettings(window, pause_s=2.0), window=window), asyncio.get_running_loop().time)


@virtual
async def test_no_more_than_the_window_are_under_way_and_all_get_their_turn():
    paced, most, done = turns(2), 0, 0

    async def call():
        nonlocal most, done
        async with paced.turn():
            most = max(most, paced.pace.under_way)
            await asyncio.sleep(1)
        done += 1

    await asyncio.gather(*(call() for _ in range(7)))
    assert (most, done, paced.pace.under_way) == (2, 7, 0)


@virtual
async def test_after_a_refusal_all_wait_for_the_pause():
    paced, loop = turns(2), asyncio.get_running_loop()
    began_s = loop.time()
    paced.pace.on_refused(0.0, began_s)
    async with paced.turn():
        assert loop.time() - began_s >= 2.0


@virtual
async def test_one_that_is_cancelled_while_it_waits_or_works_leaves_its_turn_to_others():
    paced = turns(1)

    async def call(seconds):
        async with paced.turn():
            await asyncio.sleep(seconds)

    working, waiting = asyncio.create_task(call(1000)), asyncio.create_task(call(1000))
    await asyncio.sleep(1)
    waiting.cancel()
    working.cancel()
    await asyncio.gather(working, waiting, return_exceptions=True)
    await asyncio.wait_for(call(1), 2)
    assert paced.pace.under_way == 0
