"""The whole server on virtual time: overload, callers, the end. The books are checked between all steps of the loop."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from penstock.policies.breaker import BreakerState
from penstock.policies.ladder import Rung
from penstock.search.pipeline import ARM_TIME_SHARE
from tests.clock import virtual
from tests.fakes.api import Caller
from tests.fakes.faults import Mood
from tests.simulation.replies import ends, words
from tests.simulation.world import CAPACITY, CROWD, World, changed

# --- Overload


@virtual
async def test_overload_climbs_the_ladder_and_every_answer_says_what_it_lacks():
    async with World() as world:
        replies = await world.flood(4 * CAPACITY, 4, explain=True)
        assert {"none", "rerank_reduced", "no_rerank", "one_arm"} <= set(words(replies)), words(replies)
        for one in replies:
            if one.status == 200:
                stages, lacks = {stage for hit in one.json["hits"] for stage in hit["explain"]}, one.json["degraded"]
                assert "rerank" in stages or lacks, "without rerank, and does not say so"
                assert {"dense", "sparse"} <= stages or lacks in (["one_arm"], ["cached"]), lacks
        counted = world.core.metrics.counts_by_label(world.core.metrics.degraded)
        assert counted == words(replies)
        reached = {rung for one, rung in world.core.ladder.transitions if one.name == "INTERACTIVE"}
        assert {Rung.FEWER_CANDIDATES, Rung.NO_RERANK, Rung.ONE_ARM} <= reached


@virtual
async def test_overload_gives_up_quality_before_it_gives_up_answers():
    async with World() as world:
        await world.flood(2 * CAPACITY, 2)
        replies = await world.flood(2 * CAPACITY, 3)
        assert ends(replies)["answered"] >= 0.95 * len(replies), ends(replies)


@virtual
async def test_when_no_more_work_may_be_begun_remembered_answers_are_given_and_say_so():
    # Deadlines so long that they turn nobody away: the queue fills up, and nothing else is left to give up.
    patient = changed(
        timeouts={"search": 60.0, "embed": 60.0},
        bus={"request_timeout": 60.0, "handler_timeout": 60.0},
        search={"queue_size": 20},
    )
    async with World(settings=patient) as world:
        world.disk.turn(Mood.SLOW)
        world.sparse.turn(Mood.SLOW)
        asked = [asyncio.create_task(world.flood(10, 6, [client], query=f"alpha {client}")) for client in CROWD]
        replies = [one for some in await asyncio.gather(*asked) for one in some]
        remembered = [one for one in replies if one.status == 200 and "cached" in one.json["degraded"]]
        assert len(remembered) > 5, words(replies)
        assert {one.json["degraded"][-1] for one in remembered} == {"cached"}
        worked = [one for one in replies if one.status == 200 and "cached" not in one.json["degraded"]]
        assert len(worked) > len(remembered), "a queue is relieved in sips, and the pools go on"


@virtual
async def test_strict_searches_get_a_refusal_instead_of_a_lesser_answer():
    async with World() as world:
        replies = await world.flood(4 * CAPACITY, 3, strict=True)
        assert set(words(replies)) == {"none"}
        assert set(ends(replies)) <= {"answered", "degraded", "topic_full", "hopeless", "timeout"}
        degraded = [one for one in replies if one.code == "degraded"]
        assert len(degraded) > 50
        assert {one.status for one in degraded} == {503}
        assert all(int(one.headers["retry-after"]) >= 1 for one in degraded)


@virtual
async def test_after_overload_ends_full_quality_is_back_within_seconds():
    async with World() as world:
        await world.flood(4 * CAPACITY, 4)
        assert world.rungs()[0] > 0
        took_s = 0
        while (await world.search()).json.get("degraded") != []:
            await asyncio.sleep(1)
            took_s += 1
        assert took_s <= 10, "three rungs, three seconds each"
        await asyncio.sleep(40)
        world.books.check_at_rest()


@virtual
async def test_overload_of_bulk_searches_leaves_interactive_ones_whole():
    async with World() as world:
        crawl = asyncio.create_task(world.flood(4 * CAPACITY, 4, CROWD, criticality="bulk"))
        await asyncio.sleep(1)
        replies = await world.flood(CAPACITY / 5, 3, ["person"])
        assert ends(replies) == {"answered": len(replies)}
        assert words(replies) == {"none": len(replies)}
        assert max(one.took_s for one in replies) < 0.5
        crawled = await crawl
        assert words(crawled)["none"] < len(crawled) / 2, "the crawl pays for it"
        interactive, _, bulk = world.rungs()
        assert (interactive, bulk > 0) == (0, True)


@virtual
async def test_one_hog_beside_twenty_small_clients_leaves_them_their_shares():
    async with World() as world:
        hog = asyncio.create_task(world.flood(10 * CAPACITY, 4, ["hog"]))
        await asyncio.sleep(0.5)
        replies = await world.flood(CAPACITY / 2, 3)
        assert ends(replies)["answered"] >= 0.95 * len(replies), ends(replies)
        assert ends(await hog)["client_share"] > 0


@virtual
async def test_a_rate_over_the_limit_is_refused_with_a_hint_that_is_enough():
    async with World(settings=changed(http={"rate_limit": 10, "rate_burst": 5})) as world:
        replies = [await world.search("alpha", client="eager") for _ in range(20)]
        refused = [one for one in replies if one.code == "rate_limited"]
        assert refused
        assert {one.status for one in refused} == {429}
        await asyncio.sleep(int(refused[-1].headers["retry-after"]))
        assert (await world.search("alpha", client="eager")).status == 200


# --- Callers


@virtual
async def test_a_client_that_hangs_up_cancels_its_work_everywhere():
    async with World() as world:
        caller = Caller(None)
        asked = asyncio.create_task(world.search(caller=caller))
        await asyncio.sleep(0.02)
        assert world.core.pools.search.active == world.dense.running == 1
        caller.gone.set()
        await asyncio.sleep(0.06)
        assert (await asked).end == "gone"
        began = world.disk.begun
        assert world.working() == 0
        assert [pool.active for pool in world.core.pools.all()] == [0] * 6
        await asyncio.sleep(5)
        assert world.disk.begun == began, "nothing was begun for it afterwards"
        assert all(
            state.counts.answered + state.counts.left == state.counts.offered for state in world.core.bus.state()
        )


@virtual
async def test_clients_that_hang_up_while_they_wait_in_line_cost_nothing():
    async with World() as world:
        callers = [Caller(None) for _ in range(30)]
        asked = [
            asyncio.create_task(world.search(client=client, caller=caller))
            for client, caller in zip(CROWD * 2, callers, strict=False)
        ]
        await asyncio.sleep(0.01)
        for caller in callers[4:]:
            caller.gone.set()
        ended = await asyncio.gather(*asked)
        assert Counter(one.end for one in ended) == {"answered": 4, "gone": 26}
        assert world.dense.begun == 4


@virtual
async def test_clients_that_hang_up_or_are_in_a_hurry_open_no_breaker():
    async with World() as world:
        for number in range(20):
            caller = Caller(None)
            asyncio.get_running_loop().call_later(0.02, caller.gone.set)
            await world.search(caller=caller)
            await world.search(timeout_ms=1 + number)
        assert {guard.state for guard in world.core.guards.values()} == {BreakerState.CLOSED}
        assert words([await world.search()]) == {"none": 1}


@virtual
async def test_a_deadline_already_past_costs_nothing():
    async with World() as world:
        slow = Caller(None, pause_s=0.5)
        late = await world.search(caller=slow, timeout_ms=100)
        assert (late.status, late.code, late.json["operation"]) == (504, "timeout", "request")
        assert world.dense.begun == world.sparse.begun == 0
        assert all(state.counts.offered == 0 for state in world.core.bus.state())


@virtual
async def test_a_deadline_that_the_client_sets_is_kept_and_named():
    async with World() as world:
        world.dense.turn(Mood.HANGS)
        world.sparse.turn(Mood.HANGS)
        late = await world.search(timeout_ms=300)
        assert (late.status, late.json["operation"]) == (504, "request")
        assert ARM_TIME_SHARE * 0.3 <= late.took_s + 0.01 < 0.32


@virtual
async def test_a_caller_that_never_sends_its_body_and_one_that_never_reads_are_let_go():
    async with World() as world:
        mute = asyncio.create_task(world.search(caller=Caller(None, pause_s=float("inf"))))
        deaf = asyncio.create_task(world.search(caller=Caller(None, reads=False)))
        assert (await mute).status == 408
        assert (await deaf).end == "gone"
        assert world.gate.traffic.cut_off == 1
        world.books.check_at_rest()


# --- The end


@virtual
async def test_a_drain_in_the_middle_answers_what_runs_and_refuses_what_comes():
    async with World() as world:
        before = [asyncio.create_task(world.search(client=client)) for client in CROWD]
        await asyncio.sleep(0.05)
        world.gate.traffic.draining = True
        ready = await world.ask("GET", "/readyz")
        assert (ready.status, ready.json["reasons"]) == (503, ["the server is shutting down"])
        after = await world.search()
        assert (after.status, after.code, after.headers["connection"]) == (503, "draining", "close")
        assert await world.gate.wait_drained(30)
        assert ends(await asyncio.gather(*before)) == {"answered": 20}
        world.books.check_at_rest()


@virtual
async def test_what_hangs_when_the_drain_is_over_gets_a_typed_refusal():
    async with World() as world:
        world.disk.turn(Mood.HANGS)
        asked = [asyncio.create_task(world.search(client=client)) for client in CROWD]
        await asyncio.sleep(0.05)
        world.gate.traffic.draining = True
        assert not await world.gate.wait_drained(0.5)
        assert ends(await asyncio.gather(*asked)) == {"draining": 20}


DOCUMENTS = "/v1/collections/own/documents"

#: What one client sends to do another harm: each of it is wrong, too much, or in a hurry.
HARM: tuple[tuple[str, str, Any], ...] = (
    ("POST", "/v1/search", {"query": "alpha", "filter": {"metadata.a": 2**64}}),
    ("POST", "/v1/search", {"query": "alpha", "filter": {"metadata.a": {"gte": 10**400}}}),
    ("POST", "/v1/search", {"query": "alpha", "filter": {f"metadata.k{n}": n for n in range(500)}}),
    ("POST", "/v1/search", {"query": "alpha", "filter": {"metadata." + "k" * 5000: 1}}),
    ("POST", "/v1/search", {"query": "alpha", "timeout_ms": 1}),
    ("POST", "/v1/search", {"query": "alpha beta", "timeout_ms": 45}),
    ("POST", DOCUMENTS, {"documents": [{"id": f"b{n}", "text": "t", "metadata": {"n": 2**64}} for n in range(9)]}),
    ("POST", DOCUMENTS, {"documents": [{"id": "c", "text": "t", "metadata": {"a": [{"n": -(2**63) - 1}]}}]}),
    ("POST", DOCUMENTS, {"documents": [{"id": f"d{n}", "text": f"t{n}"} for n in range(30)], "timeout_ms": 60}),
    ("POST", "/v1/embed", {"texts": ["a"], "timeout_ms": 1}),
    ("POST", "/v1/embed", {"texts": [""] * 5000}),
    ("DELETE", DOCUMENTS, {"ids": ["\0", "😀" * 5000]}),
    ("GET", f"{DOCUMENTS}?after=nowhere&limit=0", None),
    ("PUT", "/v1/collections/%ff", None),
)


@pytest.mark.parametrize("seed", range(4))
@virtual
async def test_whatever_a_client_sends_breakers_stay_closed_and_others_are_answered_the_same(seed):
    async with World(seed) as world:
        await world.ask("PUT", "/v1/collections/own")
        before = await world.search("alpha and more", client="other")
        for number in range(60):
            method, path, body = world.random.choice(HARM)
            harm = asyncio.create_task(world.ask(method, path, body, {"x-api-key": "attacker"}))
            if number % 3 == 0:
                after = await world.search("alpha and more", client="other")
                assert [hit["id"] for hit in after.json["hits"]] == [hit["id"] for hit in before.json["hits"]]
                assert after.json["degraded"] == []
            reply = await harm
            assert reply.status != 500, (path, reply.json)
            assert {guard.state for guard in world.core.guards.values()} == {BreakerState.CLOSED}
