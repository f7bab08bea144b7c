"""The whole server on virtual time, scene by scene; the books are checked between all steps of the loop."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable

from penstock.policies.breaker import State
from penstock.policies.ladder import Rung
from tests.clock import quiet, virtual
from tests.fakes.api import Caller
from tests.fakes.faults import Mood
from tests.simulation.world import CROWD, Reply, World, changed

#: Searches a second that the small server can answer in full: two runs of the dense model at once, 40 ms each.
CAPACITY = 50


def words(replies: Iterable[Reply]) -> Counter[str]:
    """Count what answers lacked; ``none`` for those that lacked nothing."""
    return Counter("+".join(one.json["degraded"]) or "none" for one in replies if one.status == 200)


def ends(replies: Iterable[Reply]) -> Counter[str]:
    """Count how requests ended: ``answered``, or the code of their problem."""
    return Counter(one.code or one.end for one in replies)


# --- Overload


@virtual
async def test_overload_climbs_the_ladder_and_every_answer_says_what_it_lacks():
    async with World() as world:
        replies = await world.flood(4 * CAPACITY, 4)
        assert {"none", "rerank_reduced", "no_rerank", "one_arm"} <= set(words(replies)), words(replies)
        for one in replies:
            if one.status == 200:
                stages, lacks = set(one.json["stages"]), one.json["degraded"]
                assert "rerank" in stages or lacks, "without rerank, and does not say so"
                assert {"dense", "sparse"} <= stages or lacks in (["one_arm"], ["cached"]), lacks
        counted = world.core.metrics.counts(world.core.metrics.degraded)
        assert counted == words(replies)
        reached = {rung for one, rung in world.core.rungs.moves if one.name == "INTERACTIVE"}
        assert {Rung.FEWER_CANDIDATES, Rung.NO_RERANK, Rung.ONE_ARM} <= reached


@virtual
async def test_overload_gives_up_quality_before_it_gives_up_answers():
    async with World() as world:
        await world.flood(2 * CAPACITY, 2)
        replies = await world.flood(2 * CAPACITY, 3)
        assert ends(replies)["answered"] >= 0.95 * len(replies), ends(replies)


@virtual
async def test_when_no_more_work_may_be_begun_remembered_answers_are_given_and_say_so():
    async with World() as world:
        world.disk.turn(Mood.SLOW)
        world.sparse.turn(Mood.SLOW)
        asked = [asyncio.create_task(world.flood(10, 6, [client], query=f"alpha {client}")) for client in CROWD]
        replies = [one for some in await asyncio.gather(*asked) for one in some]
        assert ends(replies)["overloaded"] > 0, "what was never answered cannot be remembered"
        remembered = [one for one in replies if one.status == 200 and "cached" in one.json["degraded"]]
        assert len(remembered) > len(replies) / 10, words(replies)
        assert {one.json["degraded"][-1] for one in remembered} == {"cached"}
        assert max(one.took_s for one in remembered) < 2.0


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


# --- Dependencies that fail


@virtual
async def test_a_store_that_hangs_opens_its_breaker_and_searches_fail_at_once_until_it_is_back():
    async with World() as world:
        world.disk.turn(Mood.HANGS)
        hung = await world.flood(CAPACITY / 2, 3)
        assert world.core.guards["store"].state is State.OPEN
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
        assert world.core.guards["store"].state is State.CLOSED


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
        assert world.core.guards["embed"].state is State.OPEN
        assert (await world.search(strict=True)).code == "degraded"
        world.dense.turn(Mood.WELL)
        await asyncio.sleep(60)
        assert words([await world.search() for _ in range(3)]) == {"none": 3}
        assert world.core.guards["embed"].state is State.CLOSED


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
        assert ends(hung) == {"timeout": 5}
        await quiet()
        assert world.core.guards["embed"].state is State.OPEN
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
        world.disk.turn(Mood.DEAD)
        before = world.disk.begun
        assert (await world.search()).code == "unavailable"
        assert world.disk.begun - before == 2, "each arm asked once"


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
        assert {guard.state for guard in world.core.guards.values()} == {State.CLOSED}
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
        assert 0.3 <= late.took_s < 0.32


@virtual
async def test_a_caller_that_never_sends_its_body_and_one_that_never_reads_are_let_go():
    async with World() as world:
        mute = asyncio.create_task(world.search(caller=Caller(None, pause_s=float("inf"))))
        deaf = asyncio.create_task(world.search(caller=Caller(None, reads=False)))
        assert (await mute).status == 408
        assert (await deaf).end == "gone"
        assert world.core.gate.tally.cut_off == 1
        world.books.check_at_rest()


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
        assert world.metric("cache_entries", cache="embed") == 40
        world.memory_share = 0.85
        await asyncio.sleep(1.05)
        assert 0 < world.metric("cache_entries", cache="embed") <= 20
        assert (await world.ask("POST", "/v1/collections/default/documents", _documents(300_000))).status == 200
        world.memory_share = 0.95
        await asyncio.sleep(1.05)
        assert [world.metric("cache_entries", cache=name) for name in world.core.caches] == [0, 0, 0]
        assert world.metric("memory_level") == 2


# --- What it tells


@virtual
async def test_alerts_are_raised_published_listed_and_called_off():
    async with World() as world:
        world.disk.turn(Mood.DEAD)
        for _ in range(6):
            await world.search()
        await quiet()
        told = [(one.name, one.severity, one.subject, one.active) for one in world.told]
        assert told == [("breaker_open", "critical", "store", True)]
        [alert] = (await world.ask("GET", "/v1/alerts")).json["alerts"]
        assert (alert["name"], alert["active"], "until" in alert) == ("breaker_open", True, False)
        assert world.metric("alerts_active", severity="critical") == 1
        world.disk.turn(Mood.WELL)
        await asyncio.sleep(10)
        for _ in range(3):
            await world.search()
        await asyncio.sleep(12)
        assert [(one.name, one.active) for one in world.told] == [("breaker_open", True), ("breaker_open", False)]
        [alert] = (await world.ask("GET", "/v1/alerts")).json["alerts"]
        assert (alert["active"], "until" in alert) == (False, True)
        assert world.metric("alerts_active", severity="critical") == 0
        assert world.metric("alerts_raised_total", alert="breaker_open", severity="critical") == 1


@virtual
async def test_a_queue_that_fills_is_an_alert_and_its_burst_is_seen_at_the_next_scrape():
    async with World() as world:
        asked = [asyncio.create_task(world.search(client=CROWD[number % 20])) for number in range(60)]
        await asyncio.sleep(1.2)
        await asyncio.gather(*asked)
        await asyncio.sleep(3)
        assert world.metric("event_bus_buffer_used", topic="search.request") == 0
        assert world.metric("event_bus_buffer_used_max", topic="search.request") >= 0.9
        assert world.metric("http_concurrent_requests_max") >= 36
        assert world.metric("event_bus_level_reached_total", topic="search.request", level="critical") >= 1


@virtual
async def test_the_metrics_have_their_names_and_move():
    async with World() as world:
        asked = [asyncio.create_task(world.search(client=CROWD[number % 20])) for number in range(20)]
        await asyncio.sleep(0.03)
        assert world.metric("worker_pool_active", pool="search") == 4
        assert world.metric("worker_pool_active", pool="embed") == 2
        assert world.metric("worker_pool_queued", pool="search") == 16
        assert world.metric("event_bus_buffer_used", topic="search.request") == 16 / 40
        assert world.metric("http_concurrent_requests") == 20
        assert world.metric("circuit_breaker_state", dependency="store") == 0
        assert world.metric("task_count") >= 20
        assert world.metric("goroutine_count") == world.metric("task_count") + world.metric("thread_count")
        await asyncio.gather(*asked)
        text = (await world.ask("GET", "/metrics")).json
        for name in SPEC_METRICS:
            assert f"\n{name}{{" in text or f"\n{name} " in text, name
        assert world.metric("http_answers_total", in_time="true") == 20
        assert world.metric("cache_misses_total", cache="embed") == 20
        await world.search("alpha")
        await world.search("alpha")
        assert world.metric("cache_hits_total", cache="embed") >= 1
        world.books.check_at_rest()


#: SPEC §10, M1 to M6.
SPEC_METRICS = (
    "worker_pool_active",
    "worker_pool_queued",
    "event_bus_buffer_used",
    "goroutine_count",
    "task_count",
    "thread_count",
    "http_concurrent_requests",
    "circuit_breaker_state",
    "event_bus_wait_seconds_count",
    "event_bus_slack_seconds_count",
    "http_answers_total",
    "event_bus_messages_total",
    "degradation_level",
    "cache_hits_total",
    "search_stage_seconds_count",
    "event_loop_lag_seconds_count",
    "event_bus_buffer_used_max",
    "http_concurrent_requests_max",
)


@virtual
async def test_status_is_told_while_everything_fails():
    async with World() as world:
        for one in world.dependencies():
            one.turn(Mood.DEAD)
        await world.flood(CAPACITY, 1)
        for _ in range(5):
            await world.ask("GET", "/v1/collections")
        status = await world.ask("GET", "/v1/status")
        assert status.status == 200
        states = {one["dependency"]: one["state"] for one in status.json["breakers"]}
        assert states == {"store": "open", "embed": "open", "sparse": "open", "rerank": "closed"}
        assert any("no collections" in reason for reason in status.json["reasons"])


# --- The end


@virtual
async def test_a_drain_in_the_middle_answers_what_runs_and_refuses_what_comes():
    async with World() as world:
        before = [asyncio.create_task(world.search(client=client)) for client in CROWD]
        await asyncio.sleep(0.05)
        world.core.gate.draining = True
        ready = await world.ask("GET", "/readyz")
        assert (ready.status, ready.json["reasons"]) == (503, ["the server is shutting down"])
        after = await world.search()
        assert (after.status, after.code, after.headers["connection"]) == (503, "draining", "close")
        assert await world.core.gate.drained(30)
        assert ends(await asyncio.gather(*before)) == {"answered": 20}
        world.books.check_at_rest()


@virtual
async def test_what_hangs_when_the_drain_is_over_gets_a_typed_refusal():
    async with World() as world:
        world.disk.turn(Mood.HANGS)
        asked = [asyncio.create_task(world.search(client=client)) for client in CROWD]
        await asyncio.sleep(0.05)
        world.core.gate.draining = True
        assert not await world.core.gate.drained(0.5)
        assert ends(await asyncio.gather(*asked)) == {"draining": 20}
