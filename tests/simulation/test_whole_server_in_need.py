"""The whole server on virtual time while what it depends on fails, and while memory is short."""

from __future__ import annotations

import asyncio

from penstock.policies.breaker import BreakerState
from tests.clock import quiet, virtual
from tests.fakes.api import Caller
from tests.fakes.faults import Mood
from tests.simulation.replies import ends, words
from tests.simulation.world import CAPACITY, World

# --- Dependencies that fail


@virtual
async def test_a_store_that_hangs_opens_its_breaker_and_searches_fail_at_once_until_it_is_back():
    async with World() as world:
        world.disk.turn(Mood.HANGS)
        hung = await world.flood(CAPACITY / 2, 3)
        assert world.core.guards["store"].state is BreakerState.OPEN
        assert set(ends(hung)) <= {"timeout", "circuit_open", "hopeless"}, ends(hung)
        refused = await world.search()
        assert (refused.status, refused.code, refused.json["dependency"]) == (503, "circuit_open", "store")
        asked = world.disk.begun
        await world.search()
        assert world.disk.begun == asked, "nothing is asked of it meanwhile"
        world.disk.turn(Mood.WELL)
        await asyncio.sleep(60)
        assert (await world.search()).status == 200
        assert (await world.search()).status == 200
        assert world.core.guards["store"].state is BreakerState.CLOSED


@virtual
async def test_a_breaker_that_is_open_makes_its_searches_quick():
    async with World() as world:
        world.disk.turn(Mood.DEAD)
        for _ in range(6):
            await world.search()
        failed = await world.search("alpha")
        assert failed.code == "circuit_open"
        assert failed.took_s < 0.05
        assert int(failed.headers["retry-after"]) >= 1


@virtual
async def test_a_dead_dense_model_leaves_answers_from_the_words_and_they_say_so():
    async with World() as world:
        world.dense.turn(Mood.DEAD)
        replies = await world.flood(CAPACITY / 2, 1)
        assert words(replies) == {"no_dense": len(replies)}
        assert world.core.guards["embed"].state is BreakerState.OPEN
        assert (await world.search(strict=True)).code == "degraded"
        world.dense.turn(Mood.WELL)
        await asyncio.sleep(60)
        assert words([await world.search() for _ in range(3)]) == {"none": 3}
        assert world.core.guards["embed"].state is BreakerState.CLOSED


@virtual
async def test_a_dead_sparse_model_leaves_answers_from_the_meaning_and_they_say_so():
    async with World() as world:
        world.sparse.turn(Mood.DEAD)
        assert words(await world.flood(CAPACITY / 2, 1)) == {"no_sparse": CAPACITY / 2}


@virtual
async def test_a_model_that_hangs_costs_a_few_searches_and_then_the_other_arm_goes_on():
    async with World() as world:
        world.dense.stubborn = False
        world.dense.turn(Mood.HANGS)
        hung = [await world.search() for _ in range(5)]
        assert words(hung) == {"no_dense": 5}, "the hung arm leaves the other one time to answer"
        await quiet()
        assert world.core.guards["embed"].state is BreakerState.OPEN
        quick = await world.search()
        assert (quick.json["degraded"], quick.took_s < 0.05) == (["no_dense"], True)
        world.dense.turn(Mood.WELL)
        await asyncio.sleep(60)
        assert words([await world.search()]) == {"none": 1}


@virtual
async def test_a_thread_that_hangs_keeps_its_permit_and_the_ladder_keeps_the_answers_coming():
    async with World() as world:
        world.dense.turn(Mood.HANGS)
        replies = await world.flood(20, 8)
        assert world.core.pools.embed.active == world.dense.running == world.dense.most == 2
        assert words(replies)["one_arm"] > len(replies) / 3, ends(replies)
        world.dense.turn(Mood.WELL)
        await asyncio.sleep(60)
        assert world.core.pools.embed.active == 0
        assert words([await world.search()]) == {"none": 1}


@virtual
async def test_half_open_asks_a_store_that_is_still_dead_one_question_at_a_time():
    async with World() as world:
        world.disk.turn(Mood.HANGS)
        await world.flood(CAPACITY / 2, 2)
        world.disk.most = world.disk.running
        await world.flood(CAPACITY / 2, 20)
        assert world.disk.most <= max(1, world.disk.running), "no crowd of probes"


@virtual
async def test_a_bug_in_a_model_is_a_typed_answer_and_not_the_end():
    async with World() as world:
        world.dense.turn(Mood.RAISES)
        assert words([await world.search()]) == {"no_dense": 1}
        embedded = await world.ask("POST", "/v1/embed", {"texts": ["a"]})
        assert (embedded.status, embedded.code) == (500, "internal")
        world.dense.turn(Mood.WELL)
        assert (await world.ask("POST", "/v1/embed", {"texts": ["b"]})).status == 200


@virtual
async def test_nothing_is_tried_again_behind_the_callers_back():
    async with World() as world:
        # What the server looks for by itself at its start is over.
        await asyncio.sleep(1)
        world.disk.turn(Mood.DEAD)
        before = world.disk.begun
        assert (await world.search()).code == "unavailable"
        assert world.disk.begun - before == 1, "both arms asked once, together"


@virtual
async def test_a_caller_that_reads_no_error_is_let_go_like_any_other():
    async with World() as world:
        world.dense.turn(Mood.RAISES)
        deaf = await world.ask("POST", "/v1/embed", {"texts": ["a", "b"]}, caller=Caller(None, reads=False))
        assert deaf.end == "gone"
        assert world.gate.traffic.cut_off == 1


# --- Memory


def _documents(bytes_: int) -> dict[str, object]:
    return {"documents": [{"id": "large", "text": "x" * bytes_}]}


@virtual
async def test_short_memory_refuses_a_large_body_and_takes_a_small_one():
    async with World() as world:
        path = "/v1/collections/default/documents"
        world.memory_share = 0.95
        await asyncio.sleep(1.5)
        large = await world.ask("POST", path, _documents(300_000))
        assert (large.status, large.code) == (503, "memory_short")
        assert int(large.headers["retry-after"]) >= 1
        assert (await world.ask("POST", path, _documents(200_000))).status == 200
        assert (await world.search()).status == 200
        world.memory_share = 0.3
        await asyncio.sleep(1.5)
        assert (await world.ask("POST", path, _documents(300_000))).status == 200


@virtual
async def test_high_memory_shrinks_the_caches_and_critical_memory_empties_them():
    async with World() as world:
        for number in range(40):
            await world.search(f"alpha {number}")
        await world.points.put({str(number).encode(): b"" for number in range(40)})
        assert [world.metric("cache_entries", cache=name) for name in ("embed", "points")] == [40, 40]
        world.memory_share = 0.85
        await asyncio.sleep(1.05)
        assert all(0 < world.metric("cache_entries", cache=name) <= 20 for name in ("embed", "points"))
        assert (await world.ask("POST", "/v1/collections/default/documents", _documents(300_000))).status == 200
        world.memory_share = 0.95
        await asyncio.sleep(1.05)
        assert [world.metric("cache_entries", cache=name) for name in (*world.core.caches, "points")] == [0] * 4
        assert world.metric("memory_level") == 2
