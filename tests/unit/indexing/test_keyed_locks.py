import asyncio

from penstock.indexing.index_pipeline import KeyedLocks


def test_holders_of_one_key_follow_each_other_and_other_keys_do_not_wait():
    async def scenario():
        turns, seen = KeyedLocks(), []

        async def hold(key, name):
            async with turns.hold(key):
                seen.append(f"{name} in")
                await asyncio.sleep(0)
                seen.append(f"{name} out")

        await asyncio.gather(hold("a", "first"), hold("a", "second"), hold("b", "other"))
        return seen, len(turns)

    seen, left = asyncio.run(scenario())
    assert seen.index("first out") < seen.index("second in")
    assert seen.index("other in") < seen.index("first out")
    assert left == 0


def test_a_cancelled_waiter_leaves_no_trace():
    async def scenario():
        turns = KeyedLocks()

        async def hold():
            async with turns.hold("a"):
                await asyncio.Event().wait()

        holder, waiter = asyncio.create_task(hold()), asyncio.create_task(hold())
        await asyncio.sleep(0)
        waiter.cancel()
        await asyncio.gather(waiter, return_exceptions=True)
        waiting = len(turns)
        holder.cancel()
        await asyncio.gather(holder, return_exceptions=True)
        return waiting, len(turns)

    assert asyncio.run(scenario()) == (1, 0)
